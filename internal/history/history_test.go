package history

import (
	"strings"
	"testing"
)

// world is a correct history of one partition in pieces, so that a test can edit one piece before it is told.
type world struct {
	sent     []sent
	polls    []poll
	answers  []Answer
	replicas [3][]Batch
}

type sent struct {
	writer          int // 0 and 1: idempotent, 2 and 3: bound to broker 1 and 2
	seq             uint64
	sentAt, doneAt  int64
	offset          int64
	failed, refused bool
	value           []byte
}

type poll struct {
	consumer int
	offset   int64
	value    []byte
}

const records = 40

// good is 40 records of two idempotent writers and two bound ones in batches of two, in epoch 3 by broker 1 and from
// offset 20 on in epoch 4 by broker 2; two readers, answers between the acknowledgements.
func good() *world {
	w := &world{}
	seqs := [4]uint64{}
	for off := int64(0); off < records; off += 2 {
		n := int(off/2) % 2
		epoch, bound := int32(3), 2
		if off >= records/2 {
			epoch, bound = 4, 3
		}
		if off%10 == 8 { // every fifth batch is from the writer bound to the leader of the epoch
			n = bound
		}
		b := Batch{Base: off, Last: off + 1, Epoch: epoch, Producer: int64(n), BaseSeq: int32(seqs[n]), Sum: uint64(off) * 77}
		if n >= 2 {
			b.Producer, b.BaseSeq = -1, -1
		}
		for i := range int64(2) {
			s := sent{writer: n, seq: seqs[n], sentAt: 1000 + off*10, doneAt: 1000 + off*10 + 9, offset: off + i, value: encodeValue(uint32(n), seqs[n], 64)}
			seqs[n]++
			w.sent = append(w.sent, s)
			b.Values = append(b.Values, s.value)
			for k := range 2 {
				w.polls = append(w.polls, poll{k, s.offset, s.value})
			}
		}
		for r := range w.replicas {
			w.replicas[r] = append(w.replicas[r], b)
		}
		at := 1000 + off*10 + 12
		w.answers = append(w.answers,
			Answer{Start: at, End: at + 1, Offset: off + 2, Broker: 1 + int32(off/(records/2)), Kind: HighWatermark},
			Answer{Start: at, End: at + 1, Offset: 0, Broker: 1, Kind: LogStart},
			Answer{Start: at, End: at + 1, Offset: int64(epoch), Broker: 1, Kind: LeaderEpoch},
			Answer{Start: at, End: at + 1, Offset: off, Broker: -1, Kind: Committed},
			Answer{Start: at, End: at + 1, Offset: 3, Broker: 2, Kind: LeaderEpoch}) // broker 2 is behind, which is allowed
	}
	return w
}

func (w *world) tell() *Recorder {
	r := New(1)
	writers := []*Writer{r.Writer("a", -1, true), r.Writer("b", -1, true), r.Writer("at-1", 1, false), r.Writer("at-2", 2, false)}
	for _, s := range w.sent {
		wr := writers[s.writer]
		for uint64(len(wr.ops)) <= s.seq {
			wr.Send(0, 64, s.sentAt)
		}
		switch {
		case s.failed:
			wr.Failed(s.seq, s.refused, s.doneAt)
		case s.doneAt > 0:
			wr.Acked(s.seq, s.offset, s.doneAt)
		}
	}
	readers := []*Consumer{r.Consumer("c0"), r.Consumer("c1")}
	for _, p := range w.polls {
		readers[p.consumer].Polled(0, p.offset, p.value)
	}
	for _, a := range w.answers {
		r.Observe(a)
	}
	for i, name := range []string{"broker 1", "broker 2", "broker 3"} {
		rep := r.Replica(name)
		for _, b := range w.replicas[i] {
			rep.Batch(0, b)
		}
	}
	return r
}

// breached returns the names of the broken promises, in order.
func breached(t *testing.T, w *world) string {
	t.Helper()
	var names []string
	for _, res := range w.tell().Check() {
		if res.Breaches > 0 {
			names = append(names, res.Promise)
			if len(res.Examples) == 0 {
				t.Errorf("%s is broken without an example", res.Promise)
			}
			t.Log(res)
		}
	}
	return strings.Join(names, " ")
}

func TestACorrectHistoryHasNoBreachAndEveryPromiseIsChecked(t *testing.T) {
	w := good()
	for _, res := range w.tell().Check() {
		if res.Breaches != 0 {
			t.Error(res)
		}
		if res.Checked == 0 {
			t.Errorf("%s was not checked at all", res.Promise)
		}
	}
	w = good()
	w.sent[7].failed = true // a broken connection: the record may be there all the same
	w.sent[8].doneAt = 0    // no answer yet
	if got := breached(t, w); got != "" {
		t.Errorf("records without an acknowledgement that are in the log break %q", got)
	}
}

func cut(b []Batch, n int) []Batch { return b[: len(b)-n : len(b)-n] }

// TestEveryEditIsFound: one edit by hand for each promise, and what it has to break.
func TestEveryEditIsFound(t *testing.T) {
	tests := []struct {
		name, want string
		edit       func(w *world)
	}{
		{"the end of all logs is lost, nobody had read it", "I1", func(w *world) {
			w.polls = w.polls[:len(w.polls)-4]
			for r := range w.replicas {
				w.replicas[r] = cut(w.replicas[r], 1)
			}
		}},
		{"the end of all logs is lost after it was read", "I1 I3", func(w *world) {
			for r := range w.replicas {
				w.replicas[r] = cut(w.replicas[r], 1)
			}
		}},
		{"acknowledged at another offset than it lies at", "I1", func(w *world) { w.sent[39].offset = 38; w.sent[38].offset = 39 }},
		{"one replica lost its end", "I39", func(w *world) { w.replicas[2] = cut(w.replicas[2], 1) }},
		{"one replica has other bytes of the same values", "I39", func(w *world) { w.replicas[1][5].Sum++ }},
		{"one replica has another value", "I2 I39", func(w *world) {
			w.replicas[1][5].Values = [][]byte{w.replicas[1][5].Values[1], w.replicas[1][5].Values[0]}
			w.replicas[1][5].Sum++
		}},
		{"two readers were shown different values", "I2", func(w *world) {
			w.polls[len(w.polls)-1].value = encodeValue(1, 3, 64)
		}},
		{"both readers were shown a value that changed later", "I3", func(w *world) {
			w.polls[len(w.polls)-1].value = encodeValue(1, 3, 64)
			w.polls[len(w.polls)-2].value = encodeValue(1, 3, 64)
		}},
		{"a reader was shown bytes that nobody sent", "I4", func(w *world) { w.polls[0].value = []byte("hello") }},
		{"a flipped bit", "I4", func(w *world) {
			w.polls[0].value = append([]byte{}, w.polls[0].value...)
			w.polls[0].value[20] ^= 4
		}},
		{"a value in the log that its writer never sent", "I4 I39", func(w *world) {
			w.replicas[0] = append(w.replicas[0], Batch{Base: 40, Last: 40, Epoch: 4, Producer: -1, Values: [][]byte{encodeValue(1, 400, 64)}})
		}},
		{"a record refused for certain is in the log", "I4", func(w *world) { w.sent[3].failed, w.sent[3].refused = true, true }},
		{"a batch taken twice", "I5", func(w *world) {
			again := w.replicas[0][17]
			again.Base, again.Last = 40, 41
			for r := range w.replicas {
				w.replicas[r] = append(w.replicas[r], again)
			}
		}},
		{"a value sent twice by the client", "I5", func(w *world) {
			again := w.replicas[0][17]
			again.Base, again.Last, again.ProdEpoch = 40, 41, 1
			for r := range w.replicas {
				w.replicas[r] = append(w.replicas[r], again)
			}
		}},
		{"a sequence lies behind a later one", "I6", func(w *world) {
			for _, i := range []int{38, 39} { // the last records of writer 1 become its first ones, unacknowledged
				w.sent[i].failed = true
			}
			vs := [][]byte{w.sent[2].value, w.sent[3].value}
			w.sent[2].failed, w.sent[3].failed = true, true
			last := len(w.replicas[0]) - 1
			for r := range w.replicas {
				w.replicas[r][last].Values, w.replicas[r][1].Values = vs, w.replicas[r][last].Values
			}
			w.polls = nil
		}},
		{"sent after an acknowledgement, lies before it", "I7", func(w *world) { w.sent[4].sentAt, w.sent[4].doneAt = 9000, 9001; w.answers = nil }},
		{"a reader skips a record", "I8", func(w *world) { w.polls = append(w.polls[:10:10], w.polls[12:]...) }},
		{"a reader goes back", "I8", func(w *world) { w.polls = append(w.polls, w.polls[10]) }},
		{"an old leader answers an old end", "I9", func(w *world) {
			w.answers = append(w.answers, Answer{Start: 5000, End: 5001, Offset: 22, Broker: 1, Kind: HighWatermark})
		}},
		{"the end that is answered is below what was acknowledged", "I9", func(w *world) {
			w.answers = []Answer{{Start: 1100, End: 1101, Offset: 3, Broker: 1, Kind: HighWatermark}}
		}},
		{"two leaders acknowledge in one epoch", "I11", func(w *world) {
			for r := range w.replicas {
				for i := range w.replicas[r] {
					w.replicas[r][i].Epoch = 3
				}
			}
		}},
		{"epochs fall in the log", "I11", func(w *world) {
			for r := range w.replicas {
				w.replicas[r][3].Epoch = 5
			}
		}},
		{"a broker's metadata goes back", "I11", func(w *world) {
			w.answers = append(w.answers, Answer{Start: 5000, End: 5001, Offset: 3, Broker: 1, Kind: LeaderEpoch})
		}},
		{"the log start goes back", "I20", func(w *world) { w.answers[1].Offset = 1 }},
		{"a committed offset falls back to none", "I31", func(w *world) { w.answers[8].Offset = -1 }},
		{"a hole in every log", "I1 I3 I39", func(w *world) {
			for r := range w.replicas {
				w.replicas[r] = append(w.replicas[r][:4:4], w.replicas[r][5:]...)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := good()
			tt.edit(w)
			if got := breached(t, w); got != tt.want {
				t.Errorf("broken %q, want %q", got, tt.want)
			}
		})
	}
}

func TestAValueProvesItself(t *testing.T) {
	v := encodeValue(7, 99, 10)
	if len(v) != ValueSize {
		t.Fatalf("%d bytes", len(v))
	}
	for _, size := range []int{0, 20, 21, 64, 1000} {
		v := encodeValue(7, 99, size)
		got, err := decodeValue(v)
		if err != nil || got.writer() != 7 || got.seq() != 99 {
			t.Fatalf("size %d: %v %v", size, got, err)
		}
		for i := range v {
			v[i] ^= 1
			if got, err := decodeValue(v); err == nil {
				t.Fatalf("size %d byte %d: a flipped bit gives %v", size, i, got)
			}
			v[i] ^= 1
		}
		for n := range v {
			if _, err := decodeValue(v[:n]); err == nil {
				t.Fatalf("size %d cut to %d is taken", size, n)
			}
		}
	}
}

func TestTallyCountsWhatBecameOfRecords(t *testing.T) {
	r := New(1)
	w := r.Writer("a", -1, true)
	for range 5 {
		w.Send(0, 0, 1)
	}
	w.Acked(0, 10, 2)
	w.Acked(1, 11, 2)
	w.Failed(2, false, 2)
	w.Failed(3, true, 2)
	if got, want := r.Tally(), (Tally{Sent: 5, Acked: 2, Unknown: 1, Refused: 1, Open: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	c := r.Consumer("c")
	c.Polled(0, 4, encodeValue(0, 0, 0))
	if c.Position(0) != 5 || c.Seen() != 1 {
		t.Errorf("position %d, seen %d", c.Position(0), c.Seen())
	}
	r.Breach("I38", "seen by hand")
	res := r.Check()
	if last := res[len(res)-1]; last.Promise != "I38" || last.Breaches != 1 {
		t.Errorf("a promise of the caller's own: %v", last)
	}
}
