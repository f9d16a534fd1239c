package zookeeper

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"

	"github.com/milena-mq/milena/internal/coord"
	"github.com/milena-mq/milena/internal/meta"
)

// The nodes below the chroot. docs/format/zookeeper.md draws them.
const (
	nodeHead   = "head"   // how far the log goes, and which snapshot is in force
	nodeCtl    = "ctl"    // the controller's record; its version is the fence
	nodeLog    = "log"    // one child for each entry, named by its revision
	nodePieces = "pieces" // what does not fit into one node: snapshots, large entries
	nodeElect  = "elect"  // candidates for the lead
)

const format = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errDamaged = errors.New("damaged")

// head is the node that decides: an entry is there if its revision is in (First, Rev].
type head struct {
	Format int            `json:"format"`
	Rev    coord.Revision `json:"rev"`             // of the newest entry
	First  coord.Revision `json:"first,omitempty"` // entries up to this one are removed
	Bytes  int64          `json:"bytes,omitempty"` // payload of the entries after the snapshot
	Snap   *snapRef       `json:"snap,omitempty"`  // nil: the log goes back to the beginning

	version int32 // of the node
}

// snapRef is a snapshot: every key at one revision.
type snapRef struct {
	Rev coord.Revision `json:"rev"`
	ref
}

// ref is a payload in pieces: nodes called ID-0000, ID-0001, ...
type ref struct {
	ID    string `json:"id"`
	N     int    `json:"n"`     // pieces
	Bytes int    `json:"bytes"` // of all together
	CRC   uint32 `json:"crc"`   // CRC-32C of all together
}

func (r ref) piece(i int) string { return fmt.Sprintf("%s-%04d", r.ID, i) }

func (h head) encode() []byte {
	h.Format = format
	b, _ := json.Marshal(h) // numbers and a name: it cannot fail
	return b
}

func decodeHead(b []byte, version int32) (*head, error) {
	h := head{version: version}
	if err := json.Unmarshal(b, &h); err != nil {
		return nil, fmt.Errorf("head: %w: %w", errDamaged, err)
	}
	if h.Format != format {
		return nil, fmt.Errorf("format %d is there, this is a Milena for format %d", h.Format, format)
	}
	if h.First < 0 || h.First > h.Rev || h.Snap != nil && (h.Snap.Rev < h.First || h.Snap.Rev > h.Rev) || h.Snap == nil && h.First > 0 {
		return nil, fmt.Errorf("head: %w: %s", errDamaged, b[:min(len(b), 200)])
	}
	if h.Snap != nil {
		return &h, h.Snap.check()
	}
	return &h, nil
}

// maxPayload bounds what a reference may name. A snapshot holds all the metadata of a cluster, which is
// 30 MB for 100,000 partitions.
const maxPayload = 1 << 30

func (r ref) check() error {
	if r.N < 1 || r.N > 9999 || r.Bytes < 1 || r.Bytes > maxPayload || r.ID == "" {
		return fmt.Errorf("reference: %w: %+v", errDamaged, r)
	}
	return nil
}

func entryName(r coord.Revision) string { return fmt.Sprintf("%016x", int64(r)) }

// parseName is the reverse, also for the revision at the beginning of a piece's name. ok false: not ours.
func parseName(s string) (r coord.Revision, ok bool) {
	if len(s) != 16 {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 16, 64)
	return coord.Revision(n), err == nil && n >= 0 && entryName(coord.Revision(n)) == s
}

// An entry's node begins with a letter: the changes themselves, or where their pieces are.
const (
	inline  = 'I'
	distant = 'D'
)

func encodeInline(payload []byte) []byte {
	b := make([]byte, 5+len(payload))
	b[0] = inline
	binary.BigEndian.PutUint32(b[1:], crc32.Checksum(payload, castagnoli))
	copy(b[5:], payload)
	return b
}

func encodeDistant(r ref) []byte {
	b, _ := json.Marshal(r) // numbers and a name: it cannot fail
	return append([]byte{distant}, b...)
}

// decodeEntry gives the payload, or where it is.
func decodeEntry(b []byte) (payload []byte, r *ref, err error) {
	switch {
	case len(b) >= 5 && b[0] == inline:
		if crc32.Checksum(b[5:], castagnoli) != binary.BigEndian.Uint32(b[1:]) {
			return nil, nil, fmt.Errorf("entry: %w: checksum", errDamaged)
		}
		return b[5:], nil, nil
	case len(b) >= 1 && b[0] == distant:
		r := &ref{}
		if err := json.Unmarshal(b[1:], r); err != nil {
			return nil, nil, fmt.Errorf("entry: %w: %w", errDamaged, err)
		}
		return nil, r, r.check()
	}
	return nil, nil, fmt.Errorf("entry: %w: neither changes nor a reference", errDamaged)
}

// encodeChanges is the payload: for each change its key, whether it is a delete, the value, and with revs
// the revision. Lengths are unsigned varints.
func encodeChanges(cs []meta.Change, revs bool) []byte {
	n := 0
	for _, c := range cs {
		n += len(c.Key) + len(c.Value) + 16
	}
	b := make([]byte, 0, n)
	for _, c := range cs {
		b = binary.AppendUvarint(b, uint64(len(c.Key)))
		b = append(b, c.Key...)
		if c.Value == nil {
			b = append(b, 0)
		} else {
			b = binary.AppendUvarint(b, uint64(len(c.Value))+1)
			b = append(b, c.Value...)
		}
		if revs {
			b = binary.AppendUvarint(b, uint64(c.Rev))
		}
	}
	return b
}

// decodeChanges reads a payload; the values are slices of b. rev is given to each change where the payload
// has none.
func decodeChanges(b []byte, revs bool, rev coord.Revision) ([]meta.Change, error) {
	damaged := func() ([]meta.Change, error) { return nil, fmt.Errorf("changes: %w", errDamaged) }
	number := func() (uint64, bool) {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return 0, false
		}
		b = b[n:]
		return v, true
	}
	var out []meta.Change
	for len(b) > 0 {
		c := meta.Change{Rev: int64(rev)}
		n, ok := number()
		if !ok || n > uint64(len(b)) {
			return damaged()
		}
		c.Key, b = string(b[:n]), b[n:]
		if n, ok = number(); !ok || n > uint64(len(b))+1 {
			return damaged()
		}
		if n > 0 {
			c.Value, b = b[:n-1:n-1], b[n-1:]
		}
		if revs {
			r, ok := number()
			if !ok || r > 1<<62 || n == 0 {
				return damaged()
			}
			c.Rev = int64(r)
		}
		out = append(out, c)
	}
	return out, nil
}

// cut divides a payload into pieces of at most size bytes.
func cut(payload []byte, size int) [][]byte {
	var out [][]byte
	for len(payload) > 0 {
		n := min(size, len(payload))
		out = append(out, payload[:n])
		payload = payload[n:]
	}
	return out
}
