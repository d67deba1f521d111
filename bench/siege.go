package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// siegeArg makes this program hostile clients. They have a process of their own, or
// what they do to it would be measured with the ordinary clients.
const siegeArg = "hostile-clients"

// reopenTime is how long a connection that says nothing is left closed.
const reopenTime = 5 * time.Second

// siege is what hostile clients are to do.
type siege struct {
	Address   string   `json:"address"`
	What      [][]byte `json:"what"`      // malformed, in turn
	Malformed int      `json:"malformed"` // connections that say one of it
	Rate      int      `json:"rate"`      // of these in a second, where that many can be made
	HalfOpen  int      `json:"halfOpen"`  // connections that say nothing, at a time
}

// besieging is what came of the malformed connections.
type besieging struct {
	Ended int64         `json:"ended"` // by the server
	Took  time.Duration `json:"took"`
}

// lasts returns how long n connections take at a rate in a second.
func lasts(n, rate int) time.Duration {
	return time.Duration(n) * time.Second / time.Duration(rate)
}

// runSiege reads a siege, writes what came of its malformed connections when all are
// through, and holds the silent ones until there is no more to read.
func runSiege(in io.Reader, out io.Writer) error {
	var s siege
	read := json.NewDecoder(in)
	if err := read.Decode(&s); err != nil {
		return err
	}
	ctx, done := context.WithCancel(context.Background())
	defer done()
	go func() {
		_, _ = io.Copy(io.Discard, in) // until it ends
		done()
	}()
	var silent sync.WaitGroup
	for i := range s.HalfOpen {
		silent.Go(func() { s.sayNothing(ctx, time.Duration(i)*reopenTime/time.Duration(s.HalfOpen)) })
	}
	if err := json.NewEncoder(out).Encode(s.sayAll(ctx)); err != nil {
		return err
	}
	<-ctx.Done()
	silent.Wait()
	return nil
}

// sayAll makes the malformed connections.
func (s *siege) sayAll(ctx context.Context) besieging {
	var wg sync.WaitGroup
	var next, ended atomic.Int64
	start := time.Now()
	for range dialers {
		wg.Go(func() {
			for i := int(next.Add(1) - 1); i < s.Malformed && ctx.Err() == nil; i = int(next.Add(1) - 1) {
				rest(ctx, time.Until(start.Add(lasts(i, s.Rate))))
				if s.sayMalformed(ctx, s.What[i%len(s.What)]) {
					ended.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return besieging{ended.Load(), time.Since(start)}
}

// sayNothing holds a connection open, and opens the next one when the server ends it.
func (s *siege) sayNothing(ctx context.Context, first time.Duration) {
	rest(ctx, first)
	for ctx.Err() == nil {
		if c, err := new(net.Dialer).DialContext(ctx, "tcp", s.Address); err == nil {
			stop := context.AfterFunc(ctx, func() { _ = c.Close() })
			_, _ = io.Copy(io.Discard, c) // until it ends
			stop()
			abandon(c)
		}
		rest(ctx, reopenTime)
	}
}

// sayMalformed reports whether the server ended the connection.
func (s *siege) sayMalformed(ctx context.Context, what []byte) bool {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", s.Address)
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
