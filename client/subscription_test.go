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

// collector is a handler that passes on what it is given.
type collector chan *wire.Artifact

func (c collector) handle(_ context.Context, a *wire.Artifact) error {
	c <- a
	return nil
}

// texts returns the payloads of the next n artifacts, with their sequences.
func (c collector) texts(t *testing.T, n int) []string {
	t.Helper()
	all := make([]string, n)
	for i := range all {
		a := got(t, c)
		all[i] = fmt.Sprintf("%d:%s", a.Sequence, a.Payload)
	}
	return all
}

// subscribe subscribes and plays the node's part; it returns the frame of the
// subscription.
func subscribe(t *testing.T, c *Client, p *peer, pattern string, h Handler, positions map[string]wire.Sequence, opts ...SubscribeOption) (*Subscription, wire.Frame) {
	t.Helper()
	type result struct {
		s   *Subscription
		err error
	}
	done := background(func() result {
		s, err := c.Subscribe(t.Context(), pattern, h, opts...)
		return result{s, err}
	})
	f := p.want(wire.KindSubscribe)
	confirm(p, f, positions)
	r := got(t, done)
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.s, f
}

func confirm(p *peer, f wire.Frame, positions map[string]wire.Sequence) {
	p.t.Helper()
	p.control(wire.Header{Kind: wire.KindAck, Ref: f.Ref()}, wire.Subscribed{Positions: positions})
}

func wanted(t *testing.T, f wire.Frame) wire.Subscription {
	t.Helper()
	var s wire.Subscription
	if err := wire.DecodeControl(f, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSubscribeSaysWhereToStart(t *testing.T) {
	c, p := connect(t, newNetwork("a:1"))
	for name, test := range map[string]struct {
		opts []SubscribeOption
		want wire.Subscription
	}{
		"from now on":   {nil, wire.Subscription{}},
		"a sequence":    {[]SubscribeOption{Since(7)}, wire.Subscription{Since: wire.SinceSequence, Sequence: 7}},
		"everything":    {[]SubscribeOption{SinceAll()}, wire.Subscription{Since: wire.SinceAll}},
		"the last":      {[]SubscribeOption{SinceLast()}, wire.Subscription{Since: wire.SinceLast}},
		"an age":        {[]SubscribeOption{SinceAge(time.Minute)}, wire.Subscription{Since: wire.SinceAge, Age: time.Minute}},
		"group, filter": {[]SubscribeOption{Group("g"), Filter("true")}, wire.Subscription{Group: "g", Filter: "true"}},
	} {
		_, f := subscribe(t, c, p, "orders.>", collector(nil).handle, nil, test.opts...)
		if diff := cmp.Diff(test.want, wanted(t, f)); diff != "" || string(f.Target()) != "orders.>" || f.Ref() == 0 {
			t.Errorf("%s: target %q, ref %d, body (-want +got):\n%s", name, f.Target(), f.Ref(), diff)
		}
	}
}

func TestSubscriptionGetsWholeArtifacts(t *testing.T) {
	c, p := connect(t, newNetwork("a:1"))
	artifacts := make(collector, 10)
	_, f := subscribe(t, c, p, "orders.*", artifacts.handle, nil)

	var run wire.Run
	id := wire.ID{1}
	sent := []wire.Artifact{
		{ID: id, Time: time.Unix(5, 6), ContentType: "text/plain", Attributes: map[string]string{"k": "v"}, Payload: []byte("one")},
		{ID: id.Next(), Time: time.Unix(5, 6), Payload: []byte("two")},
	}
	for i := range sent {
		if err := run.Append(&sent[i], 1<<20); err != nil {
			t.Fatal(err)
		}
		sent[i].Topic, sent[i].From, sent[i].Sequence = "orders.new", "shop", wire.Sequence(3+i)
	}
	p.write(wire.AppendFrame(nil, wire.Header{Kind: wire.KindPublish, Count: 2, Sequence: 3, Ref: f.Ref()}, "orders.new", "shop", run.Body()))
	for _, want := range sent {
		a := got(t, artifacts)
		_ = append(a.Payload, "an append must not reach the neighbour"...)
		if diff := cmp.Diff(&want, a); diff != "" {
			t.Errorf("artifact (-want +got):\n%s", diff)
		}
	}
}

func TestSubscribeReturnsRefusalsAndRetriesWhatIsTemporary(t *testing.T) {
	c, p := connect(t, newNetwork("a:1"))
	failed := background(func() error { _, err := c.Subscribe(t.Context(), "a..b", nil); return err })
	p.refuse(p.want(wire.KindSubscribe), &wire.Error{Code: wire.CodeUnavailable, Detail: "not now"})
	p.refuse(p.want(wire.KindSubscribe), &wire.Error{Code: wire.CodeInvalidTopic, Detail: "empty token"})
	var refused *Error
	if err := got(t, failed); !errors.As(err, &refused) || refused.Code != wire.CodeInvalidTopic {
		t.Errorf("Subscribe = %v", err)
	}
}

func TestUnsubscribeEndsTheSubscription(t *testing.T) {
	c, p := connect(t, newNetwork("a:1"))
	artifacts := make(collector, 10)
	s, f := subscribe(t, c, p, "live", artifacts.handle, nil)
	done := background(func() error { return s.Unsubscribe(t.Context()) })
	u := p.want(wire.KindUnsubscribe)
	if u.Ref() != f.Ref() {
		t.Errorf("unsubscribed %d, want %d", u.Ref(), f.Ref())
	}
	p.deliver(f.Ref(), "live", 0, "late")
	p.ack(u, 0, 0)
	if err := got(t, done); err != nil {
		t.Error(err)
	}
	<-s.Done()
	if len(artifacts) > 0 || s.Err() != nil {
		t.Errorf("%d artifacts came after Unsubscribe, Err = %v", len(artifacts), s.Err())
	}
	if err := s.Unsubscribe(t.Context()); err != nil {
		t.Errorf("second Unsubscribe = %v", err)
	}
}

func TestSubscriptionResumesWithoutGapAndRepeat(t *testing.T) {
	n := newNetwork("a:1")
	c, p := connect(t, n)
	artifacts := make(collector, 20)
	_, f := subscribe(t, c, p, "orders.>", artifacts.handle, map[string]wire.Sequence{"orders.a": 3, "orders.b": 9}, Since(3))
	p.deliver(f.Ref(), "orders.a", 3, "3", "4")
	p.deliver(f.Ref(), "orders.c", 1, "1")
	if diff := cmp.Diff([]string{"3:3", "4:4", "1:1"}, artifacts.texts(t, 3)); diff != "" {
		t.Fatal(diff)
	}
	p.hangUp()

	p = n.welcome(t, "a:1")
	again := p.want(wire.KindSubscribe)
	want := wire.Subscription{Since: wire.SinceSequence, Again: true, Positions: map[string]wire.Sequence{"orders.a": 5, "orders.b": 9, "orders.c": 2}}
	if diff := cmp.Diff(want, wanted(t, again)); diff != "" || again.Ref() != f.Ref() {
		t.Errorf("resumed as %d with (-want +got):\n%s", again.Ref(), diff)
	}
	p.deliver(f.Ref(), "orders.a", 4, "4", "5", "6") // before the Ack, and with a repeat
	confirm(p, again, map[string]wire.Sequence{"orders.a": 7, "orders.b": 9, "orders.c": 2})
	p.deliver(f.Ref(), "orders.a", 5, "5", "6")
	p.deliver(f.Ref(), "orders.a", 7, "7")
	if diff := cmp.Diff([]string{"5:5", "6:6", "7:7"}, artifacts.texts(t, 3)); diff != "" {
		t.Error(diff)
	}
}

func TestHistoryThatBeganAnewIsReadFromItsStart(t *testing.T) {
	n := newNetwork("a:1")
	c, p := connect(t, n)
	artifacts := make(collector, 20)
	_, f := subscribe(t, c, p, "news", artifacts.handle, map[string]wire.Sequence{"news": 8})
	p.deliver(f.Ref(), "news", 8, "old")
	artifacts.texts(t, 1)
	p.hangUp()

	p = n.welcome(t, "a:1")
	again := p.want(wire.KindSubscribe)
	p.deliver(f.Ref(), "news", 1, "new")
	confirm(p, again, map[string]wire.Sequence{"news": 1})
	p.deliver(f.Ref(), "news", 2, "newer")
	confirm(p, again, map[string]wire.Sequence{"news": 1}) // a node may say so at any time
	p.deliver(f.Ref(), "news", 1, "newest")
	if diff := cmp.Diff([]string{"1:new", "2:newer", "1:newest"}, artifacts.texts(t, 3)); diff != "" {
		t.Error(diff)
	}
}

func TestTopicsThatAppearWhileAwayAreReadFromTheirStart(t *testing.T) {
	n := newNetwork("a:1")
	c, p := connect(t, n)
	_, f := subscribe(t, c, p, "news.>", collector(nil).handle, nil)
	p.hangUp()
	p = n.welcome(t, "a:1")
	again := p.want(wire.KindSubscribe)
	if w := wanted(t, again); again.Ref() != f.Ref() || w.Since != wire.SinceAll || w.Positions != nil {
		t.Errorf("subscribed again with %+v", w)
	}
}

func TestGroupsAreJoinedAgainWithoutPositions(t *testing.T) {
	n := newNetwork("a:1")
	c, p := connect(t, n)
	artifacts := make(collector, 20)
	_, f := subscribe(t, c, p, "jobs", artifacts.handle, nil, Group("g"))
	p.deliver(f.Ref(), "jobs", 4, "four")
	p.deliver(f.Ref(), "jobs", 2, "two") // members get whichever
	artifacts.texts(t, 2)
	p.hangUp()
	p = n.welcome(t, "a:1")
	if diff := cmp.Diff(wire.Subscription{Group: "g"}, wanted(t, p.want(wire.KindSubscribe))); diff != "" {
		t.Error(diff)
	}
}

func TestGapIsToldInOrder(t *testing.T) {
	c, p := connect(t, newNetwork("a:1"))
	events := make(chan string, 10)
	_, f := subscribe(t, c, p, "news",
		func(_ context.Context, a *wire.Artifact) error { events <- fmt.Sprint(a.Sequence); return nil }, nil,
		OnGap(func(g *HistoryGapError) { events <- fmt.Sprintf("gap %d-%d", g.From, g.To) }))
	p.deliver(f.Ref(), "news", 1, "x")
	p.write(wire.AppendGap(nil, f.Ref(), "news", 2, 6))
	p.deliver(f.Ref(), "news", 7, "y")
	for _, want := range []string{"1", "gap 2-6", "7"} {
		if have := got(t, events); have != want {
			t.Errorf("got %s, want %s", have, want)
		}
	}
}

func TestErrorsThatNobodyReturnsGoToOnError(t *testing.T) {
	failures := make(chan error, 10)
	c, p := connect(t, newNetwork("a:1"), OnError(func(err error) { failures <- err }))
	_, f := subscribe(t, c, p, "news", func(context.Context, *wire.Artifact) error { return errors.New("boom") }, nil)

	p.deliver(f.Ref(), "news", 1, "x")
	if err := got(t, failures); !strings.Contains(err.Error(), `handler of "news": boom`) {
		t.Errorf("OnError got %v", err)
	}
	p.write(wire.AppendGap(nil, f.Ref(), "news", 2, 6))
	var gap *HistoryGapError
	if err := got(t, failures); !errors.As(err, &gap) || gap.To != 6 {
		t.Errorf("OnError got %v", err)
	}
	p.write(wire.AppendFrame(nil, wire.Header{Kind: wire.KindPublish, Count: 1, Ref: f.Ref()}, "news", "x", []byte{0xff}))
	if err := got(t, failures); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("OnError got %v", err)
	}
	p.control(wire.Header{Kind: wire.KindLost, Sequence: 3}, nil)
	var dropped *DroppedError
	if err := got(t, failures); !errors.As(err, &dropped) || dropped.Artifacts != 3 {
		t.Errorf("OnError got %v", err)
	}
}

func TestSlowHandlerDelaysNobodyElse(t *testing.T) {
	c, p := connect(t, newNetwork("a:1"))
	release := make(chan struct{})
	_, slow := subscribe(t, c, p, "slow", func(context.Context, *wire.Artifact) error { <-release; return nil }, nil)
	artifacts := make(collector, 10)
	_, quick := subscribe(t, c, p, "quick", artifacts.handle, nil)
	p.deliver(slow.Ref(), "slow", 0, "1", "2")
	p.deliver(quick.Ref(), "quick", 0, "x")
	artifacts.texts(t, 1)
	close(release)
}

func TestFullQueueStopsReadingAndKeepsTheConnectionAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("a:1")
		connected := background(func() *Client {
			c, err := Connect(t.Context(), "a:1", n.option(), WithQueueBytes(1000))
			if err != nil {
				t.Error(err)
			}
			return c
		})
		p := n.welcome(t, "a:1", func(w *wire.Welcome) { w.PingInterval, w.PingTimeout = 10_000, 20_000 })
		c := <-connected
		closeAtEnd(t, c)
		release := make(chan struct{})
		artifacts := make(collector, 10)
		_, f := subscribe(t, c, p, "slow", func(ctx context.Context, a *wire.Artifact) error {
			<-release
			return artifacts.handle(ctx, a)
		}, nil)
		text := strings.Repeat("x", 600)
		p.deliver(f.Ref(), "slow", 0, text)
		p.deliver(f.Ref(), "slow", 0, text) // the reader stays with this one
		for range 4 {
			p.want(wire.KindPing) // and shows that it is alive
		}
		close(release)
		artifacts.texts(t, 2)
		p.deliver(f.Ref(), "slow", 0, "y")
		artifacts.texts(t, 1)
	})
}

func TestSubscriptionsAreRestoredInTheirOrder(t *testing.T) {
	n := newNetwork("a:1")
	c, p := connect(t, n)
	for i := range 10 {
		subscribe(t, c, p, fmt.Sprintf("t%d", i), collector(nil).handle, nil)
	}
	p.hangUp()
	p = n.welcome(t, "a:1")
	for i := range 10 {
		if f := p.want(wire.KindSubscribe); string(f.Target()) != fmt.Sprintf("t%d", i) {
			t.Errorf("subscription %d is to %s", i, f.Target())
		}
	}
}

func TestSubscribeWhileDisconnectedTakesEffectLater(t *testing.T) {
	n := newNetwork("a:1")
	lost := make(chan error, 1)
	c, p := connect(t, n, OnDisconnect(func(err error) { lost <- err }))
	p.hangUp()
	got(t, lost)
	done := background(func() error { _, err := c.Subscribe(t.Context(), "x", nil); return err })
	p = n.welcome(t, "a:1")
	confirm(p, p.want(wire.KindSubscribe), nil)
	if err := got(t, done); err != nil {
		t.Error(err)
	}
}

func TestRefusedAfterReconnectEndsTheSubscription(t *testing.T) {
	n := newNetwork("a:1")
	c, p := connect(t, n)
	s, _ := subscribe(t, c, p, "x", collector(nil).handle, nil)
	p.hangUp()
	p = n.welcome(t, "a:1")
	p.refuse(p.want(wire.KindSubscribe), &wire.Error{Code: wire.CodeOverloaded, Detail: "busy"}) // tried again
	p.refuse(p.want(wire.KindSubscribe), &wire.Error{Code: wire.CodeInvalidFilter, Detail: "no"})
	<-s.Done()
	var refused *Error
	if err := s.Err(); !errors.As(err, &refused) || refused.Code != wire.CodeInvalidFilter {
		t.Errorf("Err = %v", err)
	}
}

func TestBroadcastNeedsNoSubscription(t *testing.T) {
	artifacts := make(collector, 10)
	_, p := connect(t, newNetwork("a:1"), OnBroadcast(artifacts.handle))
	p.deliver(0, "broadcast", 0, "hear")
	p.deliver(0, "broadcast", 4, "hear")
	p.deliver(0, "broadcast", 1, "hear")
	if diff := cmp.Diff([]string{"0:hear", "4:hear", "1:hear"}, artifacts.texts(t, 3)); diff != "" {
		t.Error(diff)
	}
}

func TestSubscribeSaysThatTheClientHasEnded(t *testing.T) {
	for name, opts := range map[string][]SubscribeOption{"subscription": nil, "durable": {Durable("d")}} {
		t.Run(name, func(t *testing.T) {
			c, p := connect(t, newNetwork("a:1"))
			s, _ := subscribe(t, c, p, "one", collector(nil).handle, nil)
			ending := make(chan struct{})
			s.mu.Lock() // the client stays where it ends its subscriptions
			go func() {
				defer close(ending)
				p.control(wire.Header{Kind: wire.KindGoodbye}, wire.FaultOf(&SessionReplacedError{ID: "me"}, 0))
				p.hangUp()
			}()
			<-c.life.Done()
			_, err := c.Subscribe(t.Context(), "two", collector(nil).handle, opts...)
			s.mu.Unlock()
			if _, replaced := errors.AsType[*SessionReplacedError](err); !replaced {
				t.Errorf("Subscribe = %v, want a SessionReplacedError", err)
			}
			<-ending
		})
	}
}
