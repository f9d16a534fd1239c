package admin

import (
	"context"
	"fmt"
	"net"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Health is the state of a cluster in one colour.
type Health string

// The colours. Red: something cannot be written or read now. Yellow: all works, with less safety than was
// asked for. Green: neither.
const (
	Green  Health = "green"
	Yellow Health = "yellow"
	Red    Health = "red"
)

// Status is how a cluster is.
type Status struct {
	ID         string       `json:"id"`
	Health     Health       `json:"health"`
	Reasons    []string     `json:"reasons"`    // why it is not green, the worst first; empty when it is
	Controller int32        `json:"controller"` // -1: none known
	Brokers    []BrokerInfo `json:"brokers"`    // by id, those that are down included
	Quorum     *Quorum      `json:"quorum,omitempty"`

	Topics          int `json:"topics"`
	Partitions      int `json:"partitions"`
	Offline         int `json:"partitions_offline"`          // without leader
	UnderReplicated int `json:"partitions_under_replicated"` // with a replica that is not in sync
	UnderMinISR     int `json:"partitions_under_min_isr"`    // that refuse acks=all
	AtMinISR        int `json:"partitions_at_min_isr"`       // under-replicated, and would after one more loss
	NotPreferred    int `json:"partitions_not_led_by_first_replica"`
	Moving          int `json:"partitions_moving"` // with a reassignment under way

	Bad []PartitionState `json:"bad_partitions"` // offline, under min ISR or under-replicated
}

// BrokerInfo is one broker of a Status.
type BrokerInfo struct {
	Broker
	Fenced  bool  `json:"fenced"`  // registered, but not taking part: it is down, or catches up before it serves
	InSync  int   `json:"in_sync"` // replicas it holds that are in sync
	Gaining int   `json:"gaining"` // replicas that a reassignment gives it
	Losing  int   `json:"losing"`  // replicas that a reassignment takes from it
	Total   int64 `json:"total_bytes"`
	Free    int64 `json:"free_bytes"` // of the volumes its directories are on; -1: not known
}

// State is one word for people.
func (b *BrokerInfo) State() string {
	switch {
	case b.Fenced:
		return "down"
	case b.Losing > 0 && b.Losing == b.Partitions:
		return "leaving"
	}
	return "up"
}

// extraTime bounds what is asked besides the metadata: a broker that hangs must not hide the rest.
const extraTime = 4 * time.Second

// Status describes the cluster as a whole. Sizes, the quorum and min.insync.replicas are extra: where they
// cannot be had, the rest is described without them.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	if err := c.brokers(ctx, &s); err != nil {
		return s, err
	}
	ps, err := c.Partitions(ctx)
	if err != nil {
		return s, err
	}
	extra, cancel := context.WithTimeout(ctx, extraTime)
	defer cancel()
	_ = c.addMinISR(extra, ps)
	moving, _ := c.Reassignments(extra)
	if q, err := c.Quorum(extra); err == nil {
		s.Quorum = &q
	}
	c.addDirs(extra, &s)
	s.count(ps, moving)
	s.judge(ps)
	return s, nil
}

// brokers asks who is there, brokers that are down included.
func (c *Client) brokers(ctx context.Context, s *Status) error {
	const what = "describe cluster"
	req := kmsg.NewPtrDescribeClusterRequest()
	req.IncludeFencedBrokers = true
	resp, err := request[*kmsg.DescribeClusterResponse](ctx, c, what, req)
	if err != nil {
		return err
	}
	if err := codeError(what, resp.ErrorCode, resp.ErrorMessage); err != nil {
		return err
	}
	s.ID, s.Controller, s.Brokers = resp.ClusterID, resp.ControllerID, []BrokerInfo{}
	for _, b := range resp.Brokers {
		x := BrokerInfo{Broker: Broker{ID: b.NodeID, Host: b.Host, Port: b.Port, Controller: b.NodeID == resp.ControllerID, Size: -1, Dirs: []Dir{}}, Fenced: b.IsFenced, Total: -1, Free: -1}
		if b.Rack != nil {
			x.Rack = *b.Rack
		}
		s.Brokers = append(s.Brokers, x)
	}
	sort.Slice(s.Brokers, func(i, j int) bool { return s.Brokers[i].ID < s.Brokers[j].ID })
	return nil
}

func (s *Status) broker(id int32) *BrokerInfo {
	for i := range s.Brokers {
		if s.Brokers[i].ID == id {
			return &s.Brokers[i]
		}
	}
	return nil
}

// addDirs asks every broker that is up for its directories.
func (c *Client) addDirs(ctx context.Context, s *Status) {
	adm, err := c.connect(ctx)
	if err != nil {
		return
	}
	dirs, _ := adm.DescribeAllLogDirs(ctx, nil) // what answered counts
	for i := range s.Brokers {
		b := &s.Brokers[i]
		for _, d := range dirs[b.ID].Sorted() {
			b.addDir(d)
		}
	}
}

func (b *BrokerInfo) addDir(d kadm.DescribedLogDir) {
	y := Dir{Path: d.Dir, Size: d.Size()}
	if d.Err != nil {
		y.Error = errorName(d.Err)
	} else {
		b.Size = max(b.Size, 0) + y.Size
	}
	if d.TotalBytes >= 0 && d.Err == nil {
		b.Total, b.Free = max(b.Total, 0)+d.TotalBytes, max(b.Free, 0)+d.UsableBytes
	}
	b.Dirs = append(b.Dirs, y)
}

func (s *Status) count(ps []PartitionState, moving []Reassignment) {
	s.Bad = []PartitionState{}
	for i := range ps {
		p := &ps[i]
		if i == 0 || p.Topic != ps[i-1].Topic {
			s.Topics++
		}
		s.Partitions++
		tally(&s.Offline, p.Leaderless())
		tally(&s.UnderReplicated, p.UnderReplicated())
		tally(&s.UnderMinISR, p.UnderMinISR())
		tally(&s.AtMinISR, p.AtMinISR() && p.UnderReplicated())
		tally(&s.NotPreferred, !p.Leaderless() && !p.Preferred())
		if p.Leaderless() || p.UnderMinISR() || p.UnderReplicated() {
			s.Bad = append(s.Bad, *p)
		}
		for _, r := range p.Replicas {
			if b := s.broker(r); b != nil {
				b.Partitions++
			}
		}
		for _, r := range p.ISR {
			if b := s.broker(r); b != nil {
				b.InSync++
			}
		}
		if b := s.broker(p.Leader); b != nil {
			b.Leads++
		}
	}
	s.Moving = len(moving)
	for _, r := range moving {
		for _, id := range r.Adding {
			if b := s.broker(id); b != nil {
				b.Gaining++
			}
		}
		for _, id := range r.Removing {
			if b := s.broker(id); b != nil {
				b.Losing++
			}
		}
	}
}

func tally(n *int, is bool) {
	if is {
		*n++
	}
}

// judge finds the colour and says why.
func (s *Status) judge(ps []PartitionState) {
	s.Health, s.Reasons = Green, []string{}
	say := func(h Health, format string, args ...any) {
		if h == Red || s.Health == Green {
			s.Health = h
		}
		s.Reasons = append(s.Reasons, fmt.Sprintf(format, args...))
	}
	if s.Controller < 0 {
		say(Red, "no broker is the controller: topics and leaders cannot change")
	}
	if s.Offline > 0 {
		say(Red, "%s no leader, so nothing can be written or read there%s", has(s.Offline), s.waitingFor(ps))
	}
	if n := s.UnderMinISR; n > 0 {
		say(Red, "%s fewer replicas in sync than min.insync.replicas, so acks=all is refused there", has(n))
	}
	for i := range s.Brokers {
		b := &s.Brokers[i]
		if b.Fenced {
			say(Yellow, "broker %d at %s is down", b.ID, net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port))))
		}
		for _, d := range b.Dirs {
			if d.Error != "" {
				say(Yellow, "broker %d: directory %s is offline (%s)", b.ID, d.Path, d.Error)
			}
		}
	}
	if n := s.UnderReplicated; n > 0 {
		say(Yellow, "%s replicas that are not in sync", has(n))
	}
	if s.Quorum != nil && !s.Quorum.Elsewhere() {
		for _, v := range s.Quorum.Voters {
			if s.broker(v.ID) == nil && len(s.Brokers) > 0 {
				say(Yellow, "broker %d, a member of the metadata quorum, has not registered", v.ID)
			} else if s.Quorum.behind(v) {
				say(Yellow, "member %d of the metadata quorum does not keep up: %s", v.ID, s.Quorum.Tolerates())
			}
		}
	}
}

func has(n int) string {
	if n == 1 {
		return "1 partition has"
	}
	return strconv.Itoa(n) + " partitions have"
}

// waitingFor names the brokers whose return gives partitions without leader a leader again: those that are
// known to have all that was acknowledged.
func (s *Status) waitingFor(ps []PartitionState) string {
	want := map[int32]bool{}
	for i := range ps {
		if p := &ps[i]; p.Leaderless() {
			for _, list := range [][]int32{p.ISR, p.ELR, p.LastELR} {
				for _, id := range list {
					want[id] = true
				}
			}
		}
	}
	if len(want) == 0 {
		return ""
	}
	var ids []string
	for id := range want {
		ids = append(ids, strconv.Itoa(int(id)))
	}
	sort.Strings(ids)
	return ", until broker " + strings.Join(ids, " or ") + " is back"
}

// FreeID is the smallest number, from 1, that no registered broker has.
func (s *Status) FreeID() int32 {
	for id := int32(1); ; id++ {
		if s.broker(id) == nil {
			return id
		}
	}
}

// AwaitBroker returns when the broker is registered and takes part, or with ctx, or with the reason why it
// is known not to come. It looks twice a second.
func (c *Client) AwaitBroker(ctx context.Context, id int32) (BrokerInfo, error) {
	for {
		var s Status
		err := c.brokers(ctx, &s)
		if b := s.broker(id); err == nil && b != nil && !b.Fenced {
			return *b, nil
		}
		if !pause(ctx, 500*time.Millisecond) {
			switch b := s.broker(id); {
			case err != nil && ctx.Err() == nil:
				return BrokerInfo{}, err
			case b != nil:
				return *b, fmt.Errorf("broker %d is registered, but does not take part yet", id)
			}
			return BrokerInfo{}, fmt.Errorf("broker %d has not registered", id)
		}
	}
}

// pause waits, and says false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// AwaitGone returns when the broker is down or not registered, or with ctx.
func (c *Client) AwaitGone(ctx context.Context, id int32) error {
	for {
		var s Status
		err := c.brokers(ctx, &s)
		b := s.broker(id)
		if err == nil && (b == nil || b.Fenced) {
			return nil
		}
		if !pause(ctx, 500*time.Millisecond) {
			if err != nil && b == nil {
				return err
			}
			return fmt.Errorf("broker %d still runs", id)
		}
	}
}

// BrokersUp counts the brokers that take part.
func (c *Client) BrokersUp(ctx context.Context) (int, error) {
	var s Status
	err := c.brokers(ctx, &s)
	n := 0
	for i := range s.Brokers {
		if !s.Brokers[i].Fenced {
			n++
		}
	}
	return n, err
}

// ControllerID is the broker that is the controller, -1 when none is known.
func (c *Client) ControllerID(ctx context.Context) (int32, error) {
	s := Status{Controller: -1}
	err := c.brokers(ctx, &s)
	return s.Controller, err
}
