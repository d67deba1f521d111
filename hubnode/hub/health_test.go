package hub_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/wire"
)

// health runs a client against a hub with fake time and returns when it was
// removed, or 0 when it is there after limit.
func health(t *testing.T, check hub.HealthCheck, serve func(ctx context.Context, far net.Conn), limit time.Duration) (removed time.Duration, reason error) {
	t.Helper()
	h, err := hub.New(hub.WithSettings(hub.Settings{HealthCheck: check}))
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	hubs, far := net.Pipe()
	if err := h.RegisterClient("a", hubs); err != nil {
		t.Fatal(err)
	}
	c, _ := h.Client("a")
	ctx, cancel := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	serving.Go(func() { serve(ctx, far) })
	begun := time.Now()
	select {
	case <-c.Done():
		removed, reason = time.Since(begun), c.Reason()
	case <-time.After(limit):
	}
	cancel()
	_ = far.Close()
	serving.Wait()
	if err := h.Stop(t.Context()); err != nil {
		t.Errorf("Stop = %v", err)
	}
	return removed, reason
}

func readAll(ctx context.Context, far net.Conn, found func(wire.Frame)) {
	r := wire.NewReader(far, 1<<20)
	defer r.Close()
	for ctx.Err() == nil {
		f, err := r.Next()
		if err != nil {
			return
		}
		found(f)
	}
}

func TestHealthCheckRemovesASilentClient(t *testing.T) {
	for _, check := range []hub.HealthCheck{
		{Interval: 10 * time.Second, Timeout: 5 * time.Second, Failures: 3},
		{Interval: 10 * time.Second, Failures: 1},
		{Interval: time.Second, Timeout: 3 * time.Second, Failures: 2},
	} {
		t.Run(fmt.Sprint(check), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pings := 0
				removed, reason := health(t, check, func(ctx context.Context, far net.Conn) {
					readAll(ctx, far, func(f wire.Frame) {
						if f.Kind() == wire.KindPing {
							pings++
						}
					})
				}, time.Hour)
				timeout := check.Timeout
				if timeout == 0 {
					timeout = check.Interval / 2
				}
				latest := check.Interval + timeout*time.Duration(check.Failures)
				if removed == 0 || removed > latest || removed < latest/2 {
					t.Errorf("removed after %v, want at most %v", removed, latest)
				}
				if pings != check.Failures {
					t.Errorf("%d pings, want %d", pings, check.Failures)
				}
				if fault := wire.FaultOf(reason, 0); fault.Code != wire.CodeUnhealthy {
					t.Errorf("removed for %v", reason)
				}
			})
		})
	}
}

func TestHealthCheckLeavesLivingClientsAlone(t *testing.T) {
	check := hub.HealthCheck{Interval: 10 * time.Second, Timeout: 5 * time.Second, Failures: 2}
	for name, serve := range map[string]func(context.Context, net.Conn){
		"that answer": func(ctx context.Context, far net.Conn) {
			readAll(ctx, far, func(f wire.Frame) {
				if f.Kind() == wire.KindPing {
					time.Sleep(4 * time.Second) // late, and in time
					_, _ = far.Write(control(wire.KindPong, f.Ref(), "", nil))
				}
			})
		},
		"that say anything": func(ctx context.Context, far net.Conn) {
			var reading sync.WaitGroup
			reading.Go(func() { readAll(ctx, far, func(wire.Frame) {}) })
			for ctx.Err() == nil {
				_, _ = far.Write(frame(wire.KindPublish, 0, 1, "t", "a", "x"))
				time.Sleep(12 * time.Second)
			}
			reading.Wait()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if removed, reason := health(t, check, serve, time.Hour); removed != 0 {
					t.Errorf("removed after %v: %v", removed, reason)
				}
			})
		})
	}
}

func TestHealthCheckCanBeSwitchedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, err := hub.New()
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		hubs, far := net.Pipe()
		if err := h.RegisterClient("a", hubs); err != nil {
			t.Fatal(err)
		}
		c, _ := h.Client("a")
		time.Sleep(time.Minute)
		if err := h.Configure(hub.Settings{HealthCheck: hub.HealthCheck{Interval: time.Second, Failures: 1}}); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		<-c.Done()
		if removed := time.Since(begun); removed > 2*time.Second {
			t.Errorf("removed after %v, want within two seconds", removed)
		}
		_ = far.Close()
		_ = h.Stop(t.Context())
	})
}

// A connection that fell silent, whenever that was, and one that delivers a
// frame byte by byte are given up in time.
func TestHealthCheckNoticesAHalfOpenConnectionInTime(t *testing.T) {
	check := hub.HealthCheck{Interval: 10 * time.Second, Timeout: 5 * time.Second, Failures: 3}
	const bound = 25 * time.Second
	f := frame(wire.KindPublish, 0, 1, "t", "a", strings.Repeat("x", 1000))
	for name, serve := range map[string]func(context.Context, net.Conn){
		"that does nothing more": func(ctx context.Context, _ net.Conn) { <-ctx.Done() },
		"that only reads": func(ctx context.Context, far net.Conn) {
			readAll(ctx, far, func(wire.Frame) {})
		},
		"that sends a byte a second": func(ctx context.Context, far net.Conn) {
			for i := 0; ctx.Err() == nil && i < len(f); i++ {
				_, _ = far.Write(f[i : i+1])
				time.Sleep(time.Second)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			for range 20 {
				synctest.Test(t, func(t *testing.T) {
					begun, talk := time.Now(), rand.N(time.Minute)
					last := begun
					removed, reason := health(t, check, func(ctx context.Context, far net.Conn) {
						for time.Since(begun) < talk {
							time.Sleep(rand.N(8 * time.Second))
							last = time.Now()
							_, _ = far.Write(f)
						}
						serve(ctx, far)
					}, time.Hour)
					if silent := begun.Add(removed).Sub(last); removed == 0 || silent > bound {
						t.Errorf("given up after %v of silence for %v, want at most %v", silent, reason, bound)
					}
				})
			}
		})
	}
}

// parrot is the hub's end of a connection whose client answers every ping at
// once, and says nothing else.
type parrot struct {
	pinged  func()
	answers chan []byte
	closed  chan struct{}
	once    sync.Once
}

func (p *parrot) Read(b []byte) (int, error) {
	select {
	case answer := <-p.answers:
		return copy(b, answer), nil
	case <-p.closed:
		return 0, net.ErrClosed
	}
}

func (p *parrot) Write(b []byte) (int, error) {
	if f, err := wire.ParseFrame(b); err == nil && f.Kind() == wire.KindPing {
		p.pinged()
		p.answers <- control(wire.KindPong, f.Ref(), "", nil)
	}
	return len(b), nil
}

func (p *parrot) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

// However many clients came at once: there are as many moments of pinging as
// the hub's one timer fires, and no moment at which all are pinged.
func TestPingsAreSpread(t *testing.T) {
	const clients, interval, rounds = 10_000, 10 * time.Second, 5
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // guards pings
		pings := make(map[time.Time]int)
		pinged := func() {
			mu.Lock()
			defer mu.Unlock()
			pings[time.Now()]++
		}
		h, err := hub.New(hub.WithHealthCheck(interval, 3))
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i := range clients {
			conn := &parrot{pinged: pinged, answers: make(chan []byte, 2), closed: make(chan struct{})}
			conn.answers <- control(wire.KindPong, 0, "", nil) // all say something at once
			if err := h.RegisterClient(fmt.Sprint("c", i), conn); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(rounds * interval)
		synctest.Wait()
		if err := h.Stop(t.Context()); err != nil {
			t.Errorf("Stop = %v", err)
		}
		total, most := 0, 0
		for _, n := range pings {
			total += n
			most = max(most, n)
		}
		ticks := int(rounds * interval / (500 * time.Millisecond))
		if len(pings) > ticks || most > clients/3 {
			t.Errorf("%d pings at %d moments, %d at most; want at most %d moments and %d pings", total, len(pings), most, ticks, clients/3)
		}
		if total < clients*(rounds-2) || total > clients*(rounds+5) {
			t.Errorf("%d pings in %d intervals to %d clients", total, rounds, clients)
		}
	})
}
