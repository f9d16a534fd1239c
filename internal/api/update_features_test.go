package api

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/control"
)

func TestFeaturesMoveUpAndDownOnAskingAnyBroker(t *testing.T) {
	nodes := startAdminCluster(t, 2)
	b := nodes[1] // does not lead: the request is forwarded, and the answer comes after its own image shows it
	update := func(v int16, level int16, typ int8, down bool, names ...string) []int16 {
		t.Helper()
		req := kmsg.NewPtrUpdateFeaturesRequest()
		for _, n := range names {
			u := kmsg.NewUpdateFeaturesRequestFeatureUpdate()
			u.Feature, u.MaxVersionLevel, u.UpgradeType, u.AllowDowngrade = n, level, typ, down
			req.FeatureUpdates = append(req.FeatureUpdates, u)
		}
		resp := b.ask(req, v).(*kmsg.UpdateFeaturesResponse)
		if v >= 2 {
			return []int16{resp.ErrorCode}
		}
		return each(resp.Results, func(r kmsg.UpdateFeaturesResponseResult) int16 { return r.ErrorCode })
	}
	const elr, txn = control.FeatureELR, control.FeatureTransactions
	for v := int16(0); v <= 2; v++ {
		what := fmt.Sprintf("version %d", v)
		code(t, what+" without leave", update(v, 1, 1, false, txn)[0], kerr.InvalidUpdateVersion)
		code(t, what+" down", update(v, 1, 2, true, txn)[0], nil)
		if got := b.ctl.Image().Features()[txn]; got != 1 {
			t.Errorf("%s: level %d after the answer", what, got)
		}
		got := update(v, 2, 1, false, txn, elr) // the second has no level 2: none of them changes
		code(t, what+" one of two refused", got[len(got)-1], kerr.InvalidUpdateVersion)
		if got := b.ctl.Image().Features()[txn]; got != 1 {
			t.Errorf("%s: level %d after a refusal", what, got)
		}
		code(t, what+" up", update(v, 2, 1, true, txn)[0], nil)
		code(t, what+" nonsense", update(v, 1, 1, false, "nonsense")[0], kerr.InvalidUpdateVersion)
	}
}
