package metric

import (
	"math"
	"math/bits"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Catalog is one broker's set of metrics. The zero value is not usable; call New.
type Catalog struct {
	reg *prometheus.Registry
	mu  struct {
		sync.Mutex
		series map[string]series // by name and labels
	}
}

// series is one line (or one histogram) of the exposition.
type series interface {
	collect(send func(prometheus.Metric))
}

// Counter only grows. Safe for concurrent use; Add is one atomic add.
type Counter struct {
	n    atomic.Int64
	desc *prometheus.Desc
}

// Add counts n more, n at least 0.
func (c *Counter) Add(n int64) { c.n.Add(n) }

// Inc counts one more.
func (c *Counter) Inc() { c.n.Add(1) }

// Value is the count since the process started.
func (c *Counter) Value() int64 { return c.n.Load() }

func (c *Counter) collect(send func(prometheus.Metric)) {
	if m, err := prometheus.NewConstMetric(c.desc, prometheus.CounterValue, float64(c.n.Load())); err == nil {
		send(m)
	}
}

// Gauge goes up and down. Safe for concurrent use.
type Gauge struct {
	n    atomic.Int64
	desc *prometheus.Desc
}

// Add changes the gauge by n.
func (g *Gauge) Add(n int64) { g.n.Add(n) }

// Set replaces the value.
func (g *Gauge) Set(n int64) { g.n.Store(n) }

// Value is the present value.
func (g *Gauge) Value() int64 { return g.n.Load() }

func (g *Gauge) collect(send func(prometheus.Metric)) {
	if m, err := prometheus.NewConstMetric(g.desc, prometheus.GaugeValue, float64(g.n.Load())); err == nil {
		send(m)
	}
}

// gaugeFunc is read at every scrape.
type gaugeFunc struct {
	f    func() float64
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func (g *gaugeFunc) collect(send func(prometheus.Metric)) {
	if m, err := prometheus.NewConstMetric(g.desc, g.kind, g.f()); err == nil {
		send(m)
	}
}

// histBuckets is the number of doubling buckets: 2^10 ns (about 1 microsecond) to 2^36 ns (69 s).
const (
	histFirst   = 10
	histBuckets = 27
)

// Histogram counts durations in buckets that double from 1 microsecond to 69 seconds. Observe is three
// atomic adds.
type Histogram struct {
	sum    atomic.Int64
	bucket [histBuckets + 1]atomic.Int64
	desc   *prometheus.Desc
}

// Observe counts one duration in nanoseconds; a negative one (a clock that went back) counts as 0.
func (h *Histogram) Observe(ns int64) {
	ns = max(ns, 0)
	h.sum.Add(ns)
	i := 0
	if ns > 1<<histFirst {
		i = min(bits.Len64(uint64(ns-1))-histFirst, histBuckets)
	}
	h.bucket[i].Add(1)
}

// Count is the number of observations.
func (h *Histogram) Count() int64 {
	var n int64
	for i := range h.bucket {
		n += h.bucket[i].Load()
	}
	return n
}

// Sum is the sum of the observations in nanoseconds.
func (h *Histogram) Sum() int64 { return h.sum.Load() }

func (h *Histogram) collect(send func(prometheus.Metric)) {
	cum := make(map[float64]uint64, histBuckets)
	var n uint64
	for i := range histBuckets {
		n += uint64(h.bucket[i].Load())
		cum[math.Ldexp(1, histFirst+i)/1e9] = n
	}
	n += uint64(h.bucket[histBuckets].Load())
	if m, err := prometheus.NewConstHistogram(h.desc, n, float64(h.sum.Load())/1e9, cum); err == nil {
		send(m)
	}
}

// New makes an empty catalogue with the Go runtime's own figures in it.
func New() *Catalog {
	c := &Catalog{reg: prometheus.NewRegistry()}
	c.mu.series = map[string]series{}
	// Registration of a fresh registry cannot collide; an error would only lose these lines.
	_ = c.reg.Register(collectors.NewGoCollector())
	_ = c.reg.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	_ = c.reg.Register(exporter{c})
	return c
}

// Counter gives the counter of that name, made on first use. labels are pairs: name, value, name, value.
func (c *Catalog) Counter(name, help string, labels ...string) *Counter {
	return lookup(c, name, labels, func() *Counter { return &Counter{desc: describe(name, help, labels)} })
}

// Gauge gives the gauge of that name, made on first use.
func (c *Catalog) Gauge(name, help string, labels ...string) *Gauge {
	return lookup(c, name, labels, func() *Gauge { return &Gauge{desc: describe(name, help, labels)} })
}

// GaugeFunc publishes what f returns at each scrape; f must be quick and safe for concurrent use. A
// second call with the same name and labels replaces the first.
func (c *Catalog) GaugeFunc(name, help string, f func() float64, labels ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.series[seriesKey(name, labels)] = &gaugeFunc{f: f, desc: describe(name, help, labels), kind: prometheus.GaugeValue}
}

// CounterFunc is GaugeFunc for what never falls; the name ends in _total.
func (c *Catalog) CounterFunc(name, help string, f func() float64, labels ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.series[seriesKey(name, labels)] = &gaugeFunc{f: f, desc: describe(name, help, labels), kind: prometheus.CounterValue}
}

// Histogram gives the duration histogram of that name, made on first use; the name ends in _seconds.
func (c *Catalog) Histogram(name, help string, labels ...string) *Histogram {
	return lookup(c, name, labels, func() *Histogram { return &Histogram{desc: describe(name, help, labels)} })
}

// Remove forgets a series, for something that was deleted (a log directory, a topic).
func (c *Catalog) Remove(name string, labels ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.mu.series, seriesKey(name, labels))
}

// lookup finds or makes. When the name is taken by another kind, the caller gets a metric that is not
// published: a mistake of ours must not stop a broker.
func lookup[S series](c *Catalog, name string, labels []string, fresh func() S) S {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := seriesKey(name, labels)
	old, ok := c.mu.series[k]
	if ok {
		if s, same := old.(S); same {
			return s
		}
		return fresh()
	}
	s := fresh()
	c.mu.series[k] = s
	return s
}

func seriesKey(name string, labels []string) string {
	return name + "\x00" + strings.Join(labels, "\x00")
}

func describe(name, help string, labels []string) *prometheus.Desc {
	l := prometheus.Labels{}
	for i := 0; i+1 < len(labels); i += 2 {
		l[labels[i]] = labels[i+1]
	}
	return prometheus.NewDesc(name, help, nil, l)
}

// Names lists the family names in order, for documentation and tests.
func (c *Catalog) Names() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for k := range c.mu.series {
		name, _, _ := strings.Cut(k, "\x00")
		out = append(out, name)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// exporter hands the series to a scrape. It describes nothing beforehand, which the client library
// calls unchecked: series come and go with topics and directories.
type exporter struct{ c *Catalog }

func (e exporter) Describe(chan<- *prometheus.Desc) {}

func (e exporter) Collect(ch chan<- prometheus.Metric) {
	e.c.mu.Lock()
	all := make([]series, 0, len(e.c.mu.series))
	for _, s := range e.c.mu.series {
		all = append(all, s)
	}
	e.c.mu.Unlock()
	for _, s := range all {
		s.collect(func(m prometheus.Metric) { ch <- m })
	}
}

// Handler serves /metrics in Prometheus' text format and /healthz: 200 "ok" while healthy returns nil,
// else 503 and the reason. The broker binds it to loopback unless told otherwise: the numbers name topics.
func (c *Catalog) Handler(healthy func() error) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(c.reg, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if healthy != nil {
			if err := healthy(); err != nil {
				w.WriteHeader(http.StatusServiceUnavailable)
				_, _ = w.Write([]byte(err.Error() + "\n"))
				return
			}
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	return mux
}
