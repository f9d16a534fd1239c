package coord

import (
	"context"
	"errors"
)

// Peer is a broker that takes part in the embedded store.
type Peer struct {
	Node int32
	Addr string // advertised peer address, host:port
}

// Member is a member of the quorum as it is now.
type Member struct {
	ID      uint64 // of the store's own making; a broker that was removed and added has a new one
	Node    int32  // broker id; -1 while it has never started
	Peer    string // host:port
	Learner bool   // receives everything, has no vote yet
	Leader  bool
	Term    int64  // of the store's leader election, as the member knows it
	Applied int64  // index of the last log entry it has applied
	Lag     int64  // entries behind the leader; 0 for the leader itself
	Err     string // why Term, Applied and Lag are not known; "" when they are
}

// Quorum is the members of a store that lives in the brokers.
type Quorum interface {
	// Members asks every member how it is; one that does not answer has Err set.
	Members(ctx context.Context) ([]Member, error)
	// Remove takes a member out. Refused with ErrQuorum where the rest could not go on.
	Remove(ctx context.Context, node int32) error
	// Add makes a broker a member without a vote; the leader gives it the vote once it has started and
	// caught up. The broker may start only after Add has returned. Adding what is there changes nothing.
	Add(ctx context.Context, node int32, peer string) error
}

// The errors of a Quorum.
var (
	ErrQuorum    = errors.New("coordination store: too few members are up for this change")
	ErrNoMember  = errors.New("coordination store: no such member")
	ErrMember    = errors.New("coordination store: another member has this broker id or address")
	ErrNoVotesIn = errors.New("coordination store: a new member is still catching up")
)
