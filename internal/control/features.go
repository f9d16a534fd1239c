package control

import (
	"fmt"
	"maps"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/meta"
)

// FeatureUpdate is a wish to finalize another level of a feature (KIP-584, KIP-1022).
type FeatureUpdate struct {
	Name  string
	Level int16 // 0: off
	Type  UpgradeType
}

// UpgradeType says in which direction a level may move.
type UpgradeType int8

// The types of KIP-584 and KIP-778.
const (
	Upgrade         UpgradeType = 1
	SafeDowngrade   UpgradeType = 2
	UnsafeDowngrade UpgradeType = 3
)

// UpdateFeatures plans other levels of features: all of them, or none when one is refused; one error, or nil, for
// each wish. Eligible leader replicas need one min.insync.replicas for all brokers, which is written down first; and
// they are forgotten everywhere before the feature goes off, since nobody would keep them true.
func (c *Cluster) UpdateFeatures(wishes []FeatureUpdate, validateOnly bool) (Plan, []*Error) {
	errs := make([]*Error, len(wishes))
	next := maps.Clone(c.Image.Features())
	if next == nil {
		next = map[string]int16{}
	}
	seen, bad := map[string]bool{}, false
	for i, w := range wishes {
		if seen[w.Name] {
			errs[i] = refuse(kerr.InvalidRequest, "Feature %s is named twice.", clip(w.Name))
		} else {
			errs[i] = c.checkUpdate(w)
		}
		seen[w.Name] = true
		bad = bad || errs[i] != nil
		if next[w.Name] = w.Level; w.Level == 0 {
			delete(next, w.Name)
		}
	}
	if bad || validateOnly || maps.Equal(next, c.Image.Features()) {
		return Plan{}, errs
	}
	r := c.Image.Cluster()
	r.Features = next
	var p packer
	switch was, is := c.Image.Features()[FeatureELR], next[FeatureELR]; {
	case was == 0 && is > 0:
		cs, err := c.oneMinISR()
		if err != nil {
			for i := range errs {
				errs[i] = as(err)
			}
			return Plan{}, errs
		}
		p.split(cs)
	case was > 0 && is == 0:
		p.split(c.withoutELR())
	}
	p.whole([]meta.Change{meta.PutCluster(r)})
	return p.plan, errs
}

func (c *Cluster) checkUpdate(w FeatureUpdate) *Error {
	have := c.Image.Features()[w.Name]
	for _, f := range Supported() {
		if f.Name != w.Name || f.Name == FeatureFormat {
			continue
		}
		switch {
		case w.Type != Upgrade && w.Type != SafeDowngrade && w.Type != UnsafeDowngrade:
			return refuse(kerr.InvalidRequest, "There is no upgrade type %d.", w.Type)
		case w.Level < f.Min || w.Level > f.Max:
			return refuse(kerr.InvalidUpdateVersion, "Invalid update version %d for feature %s. This cluster supports versions %d to %d.", w.Level, w.Name, f.Min, f.Max)
		case w.Level < have && w.Type == Upgrade:
			return refuse(kerr.InvalidUpdateVersion, "Invalid update version %d for feature %s. Can't downgrade from %d without setting the upgrade type to either safe or unsafe downgrade.", w.Level, w.Name, have)
		case w.Level > have && w.Type != Upgrade:
			return refuse(kerr.InvalidUpdateVersion, "Invalid update version %d for feature %s. Can't downgrade from %d to a newer version.", w.Level, w.Name, have)
		case w.Name == metadataVersion && w.Level != have:
			return refuse(kerr.InvalidUpdateVersion, "Invalid update version %d for feature %s. It is %d: what is kept of the metadata has one form only.", w.Level, w.Name, have)
		case w.Name == FeatureELR && w.Level == 0 && have > 0:
			return c.checkELROff()
		}
		return nil
	}
	return refuse(kerr.InvalidUpdateVersion, "Invalid update version %d for feature %s. This cluster does not support this feature.", w.Level, clip(w.Name))
}

// checkELROff: a partition without any member in sync can be elected by its eligible replicas only.
func (c *Cluster) checkELROff() *Error {
	for _, t := range c.Image.Topics() {
		for n, p := range t.Partitions {
			if len(p.ISR) == 0 {
				return refuse(kerr.InvalidUpdateVersion, "Invalid update version 0 for feature %s. No replica of %s-%d is in sync: without the feature none of them could lead again.", FeatureELR, t.Name, n)
			}
		}
	}
	return nil
}

// oneMinISR makes min.insync.replicas the same for all brokers.
func (c *Cluster) oneMinISR() ([]meta.Change, error) {
	key := config.MinInsyncReplicas.Name
	var cs []meta.Change
	set := func(r meta.Resource, values map[string]string) error {
		ch, err := meta.PutConfig(r, values)
		cs = append(cs, ch)
		return err
	}
	all := meta.Resource{Type: meta.ResourceBroker}
	if values := cloned(c.Image.Config(all)); values[key] == "" {
		values[key] = fmt.Sprint(config.MinInsyncReplicas.Of(config.Layers{Static: c.Static}))
		if err := set(all, values); err != nil {
			return nil, err
		}
	}
	for _, name := range c.Image.Resources(meta.ResourceBroker) {
		r := meta.Resource{Type: meta.ResourceBroker, Name: name}
		values := cloned(c.Image.Config(r))
		if _, err := strconv.Atoi(name); err != nil || values[key] == "" {
			continue
		}
		delete(values, key)
		if err := set(r, values); err != nil {
			return nil, err
		}
	}
	return cs, nil
}

// withoutELR is the partitions whose eligible replicas are forgotten.
func (c *Cluster) withoutELR() []meta.Change {
	var cs []meta.Change
	for _, t := range c.Image.Topics() {
		for n, p := range t.Partitions {
			if len(p.ELR) == 0 && len(p.LastKnownELR) == 0 {
				continue
			}
			np := *p
			np.ELR, np.LastKnownELR = nil, nil
			np.PartitionEpoch++
			cs = append(cs, meta.PutPartition(t.ID, int32(n), &np))
		}
	}
	return cs
}
