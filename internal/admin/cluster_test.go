package admin_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/milena-mq/milena/internal/admin"
	"github.com/milena-mq/milena/internal/admin/admintest"
	"github.com/twmb/franz-go/pkg/kerr"
)

func several(t *testing.T, n, racks int) (*admintest.Cluster, *admin.Client) {
	t.Helper()
	k := admintest.New(t, n, racks)
	c := admin.New(admin.Options{Bootstrap: k.Addrs(), Timeout: 5 * time.Second})
	t.Cleanup(c.Close)
	return k, c
}

func status(t *testing.T, c *admin.Client) admin.Status {
	t.Helper()
	s, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStatusSaysTheWorstFirst(t *testing.T) {
	k, c := several(t, 4, 2)
	k.Topic("letters", 1000, []int32{1, 2, 3}, []int32{2, 3, 4}, []int32{3, 4, 1})
	k.Topic("single", 10, []int32{4})
	s := status(t, c)
	if s.Health != admin.Green || len(s.Reasons) != 0 || s.Partitions != 4 || s.Topics != 2 || s.Brokers[3].Leads != 1 || s.Brokers[3].Partitions != 3 || s.Brokers[3].Size != 2010 || s.Brokers[3].Free != 1<<39 {
		t.Errorf("all is well: %+v", s)
	}
	k.Change(func(k *admintest.Cluster) { k.Broker(3).Broken = true })
	if s = status(t, c); s.Health != admin.Yellow || len(s.Reasons) != 1 || s.Reasons[0] != "broker 3: directory /var/lib/milena is offline (KAFKA_STORAGE_ERROR)" {
		t.Errorf("%s %q", s.Health, s.Reasons)
	}
	k.Change(func(k *admintest.Cluster) { k.Broker(3).Broken = false })
	k.Stop(2)
	s = status(t, c)
	addr := k.Addrs()[1]
	want := []string{"broker 2 at " + addr + " is down", "2 partitions have replicas that are not in sync", "member 2 of the metadata quorum does not keep up: if one more fails, nothing can change until it is back"}
	if s.Health != admin.Yellow || !slices.Equal(s.Reasons, want) || s.AtMinISR != 2 || len(s.Bad) != 2 || s.Brokers[1].State() != "down" {
		t.Errorf("%s %q, %d at min ISR", s.Health, s.Reasons, s.AtMinISR)
	}
	k.Stop(4)
	s = status(t, c)
	if s.Health != admin.Red || s.Offline != 1 || s.UnderMinISR != 2 || !strings.HasPrefix(s.Reasons[0], "1 partition has no leader, so nothing can be written or read there, until broker 4 is back") {
		t.Errorf("%s, %d offline, %d under min ISR: %q", s.Health, s.Offline, s.UnderMinISR, s.Reasons)
	}
	if s.FreeID() != 5 {
		t.Errorf("free id %d", s.FreeID())
	}
}

func TestPlanForGrowthIsCarriedOutUnderAThrottle(t *testing.T) {
	k, c := several(t, 4, 0)
	k.Pace = 2
	var all [][]int32
	for i := range 8 {
		all = append(all, []int32{int32(i%3) + 1, int32(i+1)%3 + 1, int32(i+2)%3 + 1})
	}
	k.Topic("letters", 1000, all...)
	plan, err := c.Plan(t.Context(), admin.PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if plan.Copies != 6 || plan.Bytes != 6000 || len(plan.Stuck) != 0 {
		t.Errorf("plan: %d copies, %d bytes, %d stuck", plan.Copies, plan.Bytes, len(plan.Stuck))
	}
	var seen []admin.Progress
	err = c.Carry(t.Context(), plan, admin.CarryOptions{Throttle: 5000, Parallel: 3, Every: time.Millisecond, Progress: func(p admin.Progress) { seen = append(seen, p) }})
	if err != nil {
		t.Fatal(err)
	}
	last := seen[len(seen)-1]
	if last.Done != len(plan.Moves) || last.Moving != 0 || last.Copied != plan.Bytes || last.Bytes != plan.Bytes {
		t.Errorf("progress ends with %+v", last)
	}
	for _, p := range seen {
		if p.Moving > 3+plan.Leads { // what moves no data does not count against the limit
			t.Errorf("%d partitions move at a time, 3 may", p.Moving)
		}
	}
	asked := k.Asked()
	if i := slices.IndexFunc(asked, func(s string) bool { return strings.HasPrefix(s, "move ") }); i < 0 || !strings.HasPrefix(asked[i-1], "set topic letters leader.replication.throttled.replicas=") {
		t.Errorf("a move begins before the throttle is set: %q", asked)
	}
	if !slices.Contains(asked, "set broker 4 follower.replication.throttled.rate=5000") {
		t.Errorf("broker 4 takes without a throttle: %q", asked)
	}
	if left := k.Configs(); len(left) != 0 {
		t.Errorf("throttles are left: %q", left)
	}
	if again, err := c.Plan(t.Context(), admin.PlanOptions{}); err != nil || len(again.Moves) != 0 {
		t.Errorf("not even afterwards: %+v, %v", again, err)
	}
	for _, b := range status(t, c).Brokers {
		if b.Partitions != 6 || b.Leads != 2 {
			t.Errorf("broker %d holds %d and leads %d", b.ID, b.Partitions, b.Leads)
		}
	}
}

func TestABrokerIsEmptiedAndOnlyThat(t *testing.T) {
	k, c := several(t, 4, 0)
	k.Topic("letters", 1000, []int32{4, 1, 2}, []int32{1, 2, 3}, []int32{1, 4, 3})
	plan, err := c.Plan(t.Context(), admin.PlanOptions{Leaving: []int32{4}, Only: true})
	if err != nil || len(plan.Moves) != 2 || plan.Moves[0].Reason == "" {
		t.Fatalf("%+v, %v", plan, err)
	}
	if err := c.Carry(t.Context(), plan, admin.CarryOptions{Every: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	if s := status(t, c); s.Brokers[3].Partitions != 0 || s.Health != admin.Green {
		t.Errorf("%+v", s.Brokers[3])
	}
	if left := k.Asked(); slices.ContainsFunc(left, func(s string) bool { return strings.HasPrefix(s, "set ") }) {
		t.Errorf("a throttle nobody asked for: %q", left)
	}
	// Where three copies need three brokers, none of them can go.
	plan, err = c.Plan(t.Context(), admin.PlanOptions{Leaving: []int32{3, 4}, Only: true})
	if err != nil || len(plan.Moves) != 0 || len(plan.Stuck) != 3 || plan.Stuck[0].Topic != "letters" {
		t.Errorf("%+v, %v", plan, err)
	}
	if _, err := c.Plan(t.Context(), admin.PlanOptions{Leaving: []int32{9}}); err == nil || err.Error() != "no broker 9 is registered: there are 1, 2, 3, 4" {
		t.Errorf("%v", err)
	}
}

// Whoever stops in the middle is told what goes on, and the next plan leaves that alone.
func TestAnInterruptedMoveGoesOnAndIsNotStartedTwice(t *testing.T) {
	k, c := several(t, 4, 0)
	k.Topic("letters", 1000, []int32{1, 2, 3}, []int32{1, 2, 3}, []int32{1, 2, 3}, []int32{1, 2, 3})
	wishes := []admin.Move{{Topic: "letters", Partition: 0, To: []int32{4, 2, 3}}, {Topic: "letters", Partition: 1, To: []int32{4, 2, 3}}}
	plan, err := c.PlanWishes(t.Context(), wishes)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = c.Carry(ctx, plan, admin.CarryOptions{Throttle: 1, Parallel: 1, Every: time.Millisecond, Progress: func(admin.Progress) { cancel() }})
	var cut *admin.Interrupted
	if !errors.As(err, &cut) || cut.Moves != 2 || cut.Done != 0 || cut.Moving != 1 || !cut.Throttled {
		t.Fatalf("%v", err)
	}
	if topics, err := c.Throttled(t.Context()); err != nil || !slices.Equal(topics, []string{"letters"}) {
		t.Errorf("throttled %v, %v", topics, err)
	}
	plan, err = c.Plan(t.Context(), admin.PlanOptions{})
	if err != nil || slices.ContainsFunc(plan.Moves, func(m admin.Move) bool { return m.Partition == 0 }) {
		t.Errorf("planned again: %+v, %v", plan, err)
	}
	if err := c.AwaitMoves(t.Context(), 4, func(admin.Progress) {}); err != nil {
		t.Error(err)
	}
	if err := c.Unthrottle(t.Context(), []string{"letters", "a topic that is gone"}); err != nil || len(k.Configs()) != 0 {
		t.Errorf("%v, %q", err, k.Configs())
	}
}

func TestOneRefusedMoveStopsNoOther(t *testing.T) {
	k, c := several(t, 4, 0)
	k.Topic("letters", 0, []int32{1, 2, 3}, []int32{1, 2, 3}, []int32{1, 2, 3})
	k.Refuse("letters", 0, kerr.InvalidReplicaAssignment)
	k.Refuse("letters", 2, kerr.UnknownTopicOrPartition) // deleted meanwhile: nothing to be done
	var wishes []admin.Move
	for n := range int32(3) {
		wishes = append(wishes, admin.Move{Topic: "letters", Partition: n, To: []int32{1, 2, 4}})
	}
	plan, err := c.PlanWishes(t.Context(), wishes)
	if err != nil {
		t.Fatal(err)
	}
	err = c.Carry(t.Context(), plan, admin.CarryOptions{Every: time.Millisecond})
	if !errors.Is(err, kerr.InvalidReplicaAssignment) || !strings.HasPrefix(err.Error(), "reassign letters-0: ") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
	if got := k.Placed("letters"); got != "[1 2 3] [1 2 4] [1 2 3]" {
		t.Error(got)
	}
}

func TestFactors(t *testing.T) {
	k, c := several(t, 4, 2) // racks: 1 and 3 in r1, 2 and 4 in r2
	k.Topic("letters", 500, []int32{1}, []int32{2}, []int32{3})
	k.Topic("other", 0, []int32{4}, []int32{4})
	plan, err := c.PlanFactor(t.Context(), "letters", 2)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range plan.Moves {
		got = append(got, fmt.Sprint(m.To, m.Bytes))
	}
	// The other rack first, and there whoever holds the fewest.
	if want := []string{"[1 2] 500", "[2 1] 500", "[3 2] 500"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if err := c.Carry(t.Context(), plan, admin.CarryOptions{Every: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	k.Change(func(k *admintest.Cluster) { k.Part("letters", 0).ISR = []int32{2} })
	plan, err = c.PlanFactor(t.Context(), "letters", 1)
	if err != nil || len(plan.Moves) != 3 || plan.Moves[0].To[0] != 2 || plan.Moves[1].To[0] != 2 {
		t.Errorf("the replica out of sync should go: %+v, %v", plan.Moves, err)
	}
	for n, want := range map[int]string{0: "want at least 1 replica", 5: "5 replicas need 5 brokers that are up: there are 4"} {
		if _, err := c.PlanFactor(t.Context(), "letters", n); err == nil || err.Error() != want {
			t.Errorf("%d: %v", n, err)
		}
	}
	if _, err := c.PlanFactor(t.Context(), "nothere", 1); err == nil {
		t.Error("a topic that is not there is planned")
	}
}

func TestWishesAreChecked(t *testing.T) {
	k, c := several(t, 3, 0)
	k.Topic("letters", 0, []int32{1, 2}, []int32{2, 3})
	for want, w := range map[string][]admin.Move{
		"letters-0 is named twice":                                {{Topic: "letters", To: []int32{1}}, {Topic: "letters", To: []int32{2}}},
		"topic letters has no partition 7":                        {{Topic: "letters", Partition: 7, To: []int32{1}}},
		"letters-0: no broker 8 is registered: there are 1, 2, 3": {{Topic: "letters", To: []int32{8}}},
	} {
		if _, err := c.PlanWishes(t.Context(), w); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	plan, err := c.PlanWishes(t.Context(), []admin.Move{{Topic: "letters", To: []int32{1, 2}}, {Topic: "letters", Partition: 1, To: []int32{3, 2}}})
	if err != nil || len(plan.Moves) != 1 || plan.Copies != 0 || plan.Leads != 1 {
		t.Errorf("%+v, %v", plan, err)
	}
	if err := c.Carry(t.Context(), plan, admin.CarryOptions{Every: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	// Kafka leaves a leader that stays among the replicas where it is: the order alone moves nobody.
	if asked := k.Asked(); !slices.Equal(asked, []string{"move letters-1 to [3 2]", "elect 3 for letters-1, unclean false"}) {
		t.Errorf("%q", asked)
	}
}

func TestElections(t *testing.T) {
	k, c := several(t, 3, 0)
	k.Topic("letters", 0, []int32{1, 2}, []int32{2, 1}, []int32{3, 1})
	k.Change(func(k *admintest.Cluster) { k.Part("letters", 0).Leader = 2 })
	k.Stop(3)
	es, err := c.ElectLeaders(t.Context(), false, map[string][]int32{"letters": {0, 1, 2, 9}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range es {
		got = append(got, fmt.Sprint(e.Partition, " ", e.Result))
	}
	if want := []string{"0 elected", "1 not needed", "2 PREFERRED_LEADER_NOT_AVAILABLE", "9 UNKNOWN_TOPIC_OR_PARTITION"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	k.Topic("alone", 0, []int32{3, 2})
	k.Change(func(k *admintest.Cluster) {
		k.Part("alone", 0).Leader, k.Part("alone", 0).ISR = -1, nil
	})
	if es, err = c.ElectLeaders(t.Context(), true, map[string][]int32{"alone": {0}}); err != nil || es[0].Result != "elected" {
		t.Errorf("%+v, %v", es, err)
	}
}

func TestTheQuorumIsTold(t *testing.T) {
	k, c := several(t, 5, 0)
	q, err := c.Quorum(t.Context())
	if err != nil || len(q.Voters) != 3 || q.Leader != 1 || q.Voters[1].Address != "10.0.0.2:9094" || q.Tolerates() != "1 more may fail" {
		t.Errorf("%+v, %v", q, err)
	}
	k.Stop(2)
	k.Stop(3)
	if q, _ = c.Quorum(t.Context()); q.Tolerates() != "there is no majority, so nothing can change" {
		t.Error(q.Tolerates())
	}
	if err := c.RemoveVoter(t.Context(), 2); err != nil {
		t.Error(err)
	}
	if err := c.RemoveVoter(t.Context(), 2); err == nil || err.Error() != "remove broker 2 from the metadata quorum: broker 2 is no member (VOTER_NOT_FOUND)" {
		t.Error(err)
	}
	if err := c.AddVoter(t.Context(), 4, "10.0.0.4:9094"); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"10.0.0.4", "10.0.0.4:0", "10.0.0.4:70000", "10.0.0.4:x"} {
		if err := c.AddVoter(t.Context(), 4, bad); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
	if asked := k.Asked(); !slices.Equal(asked, []string{"remove voter 2", "add voter 4 at 10.0.0.4:9094"}) {
		t.Errorf("%q", asked)
	}
}

func TestAStoreOutsideTheBrokersIsNoQuorumOfOne(t *testing.T) {
	k, c := several(t, 3, 0)
	k.Change(func(k *admintest.Cluster) { k.Store = "etcd://e1:2379" })
	q, err := c.Quorum(t.Context())
	if err != nil || !q.Elsewhere() || q.Tolerates() != "the metadata lies in a store outside the brokers" {
		t.Errorf("%+v, %v", q, err)
	}
	if s := status(t, c); s.Health != admin.Green {
		t.Errorf("%q", s.Reasons)
	}
}

// A broker that died while replicas moved is no hindrance to taking its throttle away, nor to emptying it.
func TestADeadBrokerIsEmptiedUnderAThrottle(t *testing.T) {
	k, c := several(t, 4, 0)
	k.Topic("letters", 1000, []int32{1, 2, 4}, []int32{4, 2, 3})
	k.Stop(4)
	plan, err := c.Plan(t.Context(), admin.PlanOptions{Leaving: []int32{4}, Only: true})
	if err != nil || len(plan.Moves) != 2 {
		t.Fatalf("%+v, %v", plan, err)
	}
	if err := c.Carry(t.Context(), plan, admin.CarryOptions{Throttle: 1000, Every: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	asked := k.Asked()
	if !slices.Contains(asked, "set broker 4 leader.replication.throttled.rate=1000") || len(k.Configs()) != 0 {
		t.Errorf("%q, left %q", asked, k.Configs())
	}
	// Another rate for what is under way, and none.
	k.Change(func(k *admintest.Cluster) { k.Pace = -1 })
	plan, err = c.PlanWishes(t.Context(), []admin.Move{{Topic: "letters", Partition: 0, To: []int32{1, 2}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Reassign(t.Context(), plan.Moves); err != nil {
		t.Fatal(err)
	}
	if err := c.Rethrottle(t.Context(), 7); err != nil || len(k.Configs()) != 0 {
		t.Errorf("a throttle where there was none: %v, %q", err, k.Configs())
	}
	if err := c.AlterConfigs(t.Context(), admin.ResourceTopic, "letters", map[string]string{"leader.replication.throttled.replicas": "*"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Rethrottle(t.Context(), 7); err != nil || !slices.Contains(k.Configs(), "broker 4 follower.replication.throttled.rate=7") {
		t.Errorf("%v, %q", err, k.Configs())
	}
	if err := c.Rethrottle(t.Context(), 0); err != nil || len(k.Configs()) != 0 {
		t.Errorf("%v, %q", err, k.Configs())
	}
}

func TestWaitingForBrokers(t *testing.T) {
	k, c := several(t, 3, 0)
	k.Change(func(k *admintest.Cluster) { k.Broker(3).Fenced = true })
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.AwaitBroker(short, 3); err == nil || err.Error() != "broker 3 is registered, but does not take part yet" {
		t.Errorf("%v", err)
	}
	short, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.AwaitBroker(short, 7); err == nil || err.Error() != "broker 7 has not registered" {
		t.Errorf("%v", err)
	}
	if b, err := c.AwaitBroker(t.Context(), 2); err != nil || b.ID != 2 {
		t.Errorf("%+v, %v", b, err)
	}
	if err := c.AwaitGone(t.Context(), 3); err != nil {
		t.Error(err)
	}
	short, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.AwaitGone(short, 2); err == nil || err.Error() != "broker 2 still runs" {
		t.Errorf("%v", err)
	}
	if err := c.Unregister(t.Context(), 3); err != nil {
		t.Error(err)
	}
	if err := c.Unregister(t.Context(), 3); !errors.Is(err, kerr.BrokerIDNotRegistered) {
		t.Error(err)
	}
	if n, err := c.BrokersUp(t.Context()); n != 2 || err != nil {
		t.Errorf("%d up, %v", n, err)
	}
}

func TestPartitionsOfATopicThatIsNotThere(t *testing.T) {
	k, c := several(t, 1, 0)
	k.Topic("letters", 0, []int32{1}, []int32{1}, []int32{1}, []int32{1}, []int32{1}, []int32{1}, []int32{1})
	if _, err := c.Partitions(t.Context(), "letters", "nothere"); !errors.Is(err, kerr.UnknownTopicOrPartition) {
		t.Errorf("%v", err)
	}
	ps, err := c.PartitionsAndMinISR(t.Context(), "letters", "letters")
	if err != nil || len(ps) != 7 || ps[6].Partition != 6 || ps[6].MinISR != 1 || !ps[6].AtMinISR() {
		t.Errorf("%+v, %v", ps, err)
	}
}

// Many empty partitions must not be all that a new broker gets: the load is where the bytes are.
func TestANewBrokerGetsItsShareOfTheBytes(t *testing.T) {
	k, c := several(t, 4, 0)
	spread := func(n int) (out [][]int32) {
		for i := range n {
			out = append(out, []int32{int32(i%3) + 1, int32(i+1)%3 + 1, int32(i+2)%3 + 1})
		}
		return out
	}
	k.Topic("__consumer_offsets", 0, spread(50)...)
	k.Topic("letters", 1000, spread(12)...)
	plan, err := c.Plan(t.Context(), admin.PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Carry(t.Context(), plan, admin.CarryOptions{Parallel: 100, Every: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	for _, b := range status(t, c).Brokers {
		if b.Size < 8000 || b.Size > 10000 || b.Partitions < 46 || b.Partitions > 47 {
			t.Errorf("broker %d has %d bytes in %d replicas", b.ID, b.Size, b.Partitions)
		}
	}
}
