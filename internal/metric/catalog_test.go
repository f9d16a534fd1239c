package metric

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func get(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	b, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, string(b)
}

func TestExposition(t *testing.T) {
	c := New()
	c.Counter("milena_things_total", "Things.", "kind", "a").Add(3)
	c.Counter("milena_things_total", "Things.", "kind", "b").Inc()
	if c.Counter("milena_things_total", "Things.", "kind", "a").Value() != 3 {
		t.Error("the same name and labels are not the same counter")
	}
	g := c.Gauge("milena_open", "Open.")
	g.Set(7)
	g.Add(-2)
	c.GaugeFunc("milena_asked", "Asked at the scrape.", func() float64 { return 1.5 })
	h := c.Histogram("milena_wait_seconds", "Waits.")
	for _, ns := range []int64{-5, 0, 1024, 1025, 1 << 30, 1 << 50} {
		h.Observe(ns)
	}
	if h.Count() != 6 || h.Sum() != 1024+1025+1<<30+1<<50 {
		t.Errorf("count %d sum %d", h.Count(), h.Sum())
	}
	code, text := get(t, c.Handler(nil), "/metrics")
	if code != 200 {
		t.Fatal(code)
	}
	for _, want := range []string{
		`milena_things_total{kind="a"} 3`, `milena_things_total{kind="b"} 1`, "milena_open 5", "milena_asked 1.5",
		`milena_wait_seconds_bucket{le="1.024e-06"} 3`, `milena_wait_seconds_bucket{le="2.048e-06"} 4`,
		`milena_wait_seconds_bucket{le="+Inf"} 6`, "milena_wait_seconds_count 6", "# HELP milena_open Open.", "go_goroutines ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in the exposition", want)
		}
	}
	c.Remove("milena_things_total", "kind", "b")
	if _, text = get(t, c.Handler(nil), "/metrics"); strings.Contains(text, `kind="b"`) {
		t.Error("a removed series is still there")
	}
	if got := strings.Join(c.Names(), " "); got != "milena_asked milena_open milena_things_total milena_wait_seconds" {
		t.Error(got)
	}
}

// TestOwnRegistry: what others (etcd) put into the process-wide registry is not published.
func TestOwnRegistry(t *testing.T) {
	foreign := prometheus.NewCounter(prometheus.CounterOpts{Name: "foreign_total"})
	if err := prometheus.Register(foreign); err != nil {
		t.Fatal(err)
	}
	defer prometheus.Unregister(foreign)
	if _, text := get(t, New().Handler(nil), "/metrics"); strings.Contains(text, "foreign_total") {
		t.Error("the default registry is published")
	}
}

func TestHealth(t *testing.T) {
	var sick error
	h := New().Handler(func() error { return sick })
	if code, text := get(t, h, "/healthz"); code != 200 || text != "ok\n" {
		t.Error(code, text)
	}
	sick = errors.New("log directory offline")
	if code, text := get(t, h, "/healthz"); code != 503 || text != "log directory offline\n" {
		t.Error(code, text)
	}
	if code, _ := get(t, h, "/"); code != 404 {
		t.Error(code)
	}
}

// TestNameOfAnotherKind: a mistake in a name must not end a broker.
func TestNameOfAnotherKind(t *testing.T) {
	c := New()
	c.Counter("milena_x", "x").Inc()
	c.Gauge("milena_x", "x").Set(9)
	if _, text := get(t, c.Handler(nil), "/metrics"); !strings.Contains(text, "milena_x 1") {
		t.Error("the first kind was replaced")
	}
}

// TestScrapeWhileCounting is for the race detector.
func TestScrapeWhileCounting(t *testing.T) {
	c := New()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 1000 {
				c.Counter("milena_n_total", "n").Inc()
				c.Histogram("milena_d_seconds", "d").Observe(int64(i) << 10)
			}
		})
	}
	for range 20 {
		get(t, c.Handler(nil), "/metrics")
	}
	wg.Wait()
	if n := c.Counter("milena_n_total", "n").Value(); n != 4000 {
		t.Error(n)
	}
}

func BenchmarkObserve(b *testing.B) {
	h := New().Histogram("milena_d_seconds", "d")
	b.ReportAllocs()
	for b.Loop() {
		h.Observe(123456)
	}
}
