package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

// candidate is what is known of one in the line.
type candidate struct {
	peer    string // where its broker listens to other brokers, "" when it says nothing
	refused int    // times in a row
}

// introduction is the data of a candidacy.
func (s *Store) introduction() []byte {
	return []byte(strings.TrimSpace(fmt.Sprintf("%d %s", s.o.Identity.NodeID, s.o.Identity.Peer)))
}

// turnComes waits behind others. take says that all of them are dead; without it, the line is to be looked at again.
func (s *Store) turnComes(ctx context.Context, node string, ahead []string) (take bool, err error) {
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
	known := map[string]*candidate{}
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
		names, err := s.list(ctx)
		if err != nil {
			return false, err
		}
		i := slices.Index(names, node)
		if i <= 0 {
			return false, nil // the line has changed
		}
		for _, n := range names {
			if known[n] == nil {
				if known[n], err = s.meet(ctx, n); err != nil {
					return false, err
				}
			}
		}
		dead := 0
		for dead < i && (s.replaced(known, names[dead:]) || s.silent(ctx, known[names[dead]])) {
			dead++
		}
		if dead == i {
			s.log.Info("coordination store: whoever stood in line before does not answer any more, taking the lead", "candidates", names[:i])
			return true, nil
		}
	}
	return false, nil
}

// meet reads what a candidate says of itself.
func (s *Store) meet(ctx context.Context, name string) (*candidate, error) {
	b, err := ask(ctx, s, func() ([]byte, error) {
		b, _, err := s.cli.Get(s.path(nodeElect) + "/" + name)
		return b, err
	})
	if errors.Is(err, zk.ErrNoNode) {
		return nil, errAgain
	}
	if err != nil {
		return nil, err
	}
	_, peer, _ := strings.Cut(string(b), " ")
	return &candidate{peer: peer}, nil
}

// replaced says that another process stands further back under the address of the first one: it can only have it
// because the first one has ended. Names of one process begin alike.
func (s *Store) replaced(known map[string]*candidate, names []string) bool {
	of := func(name string) string { p, _, _ := strings.Cut(name, "."); return p }
	first := known[names[0]].peer
	return first != "" && slices.ContainsFunc(names[1:], func(n string) bool {
		return known[n].peer == first && of(n) != of(names[0])
	})
}

// silent says that the address of a candidate has refused connections for a while. A process that is frozen or cut off
// is not known to be gone; its session tells.
func (s *Store) silent(ctx context.Context, c *candidate) bool {
	if c.peer == "" {
		return false
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
	return c.refused >= refusals
}
