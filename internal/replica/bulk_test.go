package replica

import (
	"testing"
	"time"
)

// TestPaceOfSyncs: on a quick disk a sync takes what others can wait for; where every sync is slow it is not made slower
// by doing little at a time.
func TestPaceOfSyncs(t *testing.T) {
	for _, c := range []struct {
		name        string
		fixed       time.Duration // of any sync
		perSecond   float64       // bytes
		least, most time.Duration
		speed       float64 // share of the disk's
	}{
		{"quick disk", time.Millisecond, 2e9, 5 * time.Millisecond, 25 * time.Millisecond, 0.8},
		{"ordinary disk", 2 * time.Millisecond, 200e6, 5 * time.Millisecond, 25 * time.Millisecond, 0.7},
		{"busy disk", 60 * time.Millisecond, 200e6, 60 * time.Millisecond, 160 * time.Millisecond, 0.4},
	} {
		var p pace
		var d, all time.Duration
		bytes := int64(0)
		for i := range 319 {
			n := p.chunk()
			d = c.fixed + time.Duration(float64(n)/c.perSecond*1e9)
			p.took(synced{n, d})
			if i > 100 {
				bytes, all = bytes+n, all+d
			}
		}
		if d < c.least || d > c.most {
			t.Errorf("%s: syncs of %d bytes take %v, want %v to %v", c.name, p.chunk(), d, c.least, c.most)
		}
		if got := float64(bytes) / all.Seconds() / c.perSecond; got < c.speed {
			t.Errorf("%s: %.0f %% of the disk", c.name, 100*got)
		}
	}
}
