package zookeeper

import (
	"fmt"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/milena-mq/milena/internal/coord"
	"github.com/milena-mq/milena/internal/meta"
)

// ensemble is ZooKeeper as far as this package uses it, in memory: nodes with versions, multis that are
// written whole or not at all, ephemeral and numbered nodes, watches that fire once, sessions that end.
type ensemble struct {
	mu      sync.Mutex
	nodes   map[string]*fakeNode
	watches []fakeWatch
	session int64
	writes  int // multis that were written
}

type fakeNode struct {
	data    []byte
	version int32
	seq     int32
	owner   int64
}

type fakeWatch struct {
	path  string
	owner *fakeClient
	ch    chan zk.Event
}

func newEnsemble() *ensemble { return &ensemble{nodes: map[string]*fakeNode{"/": {}}} }

// fakeClient is the connection of one Store.
type fakeClient struct {
	e  *ensemble
	s  *Store
	id int64
	// fault is asked about each multi before it is done: an error is the answer, and apply says whether it
	// is done all the same. It runs without the lock.
	fault  func(ops []any) (apply bool, err error)
	down   bool
	closed bool
}

// packet is jute.maxbuffer: what is larger costs the connection.
const packet = 1<<20 - 1

func (e *ensemble) open(t testing.TB, id int32, change ...func(*Options)) (*Store, *fakeClient) {
	t.Helper()
	c := &fakeClient{e: e}
	o := Options{Servers: []string{"fake:1"}, Path: "/a/b", Identity: coord.Identity{NodeID: id, Incarnation: meta.UUID{byte(id)}}, Patience: 5 * time.Second}
	o.dial = func(s *Store) (client, error) {
		c.s = s
		e.mu.Lock()
		e.session++
		c.id = e.session
		e.mu.Unlock()
		s.saw(zk.StateHasSession)
		return c, nil
	}
	for _, f := range change {
		f(&o)
	}
	st, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return st.(*Store), c
}

// cut takes the connection away, and with it what is under way; mend brings it back.
func (c *fakeClient) cut() {
	c.e.mu.Lock()
	c.down = true
	c.e.mu.Unlock()
	c.s.saw(zk.StateDisconnected)
}

func (c *fakeClient) mend() {
	c.e.mu.Lock()
	c.down = false
	c.e.mu.Unlock()
	c.s.saw(zk.StateHasSession)
}

// expire ends the session, as the ensemble does with a client it has not heard of, and begins another.
func (c *fakeClient) expire() {
	c.e.mu.Lock()
	c.e.endLocked(c)
	var left []fakeWatch
	for _, w := range c.e.watches {
		if w.owner == c {
			w.ch <- zk.Event{Type: zk.EventNotWatching, Err: zk.ErrSessionExpired}
		} else {
			left = append(left, w)
		}
	}
	c.e.watches = left
	c.e.session++
	c.id, c.down = c.e.session, false
	c.e.mu.Unlock()
	c.s.saw(zk.StateDisconnected)
	c.s.saw(zk.StateExpired)
	c.s.saw(zk.StateHasSession)
}

func (e *ensemble) endLocked(c *fakeClient) {
	for p, n := range e.nodes {
		if n.owner == c.id {
			delete(e.nodes, p)
			e.fireLocked(p, zk.EventNodeDeleted)
		}
	}
}

func (e *ensemble) fireLocked(path string, what zk.EventType) {
	var left []fakeWatch
	for _, w := range e.watches {
		if w.path == path && !w.owner.down {
			w.ch <- zk.Event{Type: what, Path: path}
		} else {
			left = append(left, w)
		}
	}
	e.watches = left
}

func (c *fakeClient) begin() (func(), error) {
	c.e.mu.Lock()
	if c.down || c.closed {
		c.e.mu.Unlock()
		return nil, zk.ErrConnectionClosed
	}
	return c.e.mu.Unlock, nil
}

func (c *fakeClient) Get(path string) ([]byte, *zk.Stat, error) {
	end, err := c.begin()
	if err != nil {
		return nil, nil, err
	}
	defer end()
	n := c.e.nodes[path]
	if n == nil {
		return nil, &zk.Stat{}, zk.ErrNoNode
	}
	return append([]byte(nil), n.data...), &zk.Stat{Version: n.version}, nil
}

func (c *fakeClient) GetW(path string) ([]byte, *zk.Stat, <-chan zk.Event, error) {
	b, st, err := c.Get(path)
	if err != nil {
		return nil, nil, nil, err
	}
	end, err := c.begin()
	if err != nil {
		return nil, nil, nil, err
	}
	defer end()
	ch := make(chan zk.Event, 1)
	if n := c.e.nodes[path]; n == nil || n.version != st.Version {
		ch <- zk.Event{Type: zk.EventNodeDataChanged, Path: path} // it changed between the two looks
	} else {
		c.e.watches = append(c.e.watches, fakeWatch{path, c, ch})
	}
	return b, st, ch, nil
}

func (c *fakeClient) Exists(path string) (bool, *zk.Stat, error) {
	end, err := c.begin()
	if err != nil {
		return false, nil, err
	}
	defer end()
	n := c.e.nodes[path]
	return n != nil, &zk.Stat{}, nil
}

func (c *fakeClient) ExistsW(path string) (bool, *zk.Stat, <-chan zk.Event, error) {
	end, err := c.begin()
	if err != nil {
		return false, nil, nil, err
	}
	defer end()
	ch := make(chan zk.Event, 1)
	c.e.watches = append(c.e.watches, fakeWatch{path, c, ch})
	return c.e.nodes[path] != nil, &zk.Stat{}, ch, nil
}

func (c *fakeClient) Children(path string) ([]string, *zk.Stat, error) {
	end, err := c.begin()
	if err != nil {
		return nil, nil, err
	}
	defer end()
	var out []string
	for p := range c.e.nodes {
		if rest, ok := strings.CutPrefix(p, path+"/"); ok && !strings.Contains(rest, "/") {
			out = append(out, rest)
		}
	}
	sort.Sort(sort.Reverse(sort.StringSlice(out))) // an order that nobody may rely on
	return out, &zk.Stat{}, nil
}

func (c *fakeClient) Sync(path string) (string, error) {
	end, err := c.begin()
	if err != nil {
		return "", err
	}
	end()
	return path, nil
}

func (c *fakeClient) Create(path string, data []byte, flags int32, _ []zk.ACL) (string, error) {
	end, err := c.begin()
	if err != nil {
		return "", err
	}
	defer end()
	parent := c.e.nodes[path[:max(strings.LastIndexByte(path, '/'), 1)]]
	if parent == nil {
		return "", zk.ErrNoNode
	}
	n := &fakeNode{data: data}
	if flags&zk.FlagSequence != 0 {
		path += fmt.Sprintf("%010d", parent.seq)
		parent.seq++
	}
	if flags&zk.FlagEphemeral != 0 {
		n.owner = c.id
	}
	if c.e.nodes[path] != nil {
		return "", zk.ErrNodeExists
	}
	c.e.nodes[path] = n
	return path, nil
}

func (c *fakeClient) Delete(path string, version int32) error {
	end, err := c.begin()
	if err != nil {
		return err
	}
	defer end()
	op := &zk.DeleteRequest{Path: path, Version: version}
	if err := c.e.wouldLocked(op); err != nil {
		return err
	}
	c.e.doLocked(op)
	return nil
}

func (c *fakeClient) Multi(ops ...any) ([]zk.MultiResponse, error) {
	size := 0
	for _, op := range ops {
		switch op := op.(type) {
		case *zk.CreateRequest:
			size += len(op.Path) + len(op.Data) + 64
		case *zk.SetDataRequest:
			size += len(op.Path) + len(op.Data) + 64
		}
	}
	if size > packet {
		return nil, zk.ErrConnectionClosed
	}
	apply, fail := true, error(nil)
	_, check := ops[0].(*zk.CheckVersionRequest)
	if proof := check && len(ops) == 1; !proof && c.fault != nil { // proofs come by the clock
		apply, fail = c.fault(ops)
	}
	if !apply {
		return nil, fail
	}
	end, err := c.begin()
	if err != nil {
		return nil, err
	}
	defer end()
	out := make([]zk.MultiResponse, len(ops))
	for i, op := range ops {
		if err := c.e.wouldLocked(op); err != nil {
			out[i].Error = err
			return out, err
		}
	}
	for i, op := range ops {
		out[i] = c.e.doLocked(op)
	}
	c.e.writes++
	if fail != nil {
		return nil, fail
	}
	return out, nil
}

// wouldLocked says whether an operation may be done; no two of a multi are on the same node.
func (e *ensemble) wouldLocked(op any) error {
	path, version, create := "", int32(-1), false
	switch op := op.(type) {
	case *zk.CheckVersionRequest:
		path, version = op.Path, op.Version
	case *zk.SetDataRequest:
		path, version = op.Path, op.Version
	case *zk.DeleteRequest:
		path, version = op.Path, op.Version
	case *zk.CreateRequest:
		path, create = op.Path, true
	}
	n := e.nodes[path]
	switch {
	case create && n != nil:
		return zk.ErrNodeExists
	case create:
		return nil
	case n == nil:
		return zk.ErrNoNode
	case version >= 0 && version != n.version:
		return zk.ErrBadVersion
	}
	return nil
}

func (e *ensemble) doLocked(op any) (r zk.MultiResponse) {
	switch op := op.(type) {
	case *zk.SetDataRequest:
		n := e.nodes[op.Path]
		n.data, n.version = append([]byte(nil), op.Data...), n.version+1
		r.Stat = &zk.Stat{Version: n.version}
		e.fireLocked(op.Path, zk.EventNodeDataChanged)
	case *zk.DeleteRequest:
		delete(e.nodes, op.Path)
		e.fireLocked(op.Path, zk.EventNodeDeleted)
	case *zk.CreateRequest:
		e.nodes[op.Path] = &fakeNode{data: append([]byte(nil), op.Data...)}
		r.String = op.Path
	}
	return r
}

func (c *fakeClient) Close() {
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	if !c.closed {
		c.closed = true
		c.e.endLocked(c)
	}
}

// below lists the children of a node of the store.
func (e *ensemble) below(node string) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []string
	for p := range e.nodes {
		if rest, ok := strings.CutPrefix(p, "/a/b/"+node+"/"); ok {
			out = append(out, rest)
		}
	}
	sort.Strings(out)
	return out
}
