package coord_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/milena-mq/milena/internal/coord"
)

// TestHowAMemberBegins lists what the others may say and what follows from it, for member 1 of three.
func TestHowAMemberBegins(t *testing.T) {
	three := []coord.Peer{{Node: 1, Addr: "h:1"}, {Node: 2, Addr: "h:2"}, {Node: 3, Addr: "h:3"}}
	list := coord.FoundersText(three)
	fresh := &coord.BootAnswer{State: "fresh", Founders: list}
	founding := &coord.BootAnswer{State: "founding", Founders: list}
	busy := &coord.BootAnswer{State: "busy", Founders: list}
	member := func(ms ...coord.BootMember) *coord.BootAnswer {
		return &coord.BootAnswer{State: "member", Founders: "whatever", Members: ms}
	}
	two := coord.BootMember{ID: 2, Name: "milena-2", Peer: "h:2", Ran: true}
	for _, c := range []struct {
		name       string
		two, three *coord.BootAnswer
		want       string // found, join, wait, or a part of the error
		err        error
	}{
		{"all are new", fresh, fresh, "found", nil},
		{"the others were quicker", founding, founding, "found", nil},
		{"one is not up", fresh, nil, "wait 3@h:3", nil},
		{"nobody is up", nil, nil, "wait 2@h:2, 3@h:3", nil},
		{"one has a log and no majority", busy, fresh, "wait 2@h:2 (which waits", nil},
		{"the store knows this member, which has never run", member(coord.BootMember{ID: 1, Name: "milena-1", Peer: "h:1"}, two), nil, "join", nil},
		{"it was added without a name", nil, member(coord.BootMember{ID: 9, Peer: "h:1"}, two), "join", nil},
		{"the store knows that this member has run", fresh, member(coord.BootMember{ID: 1, Name: "milena-1", Peer: "h:1", Ran: true}, two), "milena cluster quorum remove 1, then milena cluster quorum add 1 h:1", coord.ErrWiped},
		{"the store does not know this member", member(two), fresh, "milena cluster quorum add 1 h:1", coord.ErrNoMember},
		{"the store knows this broker elsewhere", member(coord.BootMember{ID: 1, Name: "milena-1", Peer: "h:9", Ran: true}, two), nil, "h:9", coord.ErrMember},
		{"one has a log, no majority and began alone", &coord.BootAnswer{State: "busy"}, nil, "wait 2@h:2 (which waits for a majority), 3@h:3", nil},
		{"another list", &coord.BootAnswer{State: "fresh", Founders: "1@h:1"}, fresh, "same list", nil},
		{"no list", &coord.BootAnswer{State: "fresh"}, fresh, "none", nil},
		{"a state from the future", &coord.BootAnswer{State: "sleeping", Founders: list}, fresh, "wait", nil},
	} {
		answers := map[string]*coord.BootAnswer{}
		if c.two != nil {
			answers["h:2"] = c.two
		}
		if c.three != nil {
			answers["h:3"] = c.three
		}
		p, wait, err := coord.Decide(three[0], three, answers)
		got := ""
		switch {
		case err != nil:
			got = err.Error()
		case p == nil:
			got = "wait " + wait
		case p.Found():
			got = "found"
		default:
			got = "join"
		}
		if !strings.Contains(got, c.want) || c.err != nil && !errors.Is(err, c.err) || strings.Contains(got, "\n") {
			t.Errorf("%s: %q, want %q and %v", c.name, got, c.want, c.err)
		}
		if p != nil && p.Members()["milena-1"] != "h:1" {
			t.Errorf("%s: own address missing in %v", c.name, p.Members())
		}
	}
}

// The port answers before there is a store behind it, or members that start together wait for each other.
func TestThePortAnswersBeforeTheStore(t *testing.T) {
	t.Parallel()
	nodes, peers := prepare(t, 2)
	peers = append(peers, coord.Peer{Node: 3, Addr: "127.0.0.1:1"})
	ctx, cancel := context.WithCancel(bound(t))
	done := make(chan error, 1)
	go func() { done <- nodes[0].open(peers, func(o *coord.EtcdOptions) { o.Start = ctx }) }()
	get := func(path string) (int, string) {
		t.Helper()
		resp, err := http.Get("http://" + nodes[0].addr + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	if code, body := get("/milena/boot"); code != http.StatusOK || !strings.Contains(body, `"fresh"`) {
		t.Errorf("boot: %d %s", code, body)
	}
	for _, p := range []string{"/members", "/raft/stream/message/1", "/version"} {
		if code, _ := get(p); code != http.StatusServiceUnavailable {
			t.Errorf("%s: %d", p, code)
		}
	}
	cancel()
	if err := <-done; err == nil {
		t.Error("a member began without the others")
	}
}
