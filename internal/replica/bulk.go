package replica

import (
	"time"

	"github.com/milena-mq/milena/internal/partition"
)

// The sizes of a fetcher whose partitions are far behind. They share one answer, so that none of the others has to wait
// until it is its turn: a partition that has just caught up holds up producers.
const (
	bulkBytes = 2 << 20  // of one answer
	leastBulk = 64 << 10 // of one partition in it
	leastSync = 1 << 20  // bytes of one sync
	mostSync  = 32 << 20
	syncWish  = 12 * time.Millisecond
)

// pace says how much a broker far behind writes between two syncs. The disk belongs to others, too: their syncs, and
// those of the leaders here, wait until ours is through, so that it shall take no longer than syncWish. But where a sync takes
// long whatever is in it, because the disk is slow or busy, a small one would only waste its time: then it may take twice
// what one of little does.
type pace struct {
	size  int64
	short time.Duration // of the last sync of little
	n     int
	done  chan synced
}

// synced is a sync that has ended.
type synced struct {
	bytes int64
	took  time.Duration
}

// probeEvery is how often a sync of little shows what the disk needs for any.
const probeEvery = 32

func (p *pace) chunk() int64 {
	if p.n%probeEvery == 0 {
		return leastSync
	}
	return max(p.size, leastSync)
}

func (p *pace) took(s synced) {
	p.n++
	if s.bytes <= 2*leastSync {
		p.short = s.took
	}
	if p.size = max(p.size, leastSync); s.took <= max(syncWish, 2*p.short) {
		p.size = min(p.size*5/4, mostSync)
	} else {
		p.size = max(p.size*4/5, leastSync)
	}
}

// syncBulk has what partitions far behind have got synced, while the next answer comes and is appended: network and disk
// work at the same time. There is never more than one such sync.
func (f *fetcher) syncBulk() {
	chunk := f.pace.chunk()
	if f.unsynced < chunk {
		return
	}
	if f.pace.done != nil {
		if f.unsynced < 2*chunk {
			select {
			case x := <-f.pace.done:
				f.pace.took(x)
			default:
				return // the disk is at work; more may come meanwhile
			}
		} else {
			f.pace.took(<-f.pace.done)
		}
	}
	list := make([]*partition.Follower, 0, len(f.bulk))
	for _, p := range f.bulk {
		if f.parts[p.key] == p {
			list = append(list, p.f)
		}
	}
	n := f.unsynced
	clear(f.bulk)
	f.bulk, f.unsynced = f.bulk[:0], 0
	done := make(chan synced, 1)
	f.pace.done = done
	f.m.wg.Go(func() {
		began := f.m.o.Clock()
		f.m.o.Set.Sync(list)
		done <- synced{n, f.m.o.Clock().Sub(began)}
	})
}
