package api

import (
	"context"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/controller"
	"github.com/milena-mq/milena/internal/coord"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/metric"
	"github.com/milena-mq/milena/internal/partition"
	"github.com/milena-mq/milena/internal/session"
	"github.com/milena-mq/milena/internal/shard"
)

// Env is what the APIs work with. It does not change after New.
type Env struct {
	NodeID      int32
	Image       func() *meta.Image // the newest metadata this broker knows; nil before the first
	Controller  *controller.Controller
	Partitions  *partition.Set
	Sessions    *session.Cache // of Fetch
	ProducerIDs *ProducerIDs   // New makes it where Forward is set
	Groups      *shard.Groups
	Txns        *shard.Txns // nil: there are no transactions
	Static      *config.Static
	Log         *slog.Logger
	Metrics     *metric.Catalog
	Clock       func() time.Time

	// What a broker of several needs. All of it is nil on a broker that has no company, which then is the
	// controller itself.

	// Forward hands a request to the active controller, wherever it is, and follows it when it moves. An
	// error means that no answer came; whether the request was carried out is then unknown. It returns when
	// ctx ends.
	Forward func(ctx context.Context, req kmsg.Request) (kmsg.Response, error)
	// Leads says that this broker is the controller, in a term that serves.
	Leads func() bool
	// Epoch is this broker's own broker epoch, -1 before it is registered.
	Epoch func() int64
	// Ask sends a request to another broker's peer address; nil: there is no other.
	Ask func(ctx context.Context, node int32, req kmsg.Request) (kmsg.Response, error)
	// Current says that no other broker can have been elected in this one's place; nil: there is none. See member.Current.
	Current func() bool
	// Quorum is the members of the coordination store, where it lives in the brokers; nil: elsewhere.
	Quorum coord.Quorum
}

// current is asked after a read and before its answer.
func (e *Env) current() bool { return e.Current == nil || e.Current() }

// leads says that this broker serves the controller's requests itself.
func (e *Env) leads() bool { return e.Leads == nil || e.Leads() }

// epoch is this broker's broker epoch, -1 when it has none.
func (e *Env) epoch() int64 {
	if e.Epoch == nil {
		return -1
	}
	return e.Epoch()
}
