package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	hostileAll   = 1_000_000 // connections that say something malformed
	hostileMin   = 120_000
	halfOpenAll  = 10_000 // connections that say nothing
	reopenTime   = 5 * time.Second
	ordinaryRate = 2000 // messages in a second
	ordinaryTime = 5 * time.Second
	watchTime    = 20 * time.Millisecond
)

// assault is what hostile clients do.
type assault struct {
	malformed int // connections that say something malformed
	rate      int // of these in a second, where that many can be made
	halfOpen  int // connections that say nothing, at a time
}

// due returns when the malformed connection of a number is made.
func (a assault) due(i int) time.Duration {
	return time.Duration(i) * time.Second / time.Duration(a.rate)
}

// assaulted is a scenario of ordinary clients beside hostile ones.
func assaulted(name string, a assault) scenario {
	return scenario{name: name, servers: 1, versus: natsName, time: 10 * time.Minute, run: func(ctx context.Context, s system, scale float64) (result, error) {
		return beset(ctx, s, assault{scaled(a.malformed, scale), a.rate, scaled(a.halfOpen, scale)}, lasting(ordinaryTime, scale))
	}}
}

// besieged is a system that can be told what is malformed in its protocol.
type besieged interface {
	system
	address() string
	malformed(i int) []byte // the connection that says it has to end
}

func (f *fleet) address() string { return f.clients[0] }

func (s *switchboard) malformed(i int) []byte {
	all := []string{
		"GET / HTTP/1.1\r\nHost: hub\r\n\r\n", // as a length, it is too large
		"\x00\x00\x00\x14\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff",   // a target longer than the frame
		"\x00\x00\x00\x16\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00{}", // Hello without an id
		"\x00\x00\x00\x14\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",   // Publish before Hello
	}
	return []byte(all[i%len(all)])
}

func (s *natsServer) malformed(i int) []byte {
	all := []string{"GET / HTTP/1.1\r\nHost: hub\r\n\r\n", "CONNECT {\r\n", "\xff\xff\xff\xff\r\n", "HOSTILE\r\n"}
	return []byte(all[i%len(all)])
}

// beset measures how long ordinary messages take, and how much memory the servers need,
// without hostile clients and beside them.
func beset(ctx context.Context, s system, a assault, calm time.Duration) (result, error) {
	b, ok := s.(besieged)
	if !ok || s.name() != ours && s.name() != natsName { // the same servers with other clients
		return result{}, errCannot
	}
	r, err := openLoop(ctx, s, 0, 128, ordinaryRate, calm)
	if err != nil {
		return r, err
	}
	before, err := memoryOf(s)
	if err != nil {
		return r, err
	}
	siege := besiege(ctx, b, a)
	defer siege.end()
	peak := siege.watchMemory(s)
	beside, err := openLoop(ctx, s, 0, 128, ordinaryRate, siege.lasts)
	if err != nil {
		return beside, err
	}
	ended := siege.end()
	result := result{wrong: beside.wrong, metrics: map[string]float64{
		p99: beside.metrics[p99], calmP99: r.metrics[p99],
		peakMiB: float64(peak()) / (1 << 20), calmMiB: float64(before) / (1 << 20),
	}}
	if ended < int64(a.malformed) {
		result.wrong = fmt.Sprintf("%d of %d malformed connections were ended", ended, a.malformed)
	}
	return result, nil
}

// siege is hostile clients at work.
type siege struct {
	lasts time.Duration // about
	ended atomic.Int64  // malformed connections
	done  context.CancelFunc
	wg    sync.WaitGroup
	ctx   context.Context //nolint:containedctx // of what the siege started, which end waits for
	sent  sync.WaitGroup  // the malformed ones
}

func besiege(ctx context.Context, b besieged, a assault) *siege {
	s := &siege{lasts: a.due(a.malformed)}
	s.ctx, s.done = context.WithCancel(ctx)
	for i := range a.halfOpen {
		s.wg.Go(func() { s.sayNothing(b.address(), time.Duration(i)*reopenTime/time.Duration(a.halfOpen)) })
	}
	var next atomic.Int64
	start := time.Now()
	for range dialers {
		s.sent.Go(func() {
			for i := next.Add(1) - 1; i < int64(a.malformed) && s.ctx.Err() == nil; i = next.Add(1) - 1 {
				rest(s.ctx, time.Until(start.Add(a.due(int(i)))))
				if s.sayMalformed(b.address(), b.malformed(int(i))) {
					s.ended.Add(1)
				}
			}
		})
	}
	return s
}

// end returns how many malformed connections the servers ended, when all are through.
func (s *siege) end() int64 {
	s.sent.Wait()
	s.done()
	s.wg.Wait()
	return s.ended.Load()
}

// watchMemory returns what tells the most that the servers needed so far.
func (s *siege) watchMemory(of system) (peak func() int64) {
	var most atomic.Int64
	s.wg.Go(func() {
		for s.ctx.Err() == nil {
			if now, err := memoryOf(of); err == nil && now > most.Load() {
				most.Store(now)
			}
			rest(s.ctx, watchTime)
		}
	})
	return most.Load
}

// sayNothing holds a connection open, and opens the next one when the server ends it.
func (s *siege) sayNothing(address string, first time.Duration) {
	rest(s.ctx, first)
	for s.ctx.Err() == nil {
		if c, err := new(net.Dialer).DialContext(s.ctx, "tcp", address); err == nil {
			stop := context.AfterFunc(s.ctx, func() { _ = c.Close() })
			_, _ = io.Copy(io.Discard, c) // until it ends
			stop()
			abandon(c)
		}
		rest(s.ctx, reopenTime)
	}
}

// sayMalformed reports whether the server ended the connection.
func (s *siege) sayMalformed(address string, what []byte) bool {
	c, err := new(net.Dialer).DialContext(s.ctx, "tcp", address)
	if err != nil {
		return false
	}
	defer abandon(c)
	_ = c.SetDeadline(time.Now().Add(settleTime)) // it is read below
	if _, err := c.Write(what); err != nil {
		return true // it was crowded out
	}
	_, err = io.Copy(io.Discard, c)
	timeout, ok := err.(net.Error) //nolint:errorlint // as net returns it
	return !ok || !timeout.Timeout()
}

// abandon closes a connection so that its port is free at once.
func abandon(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // it is closed either way
	}
	_ = c.Close() // nothing more is wanted of it
}

func rest(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
