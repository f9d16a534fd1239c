package controller

import (
	"testing"
	"time"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/meta"
)

func image(t *testing.T) *meta.Image {
	t.Helper()
	im, _, err := meta.Empty().Apply([]meta.Change{meta.PutBroker(&meta.Broker{ID: 2, Incarnation: meta.UUID{1}, Epoch: 5, Endpoints: []meta.Endpoint{{Listener: "P", Host: "h", Port: 1}}})}, 9)
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// TestAPauseOfThisProcessIsNobodysSilence moves the clock on as if the process had been stopped.
func TestAPauseOfThisProcessIsNobodysSilence(t *testing.T) {
	p, im := newPulses(config.StaticOf(map[string]string{"broker.session.timeout.ms": "600"})), image(t)
	if _, err := p.beat(im, control.Beat{ID: 2, Epoch: 5, Seen: 9, Conn: 7}); err != nil {
		t.Fatal(err)
	}
	if ds, paused := p.decide(im); len(ds) != 0 || paused {
		t.Fatalf("%v %v", ds, paused)
	}
	p.began = p.began.Add(-10 * time.Second)
	if ds, paused := p.decide(im); len(ds) != 0 || !paused {
		t.Fatalf("after ten seconds of standing still: %v, paused %v", ds, paused)
	}
	if _, paused := p.decide(im); paused {
		t.Error("the pause is said twice")
	}
	// Small steps, each seen: now the silence is the broker's.
	for range 7 {
		p.began = p.began.Add(-100 * time.Millisecond)
		p.mu.Lock()
		p.nowLocked()
		p.mu.Unlock()
	}
	ds, paused := p.decide(im)
	if len(ds) != 1 || ds[0].Verdict != control.VerdictFence || paused {
		t.Errorf("after 700 ms of silence: %v, paused %v", ds, paused)
	}
}

func TestAConnectionThatClosesWhileThisProcessStoodStill(t *testing.T) {
	p, im := newPulses(config.StaticOf(map[string]string{"broker.session.timeout.ms": "600"})), image(t)
	if _, err := p.beat(im, control.Beat{ID: 2, Epoch: 5, Seen: 9, Conn: 7}); err != nil {
		t.Fatal(err)
	}
	p.closed(8) // carried no beat
	p.closed(7)
	p.began = p.began.Add(-5 * time.Second)
	if ds, _ := p.decide(im); len(ds) != 0 {
		t.Fatalf("no time was left to come back: %v", ds)
	}
	p.began = p.began.Add(-control.ClosedMs * time.Millisecond)
	if ds, _ := p.decide(im); len(ds) != 1 || ds[0].Verdict != control.VerdictFence {
		t.Errorf("closed for %d ms: %v", control.ClosedMs, ds)
	}
}
