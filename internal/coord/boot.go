package coord

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/storage/wal"

	"github.com/milena-mq/milena/internal/vfs"
)

// How a member begins. One that has a log goes on with it. One that has none must not simply begin: a
// member that lost its disk has forgotten whom it voted for and what it acknowledged, and if it came back
// as if nothing had happened, an append that it had helped to commit could be lost with it. So it asks the
// others first. Where all of them are as empty as itself, the store begins; where a quorum of others says
// that this member has never run, it joins them; where they say that it has, it is refused.

// memberState is how far a member is with its store.
type memberState string

const (
	// stateFresh: no log, asking others.
	stateFresh memberState = "fresh"
	// stateFounding: it was agreed that the store begins, and no quorum has been seen since. Told by a file,
	// because a founder that is restarted has a log like any other.
	stateFounding memberState = "founding"
	// stateBusy: it has a log and cannot speak for the quorum now.
	stateBusy memberState = "busy"
	// stateMember: it has a log and has just heard from the quorum.
	stateMember memberState = "member"
)

// bootAnswer is what a member says to one that asks how to begin.
type bootAnswer struct {
	State    memberState  `json:"state"`
	Founders string       `json:"founders,omitempty"` // its own Cluster, as text
	Members  []bootMember `json:"members,omitempty"`  // with stateMember
}

type bootMember struct {
	ID   uint64 `json:"id,string"`
	Name string `json:"name"`
	Peer string `json:"peer"` // host:port
	Ran  bool   `json:"ran"`  // it has taken part: it must not come back without its log
}

const (
	bootPath     = "/milena/boot"
	bootTimeout  = time.Second           // of one question
	bootAgain    = 20 * time.Millisecond // between two rounds of questions, at first
	bootAgainMax = 250 * time.Millisecond
	bootSayFirst = 2 * time.Second // of waiting, before it is said
	bootSayAgain = 10 * time.Second
	maxBootBytes = 1 << 16
	foundingFile = "founding"
)

// plan is how a member begins.
type plan struct {
	hasLog  bool
	found   bool              // begin the store; otherwise join the one that is there
	members map[string]string // name: peer address
}

// decide looks at what the others said, by address; nil is no answer. It returns a plan, or why to wait,
// or why this member may not begin.
func decide(own Peer, cluster []Peer, answers map[string]*bootAnswer) (p *plan, wait string, err error) {
	founders := foundersText(cluster)
	var missing []string
	for _, c := range cluster {
		if c.Node == own.Node {
			continue
		}
		name := fmt.Sprintf("%d@%s", c.Node, c.Addr)
		a := answers[c.Addr]
		switch {
		case a == nil:
			missing = append(missing, name)
			continue
		case a.State == stateMember:
			return joining(own, c.Addr, a.Members)
		case a.State != stateFresh && a.State != stateFounding:
			missing = append(missing, name+" (which waits for a majority)")
		case a.Founders != founders:
			// Only of those that begin: one that has run before may have begun with fewer.
			return nil, "", fmt.Errorf("broker %s was started with cluster = %s, this one with %s: all first brokers need the same list", name, orNone(a.Founders), founders)
		}
	}
	if missing != nil {
		return nil, strings.Join(missing, ", "), nil
	}
	p = &plan{found: true, members: make(map[string]string, len(cluster))}
	for _, c := range cluster {
		p.members[memberName(c.Node)] = c.Addr
	}
	return p, "", nil
}

// joining is the plan of a member without a log where the store exists.
func joining(own Peer, from string, members []bootMember) (*plan, string, error) {
	p := &plan{members: make(map[string]string, len(members))}
	known := false
	for _, m := range members {
		if m.Peer == own.Addr {
			if m.Ran {
				return nil, "", fmt.Errorf("%w: the brokers that hold the cluster's metadata know broker %d at %s, but its part of it is not on this disk; run milena cluster quorum remove %d, then milena cluster quorum add %d %s, and start this broker again", ErrWiped, own.Node, own.Addr, own.Node, own.Node, own.Addr)
			}
			known = true
			p.members[memberName(own.Node)] = m.Peer
			continue
		}
		if m.Name == memberName(own.Node) && m.Ran {
			return nil, "", fmt.Errorf("%w: broker %d is a member at %s already, not at %s", ErrMember, own.Node, m.Peer, own.Addr)
		}
		p.members["m"+strconv.FormatUint(m.ID, 16)] = m.Peer // only addresses are compared
	}
	if !known {
		return nil, "", fmt.Errorf("%w: the cluster at %s exists and does not have broker %d at %s in its quorum; start it with join = %s, or first run milena cluster quorum add %d %s", ErrNoMember, from, own.Node, own.Addr, from, own.Node, own.Addr)
	}
	return p, "", nil
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// foundersText is a list of brokers as the configuration spells it, in one order.
func foundersText(cluster []Peer) string {
	c := slices.SortedFunc(slices.Values(cluster), func(a, b Peer) int { return int(a.Node) - int(b.Node) })
	parts := make([]string, len(c))
	for i, p := range c {
		parts[i] = fmt.Sprintf("%d@%s", p.Node, p.Addr)
	}
	return strings.Join(parts, ",")
}

// memberName is the name of a broker's member, and memberNode the broker of a name; -1 for none.
func memberName(node int32) string { return "milena-" + strconv.Itoa(int(node)) }

func memberNode(name string) int32 {
	s, ok := strings.CutPrefix(name, "milena-")
	n, err := strconv.ParseInt(s, 10, 32)
	if !ok || err != nil || n < 0 {
		return -1
	}
	return int32(n)
}

func (o *EtcdOptions) peerURL(addr string) url.URL {
	if o.TLS != nil {
		return url.URL{Scheme: "https", Host: addr}
	}
	return url.URL{Scheme: "http", Host: addr}
}

// urlAddr is host:port of a peer URL.
func urlAddr(urls []string) string {
	if len(urls) == 0 {
		return ""
	}
	u, err := url.Parse(urls[0])
	if err != nil {
		return ""
	}
	return u.Host
}

// begin finds out how this member begins, asking others for as long as it takes.
func (e *Etcd) begin(o *EtcdOptions) (*plan, error) {
	if wal.Exist(filepath.Join(o.Dir, "member", "wal")) {
		return &plan{hasLog: true, found: true, members: map[string]string{memberName(o.Identity.NodeID): e.ownAddr(o)}}, nil
	}
	if o.Known != "" && len(o.Cluster) < 2 {
		return nil, lostError(o)
	}
	if len(o.Cluster) < 2 {
		return &plan{found: true, members: map[string]string{memberName(o.Identity.NodeID): e.ownAddr(o)}}, nil
	}
	own := Peer{Node: o.Identity.NodeID, Addr: o.Identity.Peer}
	if !slices.Contains(o.Cluster, own) {
		return nil, fmt.Errorf("cluster = %s does not name broker %d at %s", foundersText(o.Cluster), own.Node, own.Addr)
	}
	ctx := o.Start
	if ctx == nil {
		ctx = e.ctx
	}
	hc := bootClient(o)
	defer hc.CloseIdleConnections()
	began, said, pause := time.Now(), time.Time{}, bootAgain
	for {
		p, wait, err := decide(own, o.Cluster, ask(ctx, hc, o))
		if err != nil {
			return nil, err
		}
		if p != nil {
			switch {
			case p.found && o.Known != "":
				err = lostError(o)
			case p.found:
				err = writeFounding(o)
			}
			return p, err
		}
		if now := time.Now(); now.Sub(began) > bootSayFirst && now.Sub(said) > bootSayAgain {
			said = now
			e.log.log.Warn("a cluster begins when all its first brokers are up: waiting", "for", wait)
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, fmt.Errorf("waiting for %s: %w", wait, ctx.Err())
		}
		pause = min(pause*3/2, bootAgainMax)
	}
}

// lostError refuses to begin a cluster anew under the id of one that had topics.
func lostError(o *EtcdOptions) error {
	return fmt.Errorf("%w: the data directories belong to cluster %s, but its metadata is not in %s: restore that directory, or move the data directories away to begin a new cluster", ErrWiped, o.Known, o.Dir)
}

// ownAddr is the address in this member's own URL. A broker that is alone has a name instead: nobody dials it.
func (e *Etcd) ownAddr(o *EtcdOptions) string {
	if o.Identity.Peer == "" {
		return "localhost:2380"
	}
	return o.Identity.Peer
}

func bootClient(o *EtcdOptions) *http.Client {
	t := &http.Transport{DialContext: dialer(o.Local).DialContext, DisableKeepAlives: true}
	if o.TLS != nil {
		t.TLSClientConfig = o.TLS.Client.Clone()
	}
	return &http.Client{Transport: t, Timeout: bootTimeout}
}

// ask puts the question to all others at once.
func ask(ctx context.Context, hc *http.Client, o *EtcdOptions) map[string]*bootAnswer {
	var mu sync.Mutex
	var wg sync.WaitGroup
	out := make(map[string]*bootAnswer)
	for _, c := range o.Cluster {
		if c.Node == o.Identity.NodeID {
			continue
		}
		wg.Go(func() {
			u := o.peerURL(c.Addr)
			u.Path = bootPath
			a, err := askOne(ctx, hc, u.String())
			if err != nil {
				return // no answer
			}
			mu.Lock()
			defer mu.Unlock()
			out[c.Addr] = a
		})
	}
	wg.Wait()
	return out
}

func askOne(ctx context.Context, hc *http.Client, u string) (*bootAnswer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, err
	}
	resp, err := hc.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxBootBytes))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(resp.Status)
	}
	var a bootAnswer
	return &a, json.Unmarshal(b, &a)
}

// writeFounding leaves the mark of a store that has begun and has not seen a quorum yet.
func writeFounding(o *EtcdOptions) error {
	f, err := o.FS.OpenFile(filepath.Join(o.Dir, foundingFile), vfs.Create|vfs.ReadWrite, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close(), o.FS.SyncDir(o.Dir))
}

func (e *Etcd) isFounding(o *EtcdOptions) bool {
	_, err := o.FS.Stat(filepath.Join(o.Dir, foundingFile))
	return err == nil
}

// founded takes the mark away once a quorum has answered: from then on this store exists.
func (e *Etcd) founded(o *EtcdOptions) {
	defer e.wg.Done()
	for {
		if err := e.heard(e.ctx); err == nil {
			break
		}
		t := time.NewTimer(bootAgain)
		select {
		case <-t.C:
		case <-e.ctx.Done():
			t.Stop()
			return
		}
	}
	e.door.set(stateMember)
	if err := errors.Join(o.FS.Remove(filepath.Join(o.Dir, foundingFile)), o.FS.SyncDir(o.Dir)); err != nil {
		e.log.log.Warn("the mark of a store that begins cannot be removed", "error", err)
	}
}

// urlsMap is members as etcd wants them.
func (p *plan) urlsMap(o *EtcdOptions) types.URLsMap {
	m := make(types.URLsMap, len(p.members))
	for name, addr := range p.members {
		m[name] = types.URLs{o.peerURL(addr)}
	}
	return m
}
