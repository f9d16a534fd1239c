package isr

import (
	"fmt"
	"io"
	"strconv"
	"testing"
)

// playFollower plays one command of a follower's transcript.
func playFollower(t *testing.T, out io.Writer, f *Follower, cmd string, args map[string]string) *Follower {
	t.Helper()
	num := func(k string) int64 {
		n, err := strconv.ParseInt(args[k], 10, 64)
		if err != nil {
			t.Fatalf("%s: %s: %v", cmd, k, err)
		}
		return n
	}
	var o FollowerOut
	step := func(in FollowerIn) { o = f.Step(0, in) }
	switch cmd {
	case "follow":
		f = NewFollower(num("hw"), num("flushed"), num("end"), int32(num("last")))
		step(FollowerIn{Kind: Begin})
	case "records":
		step(FollowerIn{Kind: Records, Seq: num("seq"), HW: num("hw"), More: args["more"] == "yes"})
	case "diverged":
		step(FollowerIn{Kind: Diverged, Seq: num("seq"), DivEpoch: int32(num("epoch")), DivEnd: num("end"), OwnEnd: num("own")})
	case "range":
		step(FollowerIn{Kind: OutOfRange, Seq: num("seq"), LeaderStart: num("start"), LeaderEnd: num("end")})
	case "lost":
		step(FollowerIn{Kind: Lost, Seq: num("seq")})
	case "fenced":
		step(FollowerIn{Kind: Fenced, Seq: num("seq")})
	case "wrote":
		step(FollowerIn{Kind: Wrote, End: num("end"), Flushed: num("flushed"), LastEpoch: int32(num("last"))})
	case "heard":
		step(FollowerIn{Kind: Heard, HW: num("hw")})
	default:
		t.Fatalf("unknown command %q", cmd)
	}
	if o.HW != f.HW() || f.hw > f.flushed || f.flushed > f.end {
		t.Errorf("%s: hw %d, flushed %d, end %d", cmd, f.hw, f.flushed, f.end)
	}
	if o.Act == Fetch && (o.Offset != f.end || f.flushed != f.end && f.end >= f.leaderHW) {
		t.Errorf("%s: fetch at %d with flushed %d, end %d", cmd, o.Offset, f.flushed, f.end)
	}
	switch o.Act {
	case Fetch, Retry:
		fmt.Fprintf(out, "-> %s at=%d last=%d seq=%d hw=%d\n", actNames[o.Act], o.Offset, o.LastEpoch, o.Seq, o.HW)
	case Truncate, Restart:
		fmt.Fprintf(out, "-> %s to=%d hw=%d\n", actNames[o.Act], o.Offset, o.HW)
	default:
		fmt.Fprintf(out, "-> %s hw=%d\n", actNames[o.Act], o.HW)
	}
	return f
}

var actNames = []string{"nothing", "fetch", "append", "flush", "truncate", "restart", "retry"}
