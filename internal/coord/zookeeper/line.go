package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-zookeeper/zk"
)

// The ensemble keeps a candidacy for a whole session, four seconds at least by default, after its process was
// killed. Whoever stands behind it need not wait that long: a killed process leaves a port that refuses
// connections. The fence makes taking over early as safe as taking over late.
const (
	knockEvery = 100 * time.Millisecond
	knockLimit = 200 * time.Millisecond
	refusals   = 3 // one after the other: less could be a process that is just being started
)

// candidate is what is known of one who stands before us.
type candidate struct {
	node    int32
	peer    string // where its broker listens to other brokers, "" when it says nothing
	known   bool
	refused int
}

// introduction is the data of a candidacy.
func (s *Store) introduction() []byte {
	return []byte(strings.TrimSpace(fmt.Sprintf("%d %s", s.o.Identity.NodeID, s.o.Identity.Peer)))
}

// turnComes waits behind others. take says that all of them are dead; without it, the line is to be looked at again.
func (s *Store) turnComes(ctx context.Context, ahead []string) (take bool, err error) {
	type gone struct {
		there bool
		ev    <-chan zk.Event
	}
	g, err := ask(ctx, s, func() (gone, error) {
		there, _, ev, err := s.cli.ExistsW(s.path(nodeElect) + "/" + ahead[len(ahead)-1])
		return gone{there, ev}, err
	})
	if err != nil || !g.there {
		return false, err
	}
	others := make([]candidate, len(ahead))
	until := time.Now().Add(s.o.tune.look)
	tick := time.NewTicker(knockEvery)
	defer tick.Stop()
	for time.Now().Before(until) {
		select {
		case <-g.ev:
			return false, nil
		case <-tick.C:
		case <-ctx.Done():
			return false, ctx.Err()
		case <-s.ctx.Done():
			return false, s.ctx.Err()
		}
		dead := 0
		for i := range others {
			ok, err := s.dead(ctx, ahead[i], &others[i])
			if err != nil {
				return false, err
			}
			if !ok {
				break // one that lives is enough to wait for
			}
			dead++
		}
		if dead == len(others) {
			s.log.Info("coordination store: whoever stood in line before does not answer any more, taking the lead", "candidates", ahead)
			return true, nil
		}
	}
	return false, nil
}

// dead says that the process behind a candidacy is gone: an earlier one of this very broker, or one whose address
// refuses connections. A process that is frozen or cut off is not known to be gone; its session tells.
func (s *Store) dead(ctx context.Context, name string, c *candidate) (bool, error) {
	if !c.known {
		b, err := ask(ctx, s, func() ([]byte, error) {
			b, _, err := s.cli.Get(s.path(nodeElect) + "/" + name)
			return b, err
		})
		if errors.Is(err, zk.ErrNoNode) {
			return false, errAgain
		}
		if err != nil {
			return false, err
		}
		id, peer, _ := strings.Cut(string(b), " ")
		n, err := strconv.ParseInt(id, 10, 32)
		if err != nil {
			n = -1
		}
		*c = candidate{node: int32(n), peer: peer, known: true}
	}
	if c.node == s.o.Identity.NodeID && !strings.HasPrefix(name, s.nonce) {
		return true, nil
	}
	if c.peer == "" {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, knockLimit)
	defer cancel()
	conn, err := s.o.Dial(ctx, "tcp", c.peer)
	switch {
	case err == nil:
		_ = conn.Close()
		c.refused = 0
	case errors.Is(err, syscall.ECONNREFUSED):
		c.refused++
	default:
		c.refused = 0
	}
	return c.refused >= refusals, nil
}
