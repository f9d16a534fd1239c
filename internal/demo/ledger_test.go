package demo

import (
	"fmt"
	"testing"
	"time"
)

// at is a moment of a test's own clock, in ms.
func at(ms int) time.Time { return time.UnixMilli(int64(ms)) }

// scribe writes and reads by a ledger.
type scribe struct {
	t *testing.T
	l *ledger
}

func (s scribe) send(ms int) int64 {
	n, p := s.l.sending(fmt.Append(nil, "line ", len(s.l.mu.sent)), at(ms))
	if want := int32(n % int64(len(s.l.mu.lanes))); p != want {
		s.t.Errorf("record %d goes to partition %d, want %d", n, p, want)
	}
	return n
}

func (s scribe) read(n int64, offset int64, ms int) {
	s.l.delivered(n, int32(n%int64(len(s.l.mu.lanes))), offset, fmt.Append(nil, "line ", n), at(ms))
}

func (s scribe) check(ms int, want string) {
	s.t.Helper()
	a := s.l.accounts(at(ms))
	got := fmt.Sprintf("sent %d acked %d read %d lost %d dup %d again %d wrong %d failed %d waiting %d owed %d lag %v writes %d reads %d", a.sent, a.acked, a.read, a.lost, a.dup, a.again, a.wrong, a.failed, a.inFlight, a.owed, a.lag, a.writes.Milliseconds(), a.reads.Milliseconds())
	if got != want {
		s.t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestTheLedgerFindsWhatIsLostAndWhatIsThereTwice(t *testing.T) {
	s := scribe{t, newLedger(1)}
	for i := range 6 {
		s.send(i)
	}
	for i := range int64(5) {
		s.l.acknowledged(i, 10+i, 1, at(10))
	}
	s.check(10, "sent 6 acked 5 read 0 lost 0 dup 0 again 0 wrong 0 failed 0 waiting 1 owed 5 lag [15] writes 10 reads 0")
	s.read(0, 10, 20)
	s.read(2, 12, 20) // 1 is passed over: lost as soon as that is seen
	s.check(20, "sent 6 acked 5 read 2 lost 1 dup 0 again 0 wrong 0 failed 0 waiting 1 owed 3 lag [2] writes 10 reads 10")
	s.read(2, 12, 21) // a group may deliver again
	s.read(2, 13, 21) // but not the same line in two places
	s.read(5, 20, 22) // not acknowledged yet, but there
	s.l.refused(5, at(23))
	s.l.delivered(99, 0, 21, nil, at(23))             // never sent
	s.l.delivered(3, 0, 13, []byte("x"), at(23))      // other bytes
	s.l.delivered(-1, 0, 13, []byte("x"), at(23))     // no number
	s.l.delivered(0, 7, 13, []byte("line 0"), at(23)) // no such partition
	s.check(23, "sent 6 acked 5 read 3 lost 3 dup 1 again 1 wrong 4 failed 1 waiting 0 owed 3 lag [0] writes 13 reads 10")
	if a := s.l.close(at(30)); a.lost != 3 {
		t.Errorf("%d lost at the end, want 3", a.lost)
	}
}

// An acknowledgement may reach the writer after the reader has the line.
func TestReadBeforeAcknowledgedIsOneRecord(t *testing.T) {
	s := scribe{t, newLedger(1)}
	s.send(0)
	s.send(0)
	s.read(0, 0, 1)
	s.l.acknowledged(0, 0, 1, at(2))
	s.check(2, "sent 2 acked 1 read 1 lost 0 dup 0 again 0 wrong 0 failed 0 waiting 1 owed 0 lag [0] writes 2 reads 0")
	s.read(1, 1, 3)
	s.l.acknowledged(1, 5, 1, at(4)) // promised somewhere else than it is
	s.check(4, "sent 2 acked 2 read 2 lost 0 dup 0 again 0 wrong 1 failed 0 waiting 0 owed 0 lag [4] writes 2 reads 0")
}

// A line acknowledged in one place and met in another first is there twice if both are read, lost and there
// once too often if not.
func TestAcknowledgedHereAndReadThere(t *testing.T) {
	s := scribe{t, newLedger(1)}
	s.send(0)
	s.l.acknowledged(0, 7, 1, at(1))
	s.read(0, 3, 2)
	s.check(2, "sent 1 acked 1 read 0 lost 0 dup 1 again 0 wrong 0 failed 0 waiting 0 owed 1 lag [4] writes 1 reads 1")
	s.read(0, 7, 3)
	s.check(3, "sent 1 acked 1 read 1 lost 0 dup 1 again 0 wrong 0 failed 0 waiting 0 owed 0 lag [0] writes 1 reads 1")
}

// A silence counts only while there is something to be answered or read, and by partition.
func TestSilencesAreThoseOfWhoWaits(t *testing.T) {
	s := scribe{t, newLedger(2)}
	a, b := s.send(0), s.send(0)
	s.l.acknowledged(a, 0, 1, at(5))
	s.l.acknowledged(b, 0, 1, at(40))
	s.read(a, 0, 6)
	s.read(b, 0, 45)
	c := s.send(1000) // nothing was asked of the cluster for a second
	s.l.acknowledged(c, 1, 1, at(1003))
	s.check(1003, "sent 3 acked 3 read 2 lost 0 dup 0 again 0 wrong 0 failed 0 waiting 0 owed 1 lag [1 0] writes 40 reads 5")
	s.send(1100)
	s.check(1200, "sent 4 acked 3 read 2 lost 0 dup 0 again 0 wrong 0 failed 0 waiting 1 owed 1 lag [1 0] writes 100 reads 197")

	s.l.mark([]int32{0, 1})
	if longest, all := s.l.sinceMark([]int32{0, 1}, at(1250)); all || longest != 150*time.Millisecond {
		t.Errorf("%s, %v before anything came", longest, all)
	}
	s.l.acknowledged(3, 1, 1, at(1300))
	if longest, all := s.l.sinceMark([]int32{1}, at(1400)); !all || longest != 200*time.Millisecond {
		t.Errorf("%s, %v after it came", longest, all)
	}
}
