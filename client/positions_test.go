package client

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/wire"
)

// current makes a node one that takes a Subscribe in several frames.
func current(w *wire.Welcome) { w.MaxSubscribe = 1 << 20 }

// small makes a node one whose frames are small.
func small(w *wire.Welcome) { w.MaxFrame = 1 << 10 }

func manyTopics(n int) map[string]wire.Sequence {
	all := make(map[string]wire.Sequence, n)
	for i := range n {
		all[fmt.Sprintf("orders.%d.<&>\"%s", i, strings.Repeat("é", i%20))] = wire.Sequence(i + 1)
	}
	return all
}

// wholeSubscribe returns a Subscribe that comes in as many frames as it takes, none of which
// is larger than the node takes.
func (p *peer) wholeSubscribe(most int) (f wire.Frame, whole wire.Subscription, frames int) {
	p.t.Helper()
	positions := make(map[string]wire.Sequence)
	for ref := uint32(0); ; {
		f = p.want(wire.KindSubscribe)
		whole = wanted(p.t, f)
		frames++
		if len(f) > most || ref != 0 && f.Ref() != ref {
			p.t.Fatalf("a frame of %d bytes under %d, want at most %d under %d", len(f), f.Ref(), most, ref)
		}
		ref = f.Ref()
		maps.Copy(positions, whole.Positions)
		if !whole.More {
			whole.Positions = positions
			return f, whole, frames
		}
	}
}

func TestPatternWithManyTopicsComesBack(t *testing.T) {
	for name, back := range map[string]func(t *testing.T, n *network, p *peer, f wire.Frame) (next *peer, ref uint32){
		"after a reconnect": func(t *testing.T, n *network, p *peer, f wire.Frame) (*peer, uint32) {
			t.Helper()
			p.hangUp()
			return n.welcome(t, "a:1", current, small), f.Ref()
		},
		"after a temporary refusal": func(t *testing.T, n *network, p *peer, f wire.Frame) (*peer, uint32) {
			t.Helper()
			p.hangUp()
			p = n.welcome(t, "a:1", current, small)
			again, _, _ := p.wholeSubscribe(1 << 10)
			p.refuse(again, &wire.Error{Code: wire.CodeOverloaded, Detail: "busy"})
			return p, f.Ref()
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork("a:1")
			c, p := connect(t, n)
			topics := manyTopics(500)
			artifacts := make(collector, 10)
			_, f := subscribe(t, c, p, "orders.>", artifacts.handle, topics, Filter("true"))
			p, ref := back(t, n, p, f)
			again, want, frames := p.wholeSubscribe(1 << 10)
			if diff := cmp.Diff(wire.Subscription{Filter: "true", Again: true, Positions: topics}, want); diff != "" || again.Ref() != ref {
				t.Errorf("subscribed again as %d, want %d; (-want +got):\n%s", again.Ref(), ref, diff)
			}
			if frames < 10 {
				t.Errorf("in %d frames", frames)
			}
			confirm(p, again, topics)
			p.deliver(ref, "orders.new", 1, "x")
			artifacts.texts(t, 1)
		})
	}
}

// A node that can't be told of a subscription is not told, and the others go on.
func TestSubscriptionThatIsTooLargeForTheNodeEnds(t *testing.T) {
	for name, change := range map[string]func(*wire.Welcome){
		"a node of an earlier version":       func(*wire.Welcome) {},
		"more than the node takes in frames": func(w *wire.Welcome) { w.MaxSubscribe = 10_000 },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork("a:1")
			failures := make(chan error, 10)
			c, p := connect(t, n, OnError(func(err error) { failures <- err }))
			large, _ := subscribe(t, c, p, "orders.>", collector(nil).handle, manyTopics(500))
			_, f := subscribe(t, c, p, "news", collector(nil).handle, nil)
			p.hangUp()
			p = n.welcome(t, "a:1", small, change)
			if again := p.want(wire.KindSubscribe); again.Ref() != f.Ref() {
				t.Errorf("subscribed to %q again", again.Target())
			}
			<-large.Done()
			var refused *Error
			if err := large.Err(); !errors.As(err, &refused) || refused.Code != wire.CodeFrameTooLarge || !strings.Contains(err.Error(), "500 topics") {
				t.Errorf("Err = %v", err)
			}
			if err := got(t, failures); !strings.Contains(err.Error(), `subscribe to "orders.>" again`) {
				t.Errorf("OnError got %v", err)
			}
		})
	}
}

func TestSubscribeSaysThatAFilterIsTooLarge(t *testing.T) {
	c, p := connect(t, newNetwork("a:1"))
	_, err := c.Subscribe(t.Context(), "news", collector(nil).handle, Filter(strings.Repeat("x", 2<<20)))
	var refused *Error
	if !errors.As(err, &refused) || refused.Code != wire.CodeFrameTooLarge {
		t.Errorf("Subscribe = %v", err)
	}
	subscribe(t, c, p, "news", collector(nil).handle, nil) // the connection goes on
}

func TestPositionsAreBounded(t *testing.T) {
	all := positions{in: make(map[string]*position)}
	n := 0
	for ; all.add(fmt.Sprint("topic ", n), 1) != nil; n++ {
		if n > wire.MaxSubscribe/wire.PositionOverhead {
			t.Fatalf("%d topics have room", n)
		}
	}
	if !all.lost || all.size > wire.MaxSubscribe || len(all.in) != n {
		t.Fatalf("%d positions of %d bytes, lost: %v", len(all.in), all.size, all.lost)
	}
	s := &Subscription{pattern: ">", next: all, known: true, id: 1}
	var refused *Error
	if _, err := s.resume(&wire.Welcome{MaxFrame: 1 << 30, MaxSubscribe: 1 << 30}); !errors.As(err, &refused) || refused.Code != wire.CodeFrameTooLarge {
		t.Errorf("resume = %v", err)
	}
}

// What the hub lists no more is forgotten, once there is much of it and the hub could list all.
func TestPositionsOfTopicsThatAreGoneAreForgotten(t *testing.T) {
	many := make(map[string]wire.Sequence)
	for i := range pruneFrom / (wire.PositionOverhead + len("gone.12345")) {
		many[fmt.Sprintf("gone.%d", 10_000+i)] = 7
	}
	for name, test := range map[string]struct {
		gone map[string]wire.Sequence
		node wire.Welcome
		ack  wire.Subscribed
		kept bool
	}{
		"all of many topics are gone":   {many, wire.Welcome{MaxSubscribe: 1}, wire.Subscribed{}, false},
		"few":                           {map[string]wire.Sequence{"gone.1": 7}, wire.Welcome{MaxSubscribe: 1}, wire.Subscribed{}, true},
		"not every leader was asked":    {many, wire.Welcome{MaxSubscribe: 1}, wire.Subscribed{Incomplete: true}, true},
		"nobody knows whether they are": {many, wire.Welcome{}, wire.Subscribed{}, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := &Subscription{pattern: ">", next: positions{in: make(map[string]*position)}, known: true, id: 1}
			s.next.add("there", 3)
			for topic, next := range test.gone {
				s.next.add(topic, next)
			}
			s.wantLocked(&test.node)
			s.next.add("fresh", 2) // heard of before the answer
			test.ack.Positions = map[string]wire.Sequence{"there": 3}
			s.confirmLocked(&test.ack, &test.node)
			want := 2
			if test.kept {
				want += len(test.gone)
			}
			size := 0
			for topic := range s.next.in {
				size += len(topic) + wire.PositionOverhead
			}
			if len(s.next.in) != want || s.next.in["there"] == nil || s.next.in["fresh"] == nil || s.next.size != size {
				t.Errorf("%d positions in %d bytes, want %d in %d", len(s.next.in), s.next.size, want, size)
			}
		})
	}
}

// What came before the answer to Subscribe is known when the connection is lost.
func TestSubscriptionThatWasNotConfirmedGoesOn(t *testing.T) {
	heard := map[string]wire.Sequence{"orders.a": 5}
	for name, test := range map[string]struct {
		pattern string
		change  func(*wire.Welcome)
		opts    []SubscribeOption
		want    wire.Subscription
	}{
		"a topic":              {"orders.a", small, nil, wire.Subscription{Again: true, Positions: heard}},
		"a topic from its end": {"orders.a", small, []SubscribeOption{SinceLast()}, wire.Subscription{Since: wire.SinceLast, Again: true, Positions: heard}},
		"all of a pattern":     {"orders.>", small, []SubscribeOption{SinceAll()}, wire.Subscription{Since: wire.SinceAll, Again: true, Positions: heard}},
		"what is new":          {"orders.>", current, nil, wire.Subscription{Again: true, Positions: heard, Others: true}},
		"what is not old":      {"orders.>", current, []SubscribeOption{SinceAge(time.Minute)}, wire.Subscription{Since: wire.SinceAge, Age: time.Minute, Again: true, Positions: heard, Others: true}},
		"a sequence":           {"orders.>", current, []SubscribeOption{Since(4)}, wire.Subscription{Since: wire.SinceSequence, Sequence: 4, Again: true, Positions: heard, Others: true}},
		"what is new, and the node is of an earlier version": {"orders.>", small, nil, wire.Subscription{}},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork("a:1")
			c, p := connect(t, n)
			artifacts := make(collector, 10)
			done := background(func() error {
				_, err := c.Subscribe(t.Context(), test.pattern, artifacts.handle, test.opts...)
				return err
			})
			f := p.want(wire.KindSubscribe)
			p.deliver(f.Ref(), "orders.a", 3, "3", "4")
			artifacts.texts(t, 2)
			p.hangUp()

			p = n.welcome(t, "a:1", test.change)
			again := p.want(wire.KindSubscribe)
			if diff := cmp.Diff(test.want, wanted(t, again)); diff != "" {
				t.Errorf("subscribed again (-want +got):\n%s", diff)
			}
			p.deliver(f.Ref(), "orders.a", 4, "4", "5")
			confirm(p, again, heard)
			if diff := cmp.Diff([]string{"5:5"}, artifacts.texts(t, 1)); diff != "" {
				t.Error(diff)
			}
			if err := got(t, done); err != nil {
				t.Error(err)
			}
		})
	}
}

// Where a node could not tell of all topics, those that it did not name are not taken for new
// ones: what was published in them before the subscription is none of its.
func TestSubscriptionToTopicsOfWhichNobodyToldGoesOn(t *testing.T) {
	const away = time.Hour
	told := map[string]wire.Sequence{"orders.a": 5}
	for name, test := range map[string]struct {
		pattern string
		told    map[string]wire.Sequence
		opts    []SubscribeOption
		want    wire.Subscription
	}{
		"what is new":             {"orders.>", told, nil, wire.Subscription{Since: wire.SinceAge, Age: away + resumeSlack, Again: true, Positions: told, Others: true}},
		"and nobody told of any":  {"orders.>", nil, nil, wire.Subscription{Since: wire.SinceAge, Age: away + resumeSlack, Again: true, Others: true}},
		"nor of the one topic":    {"orders.a", nil, nil, wire.Subscription{Since: wire.SinceAge, Age: away + resumeSlack, Again: true, Others: true}},
		"what is not old":         {"orders.>", told, []SubscribeOption{SinceAge(time.Minute)}, wire.Subscription{Since: wire.SinceAge, Age: time.Minute + away + resumeSlack, Again: true, Positions: told, Others: true}},
		"the last":                {"orders.>", told, []SubscribeOption{SinceLast()}, wire.Subscription{Since: wire.SinceLast, Age: away + resumeSlack, Again: true, Positions: told, Others: true}},
		"a sequence":              {"orders.>", told, []SubscribeOption{Since(7)}, wire.Subscription{Since: wire.SinceSequence, Sequence: 7, Age: away + resumeSlack, Again: true, Positions: told, Others: true}},
		"all":                     {"orders.>", told, []SubscribeOption{SinceAll()}, wire.Subscription{Since: wire.SinceAll, Again: true, Positions: told}},
		"all, and nobody told":    {"orders.>", nil, []SubscribeOption{SinceAll()}, wire.Subscription{Since: wire.SinceAll, Again: true}},
		"the topic has been told": {"orders.a", told, nil, wire.Subscription{Again: true, Positions: told}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork("a:1")
				c, p := connect(t, n, WithReconnectWait(0, 0))
				done := background(func() error {
					_, err := c.Subscribe(t.Context(), test.pattern, collector(nil).handle, test.opts...)
					return err
				})
				p.control(wire.Header{Kind: wire.KindAck, Ref: p.want(wire.KindSubscribe).Ref()}, wire.Subscribed{Positions: test.told, Incomplete: true})
				if err := got(t, done); err != nil {
					t.Fatal(err)
				}
				time.Sleep(away)
				p.hangUp()
				p = n.welcome(t, "a:1", current)
				again := p.want(wire.KindSubscribe)
				if diff := cmp.Diff(test.want, wanted(t, again)); diff != "" {
					t.Fatalf("subscribed again (-want +got):\n%s", diff)
				}
				confirm(p, again, told) // it could ask everybody
				p.hangUp()
				p = n.welcome(t, "a:1", current)
				want := wire.Subscription{Since: test.want.Since, Again: true, Positions: told}
				if w := wanted(t, p.want(wire.KindSubscribe)); w.Others || w.Age != 0 || w.Sequence != 0 || !maps.Equal(w.Positions, told) {
					t.Errorf("subscribed once more with %+v, want %+v", w, want)
				}
			})
		})
	}
}
