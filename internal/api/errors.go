package api

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/coord"
	"github.com/milena-mq/milena/internal/storage"
)

// codes maps the typed errors of the engines to Kafka's codes. A *kerr.Error anywhere in an error's chain
// comes first.
var codes = []struct {
	err  error
	code *kerr.Error
}{
	{storage.ErrOutOfRange, kerr.OffsetOutOfRange},
	{storage.ErrReserve, kerr.KafkaStorageError},
	{storage.ErrOffline, kerr.KafkaStorageError},
	{storage.ErrCorrupt, kerr.KafkaStorageError},
	{storage.ErrClosed, kerr.NotLeaderForPartition}, // the replica is being removed: ask who has it now
	{coord.ErrFenced, kerr.NotController},
	{coord.ErrUnknown, kerr.RequestTimedOut}, // may have happened: Kafka's own word for that
	{coord.ErrTooLarge, kerr.InvalidRequest},
	{coord.ErrFull, kerr.PolicyViolation},
	{coord.ErrClosed, kerr.BrokerNotAvailable},
	{context.DeadlineExceeded, kerr.RequestTimedOut},
	{context.Canceled, kerr.BrokerNotAvailable},
}

// errorOf is Kafka's error for err, nil for nil. known is false when err is none that a client is meant
// to see.
func errorOf(err error) (code *kerr.Error, known bool) {
	if err == nil {
		return nil, true
	}
	var k *kerr.Error
	if errors.As(err, &k) && k != nil {
		return k, true
	}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return c.code, true
		}
	}
	return kerr.UnknownServerError, false
}

// errorCode is Kafka's code for an error, 0 for nil, UNKNOWN_SERVER_ERROR for one that nobody foresaw.
func errorCode(err error) int16 {
	k, _ := errorOf(err)
	if k == nil {
		return 0
	}
	return k.Code
}

// errorCode is the package's function that also counts the failure and logs one that nobody foresaw.
func (c *Call) errorCode(err error) int16 {
	if err == nil {
		return 0
	}
	k, known := errorOf(err)
	c.failures.Add(1)
	if !known {
		c.Log.Error("request failed", "api", c.row.Name(), "client_id", c.Header.ClientID, "client", c.Conn.RemoteHost(), "software", c.software(), "error", err)
	}
	return k.Code
}

// failed counts one failure in the answer whose code did not come out of errorCode.
func (c *Call) failed(code int16) int16 {
	if code != 0 {
		c.failures.Add(1)
	}
	return code
}
