package zookeeper

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"
)

// client is what is used of the library; tests have one in memory.
type client interface {
	Get(path string) ([]byte, *zk.Stat, error)
	GetW(path string) ([]byte, *zk.Stat, <-chan zk.Event, error)
	Exists(path string) (bool, *zk.Stat, error)
	ExistsW(path string) (bool, *zk.Stat, <-chan zk.Event, error)
	Children(path string) ([]string, *zk.Stat, error)
	Create(path string, data []byte, flags int32, acl []zk.ACL) (string, error)
	Delete(path string, version int32) error
	Multi(ops ...any) ([]zk.MultiResponse, error)
	Sync(path string) (string, error)
	Close()
}

// maxFrame bounds one answer. The largest we cause is a node of half a MiB or a list of a few thousand names.
const maxFrame = 8 << 20

// conn is the library's connection, with its end: after Close nothing of it runs.
type conn struct {
	*zk.Conn
	events <-chan zk.Event
	mu     struct {
		sync.Mutex
		open net.Conn
	}
}

// dial starts the library. It connects by itself, again and again, and tells s about it.
func dial(s *Store) (client, error) {
	if len(s.o.Servers) == 0 {
		return nil, errors.New("no servers are given")
	}
	c := &conn{}
	connect := func(network, addr string, timeout time.Duration) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(s.ctx, timeout)
		defer cancel()
		var d net.Dialer
		nc, err := d.DialContext(ctx, network, addr)
		if err != nil {
			s.failed(err)
			return nil, err
		}
		c.mu.Lock()
		c.mu.open = nc
		c.mu.Unlock()
		return &guarded{Conn: nc, most: s.o.Session, failed: s.failed}, nil
	}
	var err error
	c.Conn, c.events, err = zk.Connect(s.o.Servers, s.o.Session, zk.WithDialer(connect), zk.WithLogger(libraryLog{s.log}), zk.WithLogInfo(false),
		zk.WithMaxBufferSize(maxFrame), zk.WithMaxConnBufferSize(1<<20), zk.WithEventCallback(func(e zk.Event) {
			if e.Type == zk.EventSession {
				s.saw(e.State)
			}
		}))
	return c, err
}

// Close ends the session, so that the ensemble removes the candidacy now, and waits for the library.
func (c *conn) Close() {
	c.Conn.Close() // waits for the server's answer, a second at most
	c.mu.Lock()
	if c.mu.open != nil {
		_ = c.mu.open.Close() // a server that hangs must not keep the library waiting
	}
	c.mu.Unlock()
	for range c.events {
	}
}

// guarded holds a server's bytes to what the library can bear: it would slice beyond a frame of under 16
// bytes, allocate whatever length the first answer names, and wait for that one ten times as long as for
// any other.
type guarded struct {
	net.Conn
	most   time.Duration
	failed func(error)
	head   [4]byte
	have   int  // bytes of head
	left   int  // bytes of the frame that are to come
	second bool // the answer to the connect request is through
}

func (g *guarded) SetReadDeadline(t time.Time) error {
	// Zero is for ever: the library asks for it between the length of an answer and the answer.
	if limit := time.Now().Add(g.most); t.IsZero() || t.After(limit) {
		t = limit
	}
	return g.Conn.SetReadDeadline(t)
}

func (g *guarded) Read(b []byte) (int, error) {
	if g.left == 0 && len(b) > 4-g.have {
		b = b[:4-g.have]
	} else if g.left > 0 && len(b) > g.left {
		b = b[:g.left]
	}
	n, err := g.Conn.Read(b)
	if g.left > 0 {
		g.left -= n
		return n, err
	}
	g.have += copy(g.head[g.have:], b[:n])
	if g.have < 4 {
		return n, err
	}
	size := binary.BigEndian.Uint32(g.head[:])
	least, most := uint32(16), uint32(maxFrame)
	if !g.second {
		// Protocol version, timeout, session, password; its length is as the server likes.
		least, most = 20, 1024
	}
	if size < least || size > most {
		err = fmt.Errorf("%s does not speak ZooKeeper's protocol: an answer of %d bytes", g.RemoteAddr(), size)
		g.failed(err)
		return 0, err
	}
	g.have, g.left, g.second = 0, int(size), true
	return n, err
}

// libraryLog takes what the library prints, which is mostly about connections that it opens again.
type libraryLog struct{ log *slog.Logger }

func (l libraryLog) Printf(format string, args ...any) {
	l.log.Debug("zookeeper: " + fmt.Sprintf(format, args...))
}
