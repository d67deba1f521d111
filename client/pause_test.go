package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/wire"
)

// Of the artifacts that deliverLarge delivers two fill a queue of queueOfTwo bytes, and two
// more may wait beyond that.
const queueOfTwo = 2000

func (p *peer) deliverLarge(ref uint32, from, to wire.Sequence) {
	p.t.Helper()
	for seq := from; seq <= to; seq++ {
		p.deliver(ref, "in", seq, fmt.Sprintf("%d%s", seq, strings.Repeat(" ", 800)))
	}
}

// worker is a handler that publishes something for each artifact, and then passes it on.
func worker(c *Client, handled collector) Handler {
	return func(ctx context.Context, a *wire.Artifact) error {
		if _, err := c.Publish(ctx, "out", &wire.Artifact{Payload: []byte("made")}); err != nil {
			return err
		}
		return handled.handle(ctx, a)
	}
}

// sequences returns those of the next n artifacts.
func (c collector) sequences(t *testing.T, n int) []wire.Sequence {
	t.Helper()
	all := make([]wire.Sequence, n)
	for i := range all {
		all[i] = got(t, c).Sequence
	}
	return all
}

// acknowledge answers so many publishes of handlers, and returns the frames that came
// between them.
func (p *peer) acknowledge(publishes int) (others []wire.Frame) {
	p.t.Helper()
	for publishes > 0 {
		f := p.next()
		if f.Kind() != wire.KindPublish {
			others = append(others, f)
			continue
		}
		p.ack(f, 1, 0)
		publishes--
	}
	return others
}

// crowd makes a client subscribe to the topic "in", whose handler is a worker, and
// delivers more than may wait for it. The first four artifacts are taken.
func crowd(t *testing.T, n *network) (*peer, *Subscription, collector) {
	t.Helper()
	c, p := connect(t, n, WithQueueBytes(queueOfTwo))
	handled := make(collector, 20)
	s, f := subscribe(t, c, p, "in", worker(c, handled), map[string]wire.Sequence{"in": 1}, SinceAll())
	p.deliverLarge(f.Ref(), 1, 6)
	publish := p.want(wire.KindPublish)
	if left := p.want(wire.KindUnsubscribe); left.Ref() != f.Ref() {
		t.Errorf("the client left subscription %d, want %d", left.Ref(), f.Ref())
	}
	p.deliverLarge(f.Ref(), 7, 7) // was on its way
	p.ack(publish, 1, 0)
	return p, s, handled
}

func TestHandlerPublishesWhileItsQueueIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, handled := crowd(t, newNetwork("a:1"))
		others := p.acknowledge(3)
		if len(others) != 1 || others[0].Kind() != wire.KindSubscribe {
			t.Fatalf("%d frames beside the publishes, want one that subscribes", len(others))
		}
		want := wire.Subscription{Since: wire.SinceAll, Again: true, Positions: map[string]wire.Sequence{"in": 5}}
		if diff := cmp.Diff(want, wanted(t, others[0])); diff != "" {
			t.Errorf("subscribed again with (-want +got):\n%s", diff)
		}
		confirm(p, others[0], map[string]wire.Sequence{"in": 5})
		p.deliverLarge(others[0].Ref(), 5, 8)
		p.acknowledge(4)
		if diff := cmp.Diff([]wire.Sequence{1, 2, 3, 4, 5, 6, 7, 8}, handled.sequences(t, 8)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestReaderThatWaitsForRoomGoesOnOnceAnAnswerIsWaitedFor(t *testing.T) {
	for name, call := range map[string]func(ctx context.Context, c *Client) error{
		"send": func(ctx context.Context, c *Client) error {
			return c.Send(ctx, "b", &wire.Artifact{})
		},
		"request": func(ctx context.Context, c *Client) error {
			_, err := c.Request(ctx, "b", &wire.Artifact{})
			return err
		},
		"history": func(ctx context.Context, c *Client) error {
			for _, err := range c.History(ctx, "other", Range{}) {
				return err
			}
			return nil
		},
		"subscribe": func(ctx context.Context, c *Client) error {
			_, err := c.Subscribe(ctx, "other", collector(nil).handle)
			return err
		},
		"durable": func(ctx context.Context, c *Client) error {
			_, err := c.Subscribe(ctx, "other", collector(nil).handle, Durable("d"))
			return err
		},
		"flush": func(ctx context.Context, c *Client) error { return c.Flush(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, p := connect(t, newNetwork("a:1"), WithQueueBytes(1))
				begin, called := make(chan struct{}), make(chan error, 1)
				_, f := subscribe(t, c, p, "live", func(ctx context.Context, a *wire.Artifact) error {
					if string(a.Payload) == "1" {
						<-begin
						called <- call(ctx, c)
					}
					return nil
				}, nil)
				p.deliver(f.Ref(), "live", 0, "1")
				p.deliver(f.Ref(), "live", 0, "2")
				synctest.Wait() // the reader waits for room
				close(begin)
				question := p.next()
				switch question.Kind() {
				case wire.KindSend:
					if question.Flags()&wire.FlagRequest != 0 {
						p.artifacts(wire.Header{Kind: wire.KindReply, Ref: question.Ref()}, "me", "b", "yes")
						break
					}
					p.ack(question, 0, 0)
				case wire.KindPing:
					p.control(wire.Header{Kind: wire.KindPong, Ref: question.Ref()}, nil)
				default:
					p.ack(question, 0, 0)
				}
				synctest.Wait()
				select {
				case err := <-called:
					if err != nil {
						t.Error(err)
					}
				default:
					t.Fatal("the answer has come, and the call still waits for it")
				}
			})
		})
	}
}

func TestLiveArtifactsWithoutRoomAreDroppedAndToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failures := make(chan error, 10)
		c, p := connect(t, newNetwork("a:1"), WithQueueBytes(queueOfTwo), OnError(func(err error) { failures <- err }))
		handled := make(collector, 20)
		_, f := subscribe(t, c, p, "live", worker(c, handled), nil)
		text := strings.Repeat(" ", 800)
		for i := range 7 {
			p.deliver(f.Ref(), "live", 0, fmt.Sprint(i)+text)
		}
		p.acknowledge(4)
		var dropped *DroppedError
		if err := got(t, failures); !errors.As(err, &dropped) || dropped.Artifacts != 3 || dropped.Queue != "live" {
			t.Errorf("OnError got %v, want three artifacts dropped", err)
		}
		p.deliver(f.Ref(), "live", 0, "7")
		p.acknowledge(1)
		var texts []string
		for range 5 {
			texts = append(texts, strings.TrimSpace(string(got(t, handled).Payload)))
		}
		if diff := cmp.Diff([]string{"0", "1", "2", "3", "7"}, texts); diff != "" {
			t.Error(diff)
		}
	})
}

func TestSlowSubscriptionToBothKindsOfTopicsSaysThatItMissesLiveOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failures := make(chan error, 10)
		c, p := connect(t, newNetwork("a:1"), WithQueueBytes(queueOfTwo), OnError(func(err error) { failures <- err }))
		_, f := subscribe(t, c, p, ">", worker(c, make(collector, 20)), nil)
		p.deliver(f.Ref(), "live", 0, "x")
		p.acknowledge(1)
		p.deliverLarge(f.Ref(), 1, 5)
		var dropped *DroppedError
		if err := got(t, failures); !errors.As(err, &dropped) || dropped.Artifacts != 0 || dropped.Queue != ">" {
			t.Errorf("OnError got %v, want a DroppedError of an unknown number", err)
		}
	})
}

func TestPausedSubscriptionGoesOnAfterAReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("a:1")
		p, _, handled := crowd(t, n)
		p.hangUp()
		p = n.welcome(t, "a:1")
		others := p.acknowledge(3) // and what it publishes for the fourth comes next
		if len(others) != 1 || others[0].Kind() != wire.KindSubscribe {
			t.Fatalf("%d frames beside the publishes, want one that subscribes", len(others))
		}
		if w := wanted(t, others[0]); w.Positions["in"] != 5 {
			t.Errorf("subscribed again with %+v", w)
		}
		confirm(p, others[0], map[string]wire.Sequence{"in": 5})
		p.deliverLarge(others[0].Ref(), 5, 6)
		p.acknowledge(2)
		if diff := cmp.Diff([]wire.Sequence{1, 2, 3, 4, 5, 6}, handled.sequences(t, 6)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestPausedSubscriptionCanBeEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s, _ := crowd(t, newNetwork("a:1"))
		if err := s.Unsubscribe(t.Context()); err != nil {
			t.Error(err)
		}
		<-s.Done()
		synctest.Wait()
		p.control(wire.Header{Kind: wire.KindPing, Ref: 3}, nil)
		if others := p.acknowledgeUntil(wire.KindPong); len(others) > 0 {
			t.Errorf("the client sent a frame of kind %d after it had left", others[0].Kind())
		}
	})
}

// acknowledgeUntil answers publishes until another kind comes, and returns what came
// between them.
func (p *peer) acknowledgeUntil(kind wire.Kind) (others []wire.Frame) {
	p.t.Helper()
	for {
		switch f := p.next(); f.Kind() {
		case kind:
			return others
		case wire.KindPublish:
			p.ack(f, 1, 0)
		default:
			others = append(others, f)
		}
	}
}

func TestQueueIsFullBeforeTheSubscriptionIsConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect(t, newNetwork("a:1"), WithQueueBytes(1))
		handled := make(collector, 20)
		go func() {
			if _, err := c.Subscribe(t.Context(), "in", worker(c, handled), SinceAll()); err != nil {
				t.Error(err)
			}
		}()
		f := p.want(wire.KindSubscribe)
		p.deliverLarge(f.Ref(), 1, 3)
		confirm(p, f, map[string]wire.Sequence{"in": 1})
		p.deliverLarge(f.Ref(), 4, 4)
		publish := p.want(wire.KindPublish)
		p.want(wire.KindUnsubscribe)
		p.ack(publish, 1, 0)
		others := p.acknowledge(2)
		if diff := cmp.Diff([]wire.Sequence{1, 2, 3}, handled.sequences(t, 3)); diff != "" || len(others) > 0 {
			t.Errorf("%d frames beside the publishes; handled (-want +got):\n%s", len(others), diff)
		}
		if w := wanted(t, p.want(wire.KindSubscribe)); w.Positions["in"] != 4 {
			t.Errorf("subscribed again with %+v", w)
		}
	})
}

// What the session keeps is not lost when the queue of direct artifacts is full: the node
// hears of no more room, and refuses what it can't keep.
func TestNodeKeepsWhatAFullQueueOfDirectArtifactsHolds(t *testing.T) {
	for name, kind := range map[string]wire.Flags{"plain": 0, "receipts": wire.FlagRequest | wire.FlagAck} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				handled := make(chan string, 200)
				var c *Client
				ready := make(chan struct{})
				client, p := connect(t, newNetwork("a:1"), WithQueueBytes(queueOfTwo), WithHandler(func(ctx context.Context, a *wire.Artifact) (*wire.Artifact, error) {
					<-ready
					if len(a.Payload) > 100 {
						if err := c.Send(ctx, "b", &wire.Artifact{}); err != nil {
							return nil, err
						}
					}
					handled <- strings.TrimSpace(string(a.Payload))
					return nil, nil
				}))
				c = client
				close(ready)
				send := func(text string) {
					p.artifacts(wire.Header{Kind: wire.KindSend, Ref: 1, Flags: kind | wire.FlagKept}, "me", "b", text)
				}
				large := strings.Repeat(" ", 800)
				for i := range 9 {
					send(fmt.Sprint(i) + large)
				}
				first := p.want(wire.KindSend)
				p.control(wire.Header{Kind: wire.KindPing, Ref: 3}, nil)
				p.want(wire.KindPong) // without a word of what it has
				p.ack(first, 0, wire.FlagKept)
				sends, received := 1, wire.Sequence(0)
				for received == 0 || sends < 9 {
					switch f := p.next(); f.Kind() {
					case wire.KindSend:
						sends++
						p.ack(f, 0, wire.FlagKept)
					case wire.KindReceived:
						received = f.Sequence()
						if sends < 8 {
							t.Errorf("the client says that it has %d frames when %d of 9 are handled", received, sends-1)
						}
					case wire.KindReply: // of a receipt
					default:
						t.Fatalf("the client sent a frame of kind %d", f.Kind())
					}
				}
				if received < 9 {
					t.Errorf("the client says that it has %d frames, want nine at least", received)
				}
				for i := range 9 {
					if text := got(t, handled); text != fmt.Sprint(i) {
						t.Errorf("handled %s, want %d", text, i)
					}
				}
			})
		})
	}
}

func TestSessionGoesOnWhileMoreWasSentThanMayWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("a:1")
		handled, release := make(chan string, 20), make(chan struct{})
		handler := func(_ context.Context, a *wire.Artifact) (*wire.Artifact, error) {
			<-release
			handled <- strings.TrimSpace(string(a.Payload))
			return nil, nil
		}
		c, p := connect(t, n, WithQueueBytes(queueOfTwo), WithHandler(handler))
		go func() { _, _ = c.Request(t.Context(), "b", &wire.Artifact{}) }() // from here on an answer is waited for
		p.want(wire.KindSend)
		large := strings.Repeat(" ", 800)
		send := func(from, to int) {
			for i := from; i <= to; i++ {
				p.artifacts(wire.Header{Kind: wire.KindSend, Flags: wire.FlagKept}, "me", "b", fmt.Sprint(i)+large)
			}
		}
		send(1, 2)
		p.control(wire.Header{Kind: wire.KindPing}, nil)
		if f := p.want(wire.KindReceived); f.Sequence() != 2 {
			t.Errorf("the client says that it has %d frames, want 2", f.Sequence())
		}
		p.want(wire.KindPong)
		send(3, 7)
		synctest.Wait()
		p.hangUp()
		p = n.welcome(t, "a:1", func(w *wire.Welcome) { w.Resumed = true })
		if p.hello.Received != 2 {
			t.Fatalf("the client says that it has %d frames, want 2: there is no room for those behind", p.hello.Received)
		}
		send(3, 7)
		synctest.Wait()
		close(release)
		if f := p.want(wire.KindReceived); f.Sequence() != 7 {
			t.Errorf("the client says that it has %d frames, want 7", f.Sequence())
		}
		send(8, 8)
		for i := 1; i <= 8; i++ {
			if text := got(t, handled); text != fmt.Sprint(i) {
				t.Errorf("handled %s, want %d", text, i)
			}
		}
	})
}

func TestSlowHandlerThatAsksNothingStopsTheReaderOfADurableClientToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect(t, newNetwork("a:1"), WithQueueBytes(queueOfTwo))
		subscribed := background(func() error {
			_, err := c.Subscribe(t.Context(), "jobs", collector(nil).handle, Durable("d"))
			return err
		})
		p.ack(p.want(wire.KindFetch), 0, 0)
		if err := got(t, subscribed); err != nil {
			t.Fatal(err)
		}
		p.want(wire.KindFetch) // waits for what is to come
		release := make(chan struct{})
		_, f := subscribe(t, c, p, "live", func(context.Context, *wire.Artifact) error { <-release; return nil }, nil)
		for range 2 {
			p.deliver(f.Ref(), "live", 0, strings.Repeat("x", 1000))
		}
		written := background(func() struct{} { p.deliver(f.Ref(), "live", 0, "x"); return struct{}{} })
		time.Sleep(time.Millisecond)
		select {
		case <-written:
			close(release)
			t.Fatal("the client reads on beyond its queue, and no call waits for an answer")
		default:
		}
		close(release)
		got(t, written)
	})
}
