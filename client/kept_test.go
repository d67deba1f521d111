package client

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/wire"
)

var sessions = []func(*wire.Welcome){inSession}

// goLive makes the client know that the topic "live" is.
func goLive(t *testing.T, c *Client, p *peer) {
	t.Helper()
	result := publish(t, c, "live", "0")
	p.ack(p.want(wire.KindPublish), 0, wire.FlagLive)
	if r := got(t, result); r.Err != nil {
		t.Fatal(r.Err)
	}
}

func publishLive(t *testing.T, c *Client, payload string) {
	t.Helper()
	if ack, err := c.PublishAsync(t.Context(), "live", &wire.Artifact{Payload: []byte(payload)}); err != nil || ack.promise != nil {
		t.Fatalf("PublishAsync = %v, %v, want no promise of a live topic", ack, err)
	}
}

// says describes a frame of artifacts, or one of another kind.
func says(t *testing.T, f wire.Frame) string {
	t.Helper()
	if f.Count() == 0 {
		return fmt.Sprint("kind ", f.Kind())
	}
	return fmt.Sprintf("kind %d to %s: %s", f.Kind(), f.Target(), strings.Join(payloads(t, f), " "))
}

// talk makes a client say something of every kind, one frame after the other, and
// returns the frames that the node read.
func talk(t *testing.T, c *Client, p *peer) []string {
	t.Helper()
	goLive(t, c, p)
	said := []string{"kind 5 to live: 0"}
	hear := func() {
		t.Helper()
		said = append(said, says(t, p.next()))
	}
	answer := func(ref uint32, text string) {
		t.Helper()
		p.artifacts(wire.Header{Kind: wire.KindSend, Flags: wire.FlagRequest, Ref: ref}, "me", "asker", text)
		hear()
	}
	publishLive(t, c, "1")
	hear()
	answer(11, "a")
	if _, err := c.SendAsync(t.Context(), "asker", &wire.Artifact{Payload: []byte("between")}); err != nil {
		t.Fatal(err)
	}
	hear()
	answer(12, "b")
	publishLive(t, c, "2")
	hear()
	if _, err := c.PublishAsync(t.Context(), "kept", &wire.Artifact{Payload: []byte("3")}); err != nil {
		t.Fatal(err)
	}
	hear()
	publishLive(t, c, "4")
	hear()
	return said
}

func echo(_ context.Context, a *wire.Artifact) (*wire.Artifact, error) {
	return &wire.Artifact{Payload: a.Payload}, nil
}

// heardUntilPing returns what a client says before the Ping of Flush.
func heardUntilPing(t *testing.T, c *Client, p *peer) []string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	flushed := background(func() error { return c.Flush(ctx) })
	var heard []string
	for {
		f := p.next()
		if f.Kind() == wire.KindPing {
			cancel()
			got(t, flushed)
			return heard
		}
		if f.Kind() != wire.KindReceived {
			heard = append(heard, says(t, f))
		}
	}
}

func TestWhatTheNodeHasNotTakenIsSentAgain(t *testing.T) {
	for taken := 1; taken <= 8; taken++ {
		t.Run(fmt.Sprintf("behind the first %d frames", taken), func(t *testing.T) {
			n := newNetwork("a:1")
			c, p := connectAs(t, n, sessions, WithHandler(echo))
			said := talk(t, c, p)
			for range 2 { // the second time none of it was taken
				p.hangUp()
				p = n.welcome(t, "a:1", inSession, func(w *wire.Welcome) { w.Resumed, w.Received = true, uint64(taken) })
				if diff := cmp.Diff(said[taken:], heardUntilPing(t, c, p), cmp.Transformer("", func(s []string) string { return strings.Join(s, "\n") })); diff != "" {
					t.Fatalf("sent again (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestOfALostSessionOnlyWhatIsAcknowledgedIsSentAgain(t *testing.T) {
	n := newNetwork("a:1")
	c, p := connectAs(t, n, sessions, WithHandler(echo))
	talk(t, c, p)
	p.hangUp()
	p = n.welcome(t, "a:1", inSession)
	if diff := cmp.Diff([]string{"kind 5 to kept: 3"}, heardUntilPing(t, c, p)); diff != "" {
		t.Errorf("sent again (-want +got):\n%s", diff)
	}
}

func TestCloseBringsWhatTheNodeHasNotTaken(t *testing.T) {
	n := newNetwork("a:1")
	down := make(chan struct{})
	c, p := connectAs(t, n, sessions, OnDisconnect(func(error) { close(down) }))
	goLive(t, c, p)
	publishLive(t, c, "1")
	p.want(wire.KindPublish)
	p.hangUp()
	got(t, down)
	closed := background(c.Close)
	p = n.welcome(t, "a:1", inSession, func(w *wire.Welcome) { w.Resumed, w.Received = true, 1 })
	if f := p.want(wire.KindPublish); payloads(t, f)[0] != "1" {
		t.Errorf("sent %s again, want 1", payloads(t, f))
	}
	p.behave()
	if err := got(t, closed); err != nil {
		t.Error(err)
	}
}

// listener reads what a client says, and answers no Ping.
type listener struct {
	bytes atomic.Int64 // of frames of artifacts
	ping  atomic.Uint32
}

func (l *listener) listen(p *peer) {
	_ = p.conn.SetReadDeadline(time.Time{})
	for {
		f, err := p.r.Next()
		switch {
		case err != nil:
			return
		case f.Kind() == wire.KindPing:
			l.ping.Store(f.Ref())
		case f.Count() > 0:
			l.bytes.Add(int64(len(f)))
		}
	}
}

func TestWhatIsKeptIsBounded(t *testing.T) {
	for _, size := range []int{100, 60 << 10, 1 << 20} {
		t.Run(fmt.Sprintf("of artifacts of %d bytes", size), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, p := connectAs(t, newNetwork("a:1"), sessions)
				goLive(t, c, p)
				var l listener
				go l.listen(p)
				const total = 12 << 20
				published := background(func() error {
					a := &wire.Artifact{Payload: make([]byte, size)}
					for range total / size {
						if _, err := c.PublishAsync(t.Context(), "live", a); err != nil {
							return err
						}
					}
					return nil
				})
				synctest.Wait()
				if n := l.bytes.Load(); n < keptMax/2 || n > keptMax+2<<20 {
					t.Errorf("%d bytes are written that the node may not have, want about %d", n, keptMax)
				}
				for ref := l.ping.Swap(0); ref != 0; ref = l.ping.Swap(0) {
					p.control(wire.Header{Kind: wire.KindPong, Ref: ref}, nil)
					synctest.Wait()
				}
				if n := l.bytes.Load(); n < int64(total/size*size) {
					t.Errorf("%d bytes are written after the node has said what it has, want %d", n, total)
				}
				if err := got(t, published); err != nil {
					t.Error(err)
				}
				p.hangUp()
			})
		})
	}
}

func TestAHandlerPublishesMoreThanIsKeptWhileItsQueueIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const queue = 1 << 20
		c, p := connectAs(t, newNetwork("a:1"), sessions, WithQueueBytes(queue))
		goLive(t, c, p)
		once := make(chan error, 1)
		subscribed := background(func() error {
			_, err := c.Subscribe(t.Context(), "in", func(ctx context.Context, a *wire.Artifact) error {
				if string(a.Payload) != "first" {
					return nil
				}
				for range 3 * keptMax >> 10 {
					if _, err := c.PublishAsync(ctx, "live", &wire.Artifact{Payload: make([]byte, 1<<10)}); err != nil {
						once <- err
						return err
					}
				}
				once <- nil
				return nil
			})
			return err
		})
		sub := p.want(wire.KindSubscribe)
		p.control(wire.Header{Kind: wire.KindAck, Ref: sub.Ref()}, wire.Subscribed{})
		if err := got(t, subscribed); err != nil {
			t.Fatal(err)
		}
		p.deliver(sub.Ref(), "in", 0, "first")
		pongs := make(chan uint32, 100)
		go func() {
			for {
				f, err := p.r.Next()
				if err != nil {
					return
				}
				if f.Kind() == wire.KindPing {
					pongs <- f.Ref()
				}
			}
		}()
		_ = p.conn.SetReadDeadline(time.Time{})
		for range 2*queue>>16 - 1 { // its queue fills, before the node's first answer
			p.deliver(sub.Ref(), "in", 0, strings.Repeat("x", 60<<10))
		}
		for {
			select {
			case ref := <-pongs:
				p.control(wire.Header{Kind: wire.KindPong, Ref: ref}, nil)
				continue
			case err := <-once:
				if err != nil {
					t.Error(err)
				}
			}
			break
		}
		p.hangUp()
	})
}

func TestWhatTheNodeHasIsNotKeptWhileNothingIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connectAs(t, newNetwork("a:1"), sessions)
		goLive(t, c, p)
		for range 10 {
			publishLive(t, c, strings.Repeat("x", 10<<10))
			p.want(wire.KindPublish)
		}
		p.control(wire.Header{Kind: wire.KindPing, Ref: 3}, nil) // the client was silent for long
		p.want(wire.KindPong)
		ping := p.want(wire.KindPing)
		p.control(wire.Header{Kind: wire.KindPong, Ref: ping.Ref()}, nil)
		synctest.Wait()
		c.out.mu.Lock()
		defer c.out.mu.Unlock()
		if k := &c.out.kept; k.some() || k.bytes > chunkSmall {
			t.Errorf("%d bytes of memory are held of what the node has, want at most %d", k.bytes, chunkSmall)
		}
	})
}

func TestNothingIsKeptWithoutASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect(t, newNetwork("a:1"))
		goLive(t, c, p)
		for range 100 {
			publishLive(t, c, strings.Repeat("x", 60<<10))
			f := p.want(wire.KindPublish)
			if f.Count() != 1 {
				t.Fatal(says(t, f))
			}
		}
		synctest.Wait()
		c.out.mu.Lock()
		defer c.out.mu.Unlock()
		if k := &c.out.kept; k.some() || k.bytes > chunkLarge {
			t.Errorf("%d bytes of memory are held, want at most one chunk", k.bytes)
		}
	})
}
