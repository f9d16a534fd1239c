package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Sizes of frames, the 4-byte length left out.
const (
	MaxFrame         = 100 << 20 // socket.request.max.bytes, the default
	MaxFramePreLogin = 512 << 10 // before login, on a listener that asks for one
	MinFrame         = 8         // key, version, correlation id
)

// KeyApiVersions is the one API whose response header never has tags and whose unknown versions are answered.
const KeyApiVersions int16 = 18

// ErrMalformed is wrapped by every error about bytes that are not what the protocol says. The only
// answer to such bytes is a closed connection: nothing after them can be trusted.
var ErrMalformed = errors.New("malformed request")

// Header is a request header, version 1 or 2.
type Header struct {
	Key, Version  int16
	Correlation   int32
	ClientID      string // empty when null
	Flexible      bool   // the request, and so its answer, has tagged fields
	KnownVersion  bool   // kmsg knows this version of the key
	ClientIDIsNil bool
}

// CheckSize judges the length prefix of a frame against a limit (MaxFrame, or less).
func CheckSize(size int32, limit int32) error {
	switch {
	case size < MinFrame:
		return fmt.Errorf("%w: frame of %d bytes, at least %d", ErrMalformed, size, MinFrame)
	case size > limit:
		return fmt.Errorf("%w: frame of %d bytes, at most %d", ErrMalformed, size, limit)
	}
	return nil
}

// ParseHeader reads the header and returns the rest of the frame. An unknown key is malformed. An unknown
// version is not an error here: KnownVersion tells, and for ApiVersions nothing after the correlation
// id is looked at then, because only the newer client knows its shape.
func ParseHeader(frame []byte) (Header, []byte, error) {
	if len(frame) < MinFrame {
		return Header{}, nil, fmt.Errorf("%w: %d bytes of header", ErrMalformed, len(frame))
	}
	h := Header{
		Key:         int16(binary.BigEndian.Uint16(frame)),
		Version:     int16(binary.BigEndian.Uint16(frame[2:])),
		Correlation: int32(binary.BigEndian.Uint32(frame[4:])),
	}
	rest := frame[8:]
	k := keyInfo(h.Key)
	if k == nil || h.Version < 0 {
		return h, nil, fmt.Errorf("%w: api key %d version %d", ErrMalformed, h.Key, h.Version)
	}
	h.KnownVersion = h.Version <= k.max
	h.Flexible = k.flexible >= 0 && h.Version >= k.flexible
	if h.Key == KeyApiVersions && !h.KnownVersion {
		return h, nil, nil
	}
	if len(rest) < 2 {
		return h, nil, fmt.Errorf("%w: no client id", ErrMalformed)
	}
	n := int(int16(binary.BigEndian.Uint16(rest)))
	rest = rest[2:]
	switch {
	case n < -1 || n > len(rest):
		return h, nil, fmt.Errorf("%w: client id of %d bytes", ErrMalformed, n)
	case n == -1:
		h.ClientIDIsNil = true
	default:
		h.ClientID = string(rest[:n])
		rest = rest[n:]
	}
	if h.Flexible {
		w := walker{src: rest, tags: maxHeaderTags}
		w.readTags()
		if w.bad {
			return h, nil, fmt.Errorf("%w: tagged fields of the header", ErrMalformed)
		}
		rest = w.src
	}
	return h, rest, nil
}

// maxHeaderTags bounds the tagged fields of a request header; Kafka defines none so far.
const maxHeaderTags = 64

// ResponseTags says whether the response header ends in a tagged field section (response header v1).
// The answer to ApiVersions never does: a client reads it before it knows what the broker speaks.
func (h Header) ResponseTags() bool { return h.Flexible && h.Key != KeyApiVersions }

// key is what kmsg tells about one API, asked once.
type key struct {
	max      int16
	flexible int16 // first flexible version, -1 for none
	name     string
}

// keys is filled when the package is loaded, from kmsg's own tables.
var keys = buildKeys()

func buildKeys() [kmsg.MaxKey + 1]*key {
	var out [kmsg.MaxKey + 1]*key
	for k := int16(0); k <= kmsg.MaxKey; k++ {
		r := kmsg.RequestForKey(k)
		if r == nil {
			continue
		}
		info := &key{max: r.MaxVersion(), flexible: -1, name: kafkaName(kmsg.NameForKey(k))}
		for v := int16(0); v <= info.max; v++ {
			r.SetVersion(v)
			if r.IsFlexible() {
				info.flexible = v
				break
			}
		}
		out[k] = info
	}
	return out
}

// kafkaName turns kmsg's spelling into Kafka's.
func kafkaName(n string) string {
	if n == "AlterPartitionAssignments" {
		return "AlterPartitionReassignments"
	}
	return strings.NewReplacer("ID", "Id", "ACLs", "Acls", "SASL", "Sasl", "SCRAM", "Scram", "ISR", "Isr").Replace(n)
}

func keyInfo(k int16) *key {
	if k < 0 || k > kmsg.MaxKey {
		return nil
	}
	return keys[k]
}

// Name is Kafka's name of an API, "Unknown" for none.
func Name(k int16) string {
	if i := keyInfo(k); i != nil {
		return i.name
	}
	return "Unknown"
}

// MaxVersion is the highest version of the key that can be decoded here, -1 when there is no such key.
func MaxVersion(k int16) int16 {
	if i := keyInfo(k); i != nil {
		return i.max
	}
	return -1
}

// Flexible says whether that version of the key has tagged fields.
func Flexible(k, version int16) bool {
	i := keyInfo(k)
	return i != nil && i.flexible >= 0 && version >= i.flexible
}
