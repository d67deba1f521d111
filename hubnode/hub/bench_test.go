package hub_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/hubnode/socket"
	"github.com/switchboardhub/switchboard/wire"
)

// feed is a publisher's connection in memory: it gives the same bytes once for
// each permit.
type feed struct {
	bytes   []byte
	rest    []byte
	permits chan struct{}
}

func newFeed(b []byte) *feed { return &feed{bytes: b, permits: make(chan struct{}, 1)} }

func (f *feed) Read(b []byte) (int, error) {
	if len(f.rest) == 0 {
		if _, ok := <-f.permits; !ok {
			return 0, io.EOF
		}
		f.rest = f.bytes
	}
	n := copy(b, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}
func (f *feed) Write(b []byte) (int, error) { return len(b), nil }
func (f *feed) Close() error                { return nil }

// sink is a subscriber's connection in memory: it counts bytes and says when
// all that were expected have come.
type sink struct {
	got    atomic.Int64
	want   atomic.Int64
	full   chan struct{}
	closed chan struct{}
	once   sync.Once
}

func newSink() *sink { return &sink{full: make(chan struct{}, 1), closed: make(chan struct{})} }

func (s *sink) Read([]byte) (int, error) {
	<-s.closed
	return 0, io.EOF
}

func (s *sink) Write(b []byte) (int, error) {
	if got := s.got.Add(int64(len(b))); got == s.want.Load() {
		s.full <- struct{}{}
	}
	return len(b), nil
}

func (s *sink) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

// path is a publisher and its receivers; step sends one burst and waits until
// all have it.
type path struct {
	hub   *hub.Hub
	feed  *feed
	sinks []*sink
	burst int64 // bytes that each receiver gets

	frames int // in a burst, once for each receiver
}

// newPath makes a publisher that sends a burst of frames, each with a run of
// artifacts, to receivers of a topic, or to one by name.
func newPath(tb testing.TB, kind wire.Kind, receivers, frames, run int, size int) *path {
	tb.Helper()
	payloads := make([]string, run)
	for i := range payloads {
		payloads[i] = strings.Repeat("x", size)
	}
	target := "bench.topic"
	if kind == wire.KindSend {
		target = "sub-0"
	}
	one := frame(kind, 0, 1, target, "pub", payloads...)
	p := &path{feed: newFeed([]byte(strings.Repeat(string(one), frames))), burst: int64(len(one) * frames), frames: frames * receivers}
	h, err := hub.New()
	if err != nil {
		tb.Fatal(err)
	}
	p.hub = h
	if err := h.RegisterClient("pub", p.feed, hub.WithoutBroadcast()); err != nil {
		tb.Fatal(err)
	}
	for i := range receivers {
		s, id := newSink(), fmt.Sprintf("sub-%d", i)
		p.sinks = append(p.sinks, s)
		if err := h.RegisterClient(id, s, hub.WithoutBroadcast()); err != nil {
			tb.Fatal(err)
		}
		if kind == wire.KindPublish {
			if err := h.Subscribe(id, "bench.>"); err != nil {
				tb.Fatal(err)
			}
		}
	}
	if err := h.Start(context.Background()); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		close(p.feed.permits)
		stop(tb, h)
	})
	return p
}

func (p *path) step() {
	for _, s := range p.sinks {
		s.want.Store(s.got.Load() + p.burst)
	}
	p.feed.permits <- struct{}{}
	for _, s := range p.sinks {
		<-s.full
	}
}

func TestDeliveringAllocatesNothing(t *testing.T) {
	for name, build := range map[string]func() *path{
		"one to one":    func() *path { return newPath(t, wire.KindPublish, 1, 100, 1, 100) },
		"one to twenty": func() *path { return newPath(t, wire.KindPublish, 20, 20, 1, 100) },
		"runs":          func() *path { return newPath(t, wire.KindPublish, 2, 100, 50, 100) },
		"larger frames": func() *path { return newPath(t, wire.KindPublish, 2, 200, 1, 6000) },
		"by name":       func() *path { return newPath(t, wire.KindSend, 1, 100, 1, 100) },
	} {
		t.Run(name, func(t *testing.T) {
			p := build()
			for range 200 {
				p.step()
			}
			perBurst := testing.AllocsPerRun(200, p.step)
			// A burst may start a writer a few times and queue in arrays that
			// grow, and pools are emptied now and then, with the race
			// detector often. What a frame allocates counts once for each.
			if perBurst >= float64(p.frames) {
				t.Errorf("%v allocations for a burst of %d frames", perBurst, p.frames)
			}
		})
	}
}

func BenchmarkRoute(b *testing.B) {
	for _, test := range []struct {
		name      string
		kind      wire.Kind
		receivers int
		run       int
	}{
		{"one-to-one", wire.KindPublish, 1, 1},
		{"one-to-one/run=50", wire.KindPublish, 1, 50},
		{"fan-out=100", wire.KindPublish, 100, 1},
		{"direct", wire.KindSend, 1, 1},
	} {
		b.Run(test.name, func(b *testing.B) {
			const frames, size = 200, 128
			p := newPath(b, test.kind, test.receivers, frames, test.run, size)
			b.SetBytes(p.burst * int64(test.receivers))
			b.ReportAllocs()
			for b.Loop() {
				p.step()
			}
			artifacts := float64(b.N) * frames * float64(test.run) * float64(test.receivers)
			b.ReportMetric(artifacts/b.Elapsed().Seconds(), "artifacts/s")
		})
	}
}

// BenchmarkPatterns is one-to-one beside patterns that do not match: they are
// resolved when they change, and cost a publisher nothing.
func BenchmarkPatterns(b *testing.B) {
	for _, patterns := range []int{0, 10, 9000} {
		b.Run(fmt.Sprintf("patterns=%d", patterns), func(b *testing.B) {
			const frames, size = 200, 128
			p := newPath(b, wire.KindPublish, 1, frames, 1, size)
			if err := p.hub.RegisterClient("bystander", newSink(), hub.WithoutBroadcast()); err != nil {
				b.Fatal(err)
			}
			for i := range patterns {
				pattern := []string{"bench.other.%d", "*.other.%d", "bench.%d.>"}[i%3]
				if err := p.hub.Subscribe("bystander", fmt.Sprintf(pattern, i)); err != nil {
					b.Fatal(err)
				}
			}
			b.SetBytes(p.burst)
			b.ReportAllocs()
			for b.Loop() {
				p.step()
			}
			b.ReportMetric(float64(b.N)*frames/b.Elapsed().Seconds(), "artifacts/s")
		})
	}
}

// BenchmarkTCP is one-to-one over loopback, sockets and all, by one pair of
// clients and by eight at a time. Its -mutexprofile shows what pairs that have
// nothing to do with each other contend for.
func BenchmarkTCP(b *testing.B) {
	const frames = 500
	for _, pairs := range []int{1, 8} {
		b.Run(fmt.Sprintf("pairs=%d", pairs), func(b *testing.B) {
			h := start(b)
			conn := func(id string, topics ...string) net.Conn {
				near, far := pair(b, "tcp")
				if err := h.RegisterClient(id, socket.Wrap(near), hub.WithoutBroadcast()); err != nil {
					b.Fatal(err)
				}
				if err := h.Subscribe(id, topics...); err != nil {
					b.Fatal(err)
				}
				return far
			}
			var each []func() error
			for i := range pairs {
				pub, topic := fmt.Sprintf("pub-%d", i), fmt.Sprintf("t.%d", i)
				from, to := conn(pub), conn(fmt.Sprintf("sub-%d", i), topic)
				burst := bytes.Repeat(frame(wire.KindPublish, 0, 1, topic, pub, strings.Repeat("x", 128)), frames)
				buf := make([]byte, 256<<10)
				each = append(each, func() error {
					if _, err := from.Write(burst); err != nil {
						return err
					}
					return readN(to, buf, len(burst))
				})
			}
			b.ReportAllocs()
			b.ResetTimer()
			var g errgroup.Group
			for _, step := range each {
				g.Go(func() error {
					for range b.N {
						if err := step(); err != nil {
							return err
						}
					}
					return nil
				})
			}
			if err := g.Wait(); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)*frames*float64(pairs)/b.Elapsed().Seconds(), "artifacts/s")
		})
	}
}

func readN(c net.Conn, buf []byte, n int) error {
	for n > 0 {
		k, err := c.Read(buf)
		if err != nil {
			return err
		}
		n -= k
	}
	return nil
}
