package server

import (
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"
)

// TestManyClientsMisbehave has clients send random requests with random waits, garbage, half frames and
// sudden ends, while others check every answer. Afterwards nothing may be left: no connection, no byte of
// the budget (the rig checks), no goroutine, and every request must have been finished once.
func TestManyClientsMisbehave(t *testing.T) {
	before := runtime.NumGoroutine()
	r := start(t, Options{MaxPipeline: 8, Grace: 50 * time.Millisecond, MemoryBudget: 1 << 20})
	r.h.file, _ = testFile(t, 100<<10)
	r.h.size = 100 << 10
	var sent, served sync.WaitGroup
	release := make(chan int32, 4096)
	served.Add(2)
	go func() { // the handler's served channel becomes a stream of releases
		defer served.Done()
		for {
			select {
			case id := <-r.h.served:
				if id&1 == 1 {
					release <- id
				}
			case <-r.s.stopping:
				close(release)
				return
			}
		}
	}()
	go func() {
		defer served.Done()
		for id := range release {
			close(r.h.gate(id))
		}
	}()
	for w := range 16 {
		sent.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			for round := range 6 {
				misbehave(t, r, rng, int32(w*1000+round*100))
			}
		})
	}
	sent.Wait()
	eventually(t, "all connections gone", func() bool { return r.s.Connections() == 0 })
	ctxless := r.s.budget.used.Load()
	if ctxless != 0 {
		t.Errorf("%d bytes of the budget are still held", ctxless)
	}
	if n := r.s.m.panics.Value(); n == 0 {
		t.Error("no panic was provoked: the test does not reach what it should")
	}
	_ = r.s.Shutdown(t.Context())
	served.Wait()
	eventually(t, "goroutines ended", func() bool { return runtime.NumGoroutine() <= before+2 })
}

// misbehave runs one connection. ids from base on are its own; odd ones are released by the test.
func misbehave(t *testing.T, r *rig, rng *rand.Rand, base int32) {
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	n := 1 + rng.IntN(30)
	var expect []int32
	end := rng.IntN(5)
	for i := range n {
		id := base + int32(2*i) + 1
		key := []int{kEcho, kEcho, kWait, kWait, kSerial, kSilent, kRaw, kFile}[rng.IntN(8)]
		if _, err := c.Write(frame(key, id, make([]byte, rng.IntN(2000)))); err != nil {
			return
		}
		if key != kSilent {
			expect = append(expect, id)
		}
	}
	switch end {
	case 0: // reads everything, in order
		for _, id := range expect {
			var head [8]byte
			if _, err := io.ReadFull(c, head[:]); err != nil {
				t.Errorf("answer %d: %v", id, err)
				return
			}
			if got := int32(binary.BigEndian.Uint32(head[4:])); got != id {
				t.Errorf("answer %d came in the place of %d", got, id)
				return
			}
			if _, err := io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(head[:]))-4); err != nil {
				t.Error(err)
				return
			}
		}
	case 1: // goes without a word
	case 2:
		_, _ = c.Write(frame(kPanic+rng.IntN(2), base+99, nil))
		_, _ = io.Copy(io.Discard, c)
	case 3:
		_, _ = c.Write([]byte{0, 1, 0, 0, 9, 9, 9}) // a frame cut off by the end of the connection
	case 4:
		_, _ = c.Write([]byte{0xff, 0xff, 0xff, 0xff})
		_, _ = io.Copy(io.Discard, c)
	}
}
