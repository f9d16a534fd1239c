package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/wire"
)

const patience = 20 * time.Second

// serve answers the Metadata requests of one connection by fn, which gets the decoded request and gives the
// bytes after the size; nil hangs up.
func serve(t *testing.T, fn func(h wire.Header, req kmsg.Request) []byte) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer nc.Close()
				for {
					var size [4]byte
					if _, err := io.ReadFull(nc, size[:]); err != nil {
						return
					}
					frame := make([]byte, binary.BigEndian.Uint32(size[:]))
					if _, err := io.ReadFull(nc, frame); err != nil {
						return
					}
					h, body, err := wire.ParseHeader(frame)
					if err != nil {
						t.Errorf("header: %v", err)
						return
					}
					req, err := wire.Decode(h, body)
					if err != nil {
						t.Errorf("decode: %v", err)
						return
					}
					out := fn(h, req)
					if out == nil {
						return
					}
					if _, err := nc.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(out))), out...)); err != nil {
						return
					}
				}
			})
		}
	})
	return l.Addr().String()
}

func metadata(topic string) *kmsg.MetadataRequest {
	r := kmsg.NewPtrMetadataRequest()
	r.SetVersion(12)
	mt := kmsg.NewMetadataRequestTopic()
	mt.Topic = &topic
	r.Topics = append(r.Topics, mt)
	return r
}

// echo answers with the topic's name as cluster id.
func echo(h wire.Header, req kmsg.Request) []byte {
	resp := req.ResponseKind().(*kmsg.MetadataResponse)
	resp.SetVersion(req.GetVersion())
	resp.ClusterID = req.(*kmsg.MetadataRequest).Topics[0].Topic
	out := binary.BigEndian.AppendUint32(nil, uint32(h.Correlation))
	return resp.AppendTo(append(out, 0))
}

func TestAnswersGoToTheirRequests(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	p := NewPool(&Dialer{ClientID: "test", Local: net.IPv4(127, 0, 0, 1)})
	defer p.Close()
	addr := serve(t, echo)
	var wg sync.WaitGroup
	for i := range 20 {
		name := string(rune('a' + i))
		wg.Go(func() {
			for range 50 {
				resp, err := p.Do(ctx, addr, metadata(name))
				if err != nil || *resp.(*kmsg.MetadataResponse).ClusterID != name {
					t.Errorf("%s: %v %v", name, resp, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := len(p.mu.conns); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestAnAnswerIsReadIntoTheBuffer(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := (&Dialer{}).Dial(ctx, serve(t, echo))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 4096)
	resp, used, err := c.Exchange(ctx, metadata("x"), buf)
	if err != nil || &used[0] != &buf[0] || *resp.(*kmsg.MetadataResponse).ClusterID != "x" {
		t.Errorf("answer %v, error %v, same buffer %v", resp, err, &used[0] == &buf[0])
	}
}

func TestAGivenUpRequestLeavesTheConnection(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	arrived, release := make(chan struct{}), make(chan struct{})
	addr := serve(t, func(h wire.Header, req kmsg.Request) []byte {
		if *req.(*kmsg.MetadataRequest).Topics[0].Topic == "slow" {
			close(arrived)
			<-release
		}
		return echo(h, req)
	})
	c, err := (&Dialer{}).Dial(ctx, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	short, give := context.WithCancel(ctx)
	go func() { <-arrived; give() }()
	if _, err := c.Do(short, metadata("slow")); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	close(release)
	if resp, err := c.Do(ctx, metadata("next")); err != nil || *resp.(*kmsg.MetadataResponse).ClusterID != "next" {
		t.Errorf("next: %v %v", resp, err)
	}
}

func TestBadAnswersEndTheConnection(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for name, fn := range map[string]func(h wire.Header, req kmsg.Request) []byte{
		"hang up":     func(wire.Header, kmsg.Request) []byte { return nil },
		"wrong id":    func(h wire.Header, req kmsg.Request) []byte { h.Correlation++; return echo(h, req) },
		"too short":   func(wire.Header, kmsg.Request) []byte { return []byte{1} },
		"header tags": func(h wire.Header, req kmsg.Request) []byte { b := echo(h, req); b[4] = 7; return b },
		"half a body": func(h wire.Header, req kmsg.Request) []byte { b := echo(h, req); return b[:len(b)/2] },
		"no body":     func(h wire.Header, req kmsg.Request) []byte { return echo(h, req)[:4] },
		"lying array size": func(h wire.Header, req kmsg.Request) []byte {
			return append(echo(h, req)[:9], 0xff, 0xff, 0xff, 0xff, 7)
		},
	} {
		c, err := (&Dialer{}).Dial(ctx, serve(t, fn))
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := c.Do(ctx, metadata("x")); err == nil {
			t.Errorf("%s: answered %v", name, resp)
		}
		select {
		case <-c.Done():
		case <-ctx.Done():
			t.Errorf("%s: the connection goes on", name)
		}
		if _, err := c.Do(ctx, metadata("x")); !errors.Is(err, ErrUnsent) {
			t.Errorf("%s: afterwards: %v", name, err)
		}
		_ = c.Close()
	}
}

func TestNobodyThereIsUnsent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	p := NewPool(&Dialer{})
	defer p.Close()
	if _, err := p.Do(context.Background(), addr, metadata("x")); !errors.Is(err, ErrUnsent) {
		t.Errorf("nobody listens: %v", err)
	}
}
