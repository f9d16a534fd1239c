package storage

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/vfs"
	"github.com/milena-mq/milena/internal/vfs/memfs"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var rewriteInspect = flag.Bool("rewrite-inspect", false, "write testdata/inspect.txt anew")

func inspect(t *testing.T, fsys vfs.FS, path string, o InspectOptions) ([]InspectItem, InspectSummary) {
	t.Helper()
	var out []InspectItem
	sum, err := Inspect(fsys, path, o, func(i InspectItem) error {
		if _, err := json.Marshal(i); err != nil {
			t.Fatal(err)
		}
		out = append(out, i)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out, sum
}

func problems(items []InspectItem) string {
	var b strings.Builder
	for _, i := range items {
		if i.Problem != nil {
			b.WriteString(i.String() + "\n")
		}
	}
	return b.String()
}

// inspected is a small log with everything in it.
func inspected(t *testing.T) *world {
	w := openWorld(t, memfs.New(), "d", compactConfig())
	w.must(w.append(data(batch.None, nil, false, "a", "1", "b", "-")))
	w.must(w.append(data(batch.None, &batch.ProducerInfo{ID: 7, Epoch: 1, Sequence: 3}, true, "a", "\x1b[2J")))
	w.must(w.append(batch.BuildMarker(7, 1, batch.Marker{Type: batch.Abort, CoordinatorEpoch: 4, TimestampMs: 150})))
	w.must(w.settle())
	w.must(w.append(data(batch.None, nil, false, "c", "3")))
	w.must(w.append(data(batch.None, nil, false, "d", strings.Repeat("x", 40))))
	w.must(w.log.Flush())
	w.must(w.dir.checkpoint(true))
	return w
}

func TestInspectTellsEverything(t *testing.T) {
	w := inspected(t)
	items, sum := inspect(t, w.fs, "d", InspectOptions{Records: true, Indexes: true, Decode: func(topic string, r batch.Record) string {
		if string(r.Key) == "c" {
			return "decoded by " + topic
		}
		return ""
	}})
	if p := problems(items); p != "" || sum.Damage+sum.Tails+sum.Notes > 0 || sum.Logs != 1 || sum.Batches != 5 || sum.Records != 6 {
		t.Fatalf("%s%+v", p, sum)
	}
	var b strings.Builder
	file := ""
	for _, i := range items {
		if name := i.Log + "/" + i.File; name != file {
			file = name
			b.WriteString(file + "\n")
		}
		b.WriteString("  " + i.String() + "\n")
	}
	const golden = "testdata/inspect.txt"
	if *rewriteInspect {
		w.must(os.WriteFile(golden, []byte(b.String()), 0o644))
	}
	want, err := os.ReadFile(golden)
	w.must(err)
	if b.String() != string(want) {
		t.Fatalf("differs from %s (-rewrite-inspect):\n%s", golden, b.String())
	}
	w.must(w.dir.Abandon())
}

// Every byte of the log below the recovery point: a flip is reported as damage; only base offset's high zeros and
// such may hide inside what is still legal, and the checksum does not cover the leader epoch, which the list gives away.
func TestInspectFindsEveryFlippedByte(t *testing.T) {
	w := inspected(t)
	w.must(w.dir.Close(1))
	name := filepath.Join("d", "keep-0", segName(0, extLog))
	st, err := w.fs.Stat(name)
	w.must(err)
	for at := range st.Size() {
		disk := w.fs.(*memfs.FS).Clone()
		w.must(disk.FlipBit(name, at, 6))
		if items, sum := inspect(t, disk, "d", InspectOptions{}); sum.Damage == 0 {
			t.Errorf("byte %d: nothing found: %s", at, problems(items))
		}
	}
}

func TestInspectTellsATornTailFromDamage(t *testing.T) {
	w := inspected(t)
	active := w.log.activeLocked()
	name := w.log.segPath(active.base, extLog)
	size := active.size
	w.must(w.append(data(batch.None, nil, false, "e", "5")))
	w.must(w.dir.Abandon())
	f, err := w.fs.OpenFile(name, vfs.ReadWrite, 0)
	w.must(err)
	w.must(f.Truncate(size + 30))
	if items, sum := inspect(t, w.fs, "d", InspectOptions{}); sum.Tails != 1 || sum.Damage != 0 {
		t.Fatalf("%+v %s", sum, problems(items))
	}
	w.must(f.Truncate(size - 10))
	if items, sum := inspect(t, w.fs, "d", InspectOptions{}); sum.Damage == 0 {
		t.Fatalf("%+v %s", sum, problems(items))
	}
	w.must(f.Close())
}

func TestInspectTakesAFolderAndAFile(t *testing.T) {
	w := inspected(t)
	for path, logs := range map[string]int{"d": 1, "d/keep-0": 1, "d/keep-0/" + segName(0, extLog): 0} {
		if items, sum := inspect(t, w.fs, path, InspectOptions{Batches: true}); sum.Logs != logs || sum.Segments == 0 || sum.Damage > 0 {
			t.Errorf("%s: %+v %s", path, sum, problems(items))
		}
	}
	if _, sum := inspect(t, w.fs, "d", InspectOptions{Topic: "other", Partition: -1}); sum.Logs != 0 {
		t.Errorf("%+v", sum)
	}
	for _, path := range []string{"nowhere", "d/meta.properties"} {
		if _, err := Inspect(w.fs, path, InspectOptions{}, func(InspectItem) error { return nil }); err == nil {
			t.Error(path)
		}
	}
	stop := errors.New("stop")
	if _, err := Inspect(w.fs, "d", InspectOptions{Batches: true}, func(InspectItem) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
	w.must(w.dir.Abandon())
}

func TestInspectFindsNothingWrongAfterCompaction(t *testing.T) {
	w := openWorld(t, memfs.New(), "d", compactConfig())
	for i := range uint64(3) {
		w.must(w.fill(i, 60))
		w.must(w.settle())
		w.must(w.clean(int64(i) * 10_000))
		if items, sum := inspect(t, w.fs, "d", InspectOptions{}); sum.Damage+sum.Tails+sum.Notes > 0 || sum.Batches == 0 {
			t.Fatalf("%+v\n%s", sum, problems(items))
		}
	}
	w.must(w.dir.Abandon())
}

func TestInternalRecordsAreToldInWords(t *testing.T) {
	k := kmsg.OffsetCommitKey{Version: 1, Group: "g", Topic: "t", Partition: 3}
	v := kmsg.OffsetCommitValue{Version: 3, Offset: 42, LeaderEpoch: 2, Metadata: "m", CommitTimestamp: 9}
	gk := kmsg.GroupMetadataKey{Version: 2, Group: "g"}
	proto := "range"
	gv := kmsg.GroupMetadataValue{Version: 3, ProtocolType: "consumer", Generation: 5, Protocol: &proto, Members: []kmsg.GroupMetadataValueMember{{MemberID: "a", ClientID: "c", ClientHost: "h"}}}
	for _, c := range []struct {
		key, value []byte
		want       string
	}{
		{k.AppendTo(nil), v.AppendTo(nil), `offset_commit group="g" topic="t" partition=3 offset=42 leaderEpoch=2 metadata="m" commitTimestamp=9`},
		{k.AppendTo(nil), nil, `offset_commit group="g" topic="t" partition=3 deleted`},
		{k.AppendTo(nil), []byte{0}, `offset_commit group="g" topic="t" partition=3 value not understood`},
		{gk.AppendTo(nil), gv.AppendTo(nil), `group_metadata group="g" generation=5 protocolType="consumer" protocol="range" leader=- members=["a" client="c" host="h" instance=-]`},
		{[]byte{0, 9, 1}, nil, "record type 9"},
		{[]byte{0, 1, 200}, nil, ""},
		{[]byte{0}, nil, ""},
	} {
		if got := DecodeInternal("__consumer_offsets", batch.Record{Key: c.key, Value: c.value}); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

// A log that was just deleted, and one that is being copied from another directory, have lines in the checkpoints and no folder of
// their own: nothing is wrong with that.
func TestInspectKnowsLogsThatComeAndGo(t *testing.T) {
	mem := memfs.New()
	ds, err := openTwo(mem)
	if err != nil {
		t.Fatal(err)
	}
	var logs []*Log
	for n := range int32(2) {
		l, err := ds[0].Create(tp("t", n), topicID(1), smallConfig(), 0)
		if err != nil {
			t.Fatal(err)
		}
		mustAppend(t, l, 3, "x", 1)
		logs = append(logs, l)
	}
	f, err := ds[1].CreateFuture(logs[0], 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.CopyFrom(logs[0], 1000, 1); err != nil {
		t.Fatal(err)
	}
	for _, d := range ds {
		if err := d.checkpoint(true); err != nil {
			t.Fatal(err)
		}
	}
	if err := ds[0].Delete(logs[1], 1); err != nil {
		t.Fatal(err)
	}
	abandonAll(ds) // killed
	for _, path := range moveDirs {
		items, sum := inspect(t, mem, path, InspectOptions{})
		if sum.Damage != 0 || !strings.Contains(problems(items), "waiting to be removed or moved") {
			t.Errorf("%s: %+v\n%s", path, sum, problems(items))
		}
	}
}
