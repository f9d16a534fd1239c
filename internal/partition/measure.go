package partition

import "github.com/milena-mq/milena/internal/metric"

// Counts says how the replicas here are.
type Counts struct {
	Replicas        int // hosted here
	Leaders         int // led here
	UnderReplicated int // led here, with replicas that are not in sync
	UnderMinISR     int // led here, with too few in sync for acks=all
	AtMinISR        int // led here, with just enough
	OfflineDirs     int // log directories
}

// Counts counts, in one pass.
func (s *Set) Counts() Counts {
	var c Counts
	for _, p := range s.all() {
		c.Replicas++
		p.mu.Lock()
		if l := p.mu.leader; l != nil && p.mu.gone == nil {
			to := l.Assignment()
			c.Leaders++
			if len(to.ISR) < len(to.Replicas) {
				c.UnderReplicated++
			}
			switch n := l.MinISR(); {
			case len(to.ISR) < n:
				c.UnderMinISR++
			case len(to.ISR) == n:
				c.AtMinISR++
			}
		}
		p.mu.Unlock()
	}
	c.OfflineDirs = len(s.o.Offline) + len(s.LostDirs())
	return c
}

// Measure publishes the counts, under the meanings of Kafka's ReplicaManager metrics.
func (s *Set) Measure(m *metric.Catalog) {
	for _, g := range []struct {
		name, help string
		of         func(Counts) int
	}{
		{"milena_replicas", "Replicas on this broker.", func(c Counts) int { return c.Replicas }},
		{"milena_leaders", "Partitions that this broker leads.", func(c Counts) int { return c.Leaders }},
		{"milena_under_replicated_partitions", "Partitions led here with replicas that are not in sync.", func(c Counts) int { return c.UnderReplicated }},
		{"milena_under_min_isr_partitions", "Partitions led here with too few replicas in sync for acks=all.", func(c Counts) int { return c.UnderMinISR }},
		{"milena_at_min_isr_partitions", "Partitions led here with just enough replicas in sync for acks=all.", func(c Counts) int { return c.AtMinISR }},
		{"milena_offline_log_directories", "Log directories that failed or could not be opened.", func(c Counts) int { return c.OfflineDirs }},
	} {
		m.GaugeFunc(g.name, g.help, func() float64 { return float64(g.of(s.Counts())) })
	}
	m.CounterFunc("milena_isr_shrinks_total", "Proposals of leaders here to take replicas out of an in-sync set.", func() float64 { return float64(s.props.shrinks.Load()) })
	m.CounterFunc("milena_isr_expands_total", "Proposals of leaders here to take replicas into an in-sync set.", func() float64 { return float64(s.props.expands.Load()) })
}
