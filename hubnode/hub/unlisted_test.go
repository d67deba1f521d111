package hub_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/wire"
)

// subscribed subscribes to what nothing comes of and returns the answer.
func (p *peer) subscribed(ref uint32, pattern string, want wire.Subscription) wire.Subscribed {
	p.t.Helper()
	answer, _ := p.begins(ref, pattern, want, 0)
	return answer
}

// begins subscribes and returns the answer, and the frames that come before it or after.
func (p *peer) begins(ref uint32, pattern string, want wire.Subscription, frames int) (answer wire.Subscribed, heard []got) {
	p.t.Helper()
	p.write(control(wire.KindSubscribe, ref, pattern, want))
	for acked := false; !acked || len(heard) < frames; {
		f := p.next()
		switch {
		case f.Ref() != ref:
			p.t.Fatalf("%s: got %v", p.id, f)
		case f.Kind() == wire.KindPublish:
			heard = append(heard, f)
		case f.Kind() != wire.KindAck:
			p.t.Fatalf("%s: got %v", p.id, f)
		default:
			acked = true
			if err := wire.DecodeControl(f.Frame, &answer); err != nil {
				p.t.Fatal(err)
			}
		}
	}
	return answer, heard
}

// knows waits until a node knows of a subscriber of everything on another one, which hears of
// it.
func (n *node) knows(sub *peer, ref uint32) {
	sub.t.Helper()
	eventually(sub.t, "the leader knows of the subscriber", func() bool {
		got, err := n.Route(sub.t.Context(), &wire.Artifact{Topic: "probe", Payload: []byte("x")})
		if err != nil {
			sub.t.Fatal(err)
		}
		return got == 1
	})
	sub.expect(wire.KindPublish, ref)
}

// A subscription to a topic without a leader is told so, and begins where it wants to once
// there is one, whether or not something is published then.
func TestSubscriptionBeginsOnceThereIsALeader(t *testing.T) {
	const end = 5 // was published before
	others := map[string]wire.Sequence{"other": 1}
	for name, test := range map[string]struct {
		pattern string
		want    wire.Subscription
		first   wire.Sequence
	}{
		"what is new":                         {">", wire.Subscription{}, end + 1},
		"the last":                            {">", wire.Subscription{Since: wire.SinceLast}, end},
		"the last of one topic":               {"kept", wire.Subscription{Since: wire.SinceLast}, end},
		"a sequence":                          {">", wire.Subscription{Since: wire.SinceSequence, Sequence: 3}, 3},
		"a sequence of one topic":             {"kept", wire.Subscription{Since: wire.SinceSequence, Sequence: 3}, 3},
		"a sequence that is to come":          {">", wire.Subscription{Since: wire.SinceSequence, Sequence: 100}, end + 1},
		"a sequence of one topic, to come":    {"kept", wire.Subscription{Since: wire.SinceSequence, Sequence: 100}, end + 1},
		"all":                                 {">", wire.Subscription{Since: wire.SinceAll}, 1},
		"all of one topic":                    {"kept", wire.Subscription{Since: wire.SinceAll}, 1},
		"a topic that is new to who is back":  {">", wire.Subscription{Again: true, Positions: others}, 1},
		"a position":                          {">", wire.Subscription{Again: true, Positions: map[string]wire.Sequence{"kept": 4}}, 4},
		"a position, else what is new":        {">", wire.Subscription{Again: true, Positions: map[string]wire.Sequence{"kept": 4}, Others: true}, 4},
		"positions of others, and new ones":   {">", wire.Subscription{Again: true, Positions: others, Others: true}, end + 1},
		"positions of others, and the last":   {">", wire.Subscription{Since: wire.SinceLast, Again: true, Positions: others, Others: true}, end},
		"positions of others, and a sequence": {">", wire.Subscription{Since: wire.SinceSequence, Sequence: 2, Again: true, Positions: others, Others: true}, 2},
	} {
		for after, published := range map[string]bool{"": false, ", and something is published": true} {
			t.Run(name+after, func(t *testing.T) {
				c := newCluster(t, "b", []string{"a", "b"}, hub.WithHistory("kept", 1000))
				pub := join(t, c.nodes["b"].Hub, "pub")
				for i := range uint32(end) {
					pub.publish(i+1, "kept", "old")
				}
				c.move("")
				sub := join(t, c.nodes["a"].Hub, "sub")
				if answer := sub.subscribed(1, test.pattern, test.want); !answer.Incomplete {
					t.Errorf("answered %+v while nobody leads", answer)
				}
				listen := join(t, c.nodes["a"].Hub, "listen")
				listen.subscribed(1, ">", wire.Subscription{})
				last := wire.Sequence(end)
				if published {
					if test.pattern == ">" {
						c.nodes["b"].knows(sub, 1)
					} else {
						c.nodes["b"].knows(listen, 1)
					}
					c.move("b")
					pub.publish(6, "kept", "new")
					last++
				} else {
					c.move("b")
				}
				for want := test.first; want <= last; want++ {
					if f := sub.expect(wire.KindPublish, 1); f.Sequence() != want {
						t.Fatalf("got %v, want %d", f, want)
					}
				}
				sub.quiet()
			})
		}
	}
}

func TestAnswerSaysWhetherItIsComplete(t *testing.T) {
	c := newCluster(t, "b", []string{"a", "b"}, hub.WithHistory("kept", 1000))
	join(t, c.nodes["b"].Hub, "pub").publish(1, "kept", "x")
	sub := join(t, c.nodes["a"].Hub, "sub")
	for i, pattern := range []string{"kept", ">", "live"} {
		if answer := sub.subscribed(uint32(i+1), pattern, wire.Subscription{}); answer.Incomplete {
			t.Errorf("%s: answered %+v", pattern, answer)
		}
	}
	c.disconnect(c.nodes["a"], c.nodes["b"])
	for i, pattern := range []string{"kept", ">"} {
		if answer := sub.subscribed(uint32(i+10), pattern, wire.Subscription{}); !answer.Incomplete {
			t.Errorf("%s, and the leader can't be asked: answered %+v", pattern, answer)
		}
	}
}

// With Others a subscription goes on in what it names and begins in the rest.
func TestOthersBeginWhereTheSubscriptionSays(t *testing.T) {
	for name, test := range map[string]struct {
		want wire.Subscription
		rest wire.Sequence // where the topics begin that are not named
	}{
		"from their first artifact":            {wire.Subscription{Since: wire.SinceLast}, 1},
		"what is new":                          {wire.Subscription{Others: true}, 6},
		"the last":                             {wire.Subscription{Since: wire.SinceLast, Others: true}, 5},
		"the last, and what came since":        {wire.Subscription{Since: wire.SinceLast, Age: time.Hour, Others: true}, 1},
		"what was the last":                    {wire.Subscription{Since: wire.SinceLast, Age: 1, Others: true}, 5},
		"a sequence":                           {wire.Subscription{Since: wire.SinceSequence, Sequence: 3, Others: true}, 3},
		"a sequence, and what came since":      {wire.Subscription{Since: wire.SinceSequence, Sequence: 4, Age: time.Hour, Others: true}, 1},
		"a sequence, and what came just now":   {wire.Subscription{Since: wire.SinceSequence, Sequence: 4, Age: 1, Others: true}, 4},
		"all":                                  {wire.Subscription{Since: wire.SinceAll, Others: true}, 1},
		"what is not old":                      {wire.Subscription{Since: wire.SinceAge, Age: time.Hour, Others: true}, 1},
		"what is not old, and everything is":   {wire.Subscription{Since: wire.SinceAge, Age: 1, Others: true}, 6},
		"what is not old, which does not help": {wire.Subscription{Since: wire.SinceAge, Age: 1}, 1},
	} {
		for _, at := range []string{"a", "b"} { // the leader, and another node
			t.Run(name+" at "+at, func(t *testing.T) {
				c := newCluster(t, "a", []string{"a", "b"}, hub.WithHistory("kept.*", 1000))
				pub := join(t, c.nodes["a"].Hub, "pub")
				for i := range uint32(5) {
					pub.publish(2*i+1, "kept.known", "x")
					pub.publish(2*i+2, "kept.other", "x")
				}
				time.Sleep(time.Millisecond) // what is there is older than a nanosecond by any clock
				want := test.want
				want.Again = true
				want.Positions = map[string]wire.Sequence{"kept.known": 4, "kept.lost": 7}
				sub := join(t, c.nodes[at].Hub, "sub")
				answer, heard := sub.begins(1, "kept.*", want, int((6-4)+(6-test.rest)))
				if answer.Positions["kept.known"] != 4 || answer.Positions["kept.other"] != test.rest {
					t.Errorf("answered %+v, want %d for what is not named", answer, test.rest)
				}
				next := map[string]wire.Sequence{"kept.known": 4, "kept.other": test.rest}
				for _, f := range heard {
					if f.Sequence() != next[string(f.Target())] {
						t.Fatalf("got %v, want %v", f, next)
					}
					next[string(f.Target())]++
				}
				sub.quiet()
			})
		}
	}
}

func TestSubscribeInSeveralFrames(t *testing.T) {
	h := start(t, hub.WithHistory("kept.*", 100))
	pub := join(t, h, "pub")
	topics := []string{"kept.a", "kept.b", "kept.c"}
	for i, topic := range topics {
		pub.publish(uint32(i+1), topic, "1", "2", "3")
	}
	sub := join(t, h, "sub")
	part := func(topic string, next wire.Sequence) wire.Subscription {
		return wire.Subscription{More: true, Positions: map[string]wire.Sequence{topic: next}}
	}
	sub.write(control(wire.KindSubscribe, 1, "kept.*", part("kept.a", 3)))
	sub.write(control(wire.KindSubscribe, 1, "kept.*", part("kept.b", 4)))
	sub.quiet()
	_, heard := sub.begins(1, "kept.*", wire.Subscription{Again: true}, 2)
	var got []string
	for _, f := range heard {
		for i := range f.Count() {
			got = append(got, fmt.Sprint(string(f.Target()), " ", int(f.Sequence())+i))
		}
	}
	slices.Sort(got)
	if want := []string{"kept.a 3", "kept.c 1", "kept.c 2", "kept.c 3"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}

	// One that is given up is forgotten, and another one begins anew.
	sub.write(control(wire.KindSubscribe, 2, "kept.*", part("kept.a", 4)))
	sub.write(frame(wire.KindUnsubscribe, 0, 2, "", ""))
	sub.expect(wire.KindAck, 2)
	if answer, _ := sub.begins(3, "kept.a", wire.Subscription{Since: wire.SinceLast}, 1); answer.Positions["kept.a"] != 3 {
		t.Errorf("answered %+v", answer)
	}
	sub.quiet()
}

// What a client may have the node keep of a Subscribe is bounded: its frames, and what they
// name.
func TestSubscribeThatIsTooLargeIsRefusedOnce(t *testing.T) {
	padding := wire.Subscription{More: true, Filter: strings.Repeat("x", 1<<20-100)}
	names := wire.Subscription{More: true, Positions: make(map[string]wire.Sequence)}
	for i := range 40_000 { // half a MiB in a frame
		names.Positions[fmt.Sprint("k.", i)] = 1
	}
	for name, tt := range map[string]struct {
		part  wire.Subscription
		parts int
	}{
		"frames": {padding, wire.MaxSubscribe>>20 + 2},
		"names":  {names, wire.MaxSubscribe/(40_000*(6+wire.PositionOverhead)) + 2},
	} {
		t.Run(name, func(t *testing.T) {
			h := start(t, hub.WithHistory("kept.*", 100))
			sub := join(t, h, "sub")
			part := control(wire.KindSubscribe, 1, "kept.*", tt.part)
			for range tt.parts {
				sub.write(part)
			}
			sub.write(control(wire.KindSubscribe, 1, "kept.*", wire.Subscription{}))
			sub.expectFault(wire.KindError, 1, wire.CodeInvalidRequest)
			sub.quiet()
			if answer := sub.subscribed(1, "kept.*", wire.Subscription{}); answer.Incomplete {
				t.Errorf("answered %+v", answer)
			}
		})
	}
}

func TestFramesOfASubscribeFollowEachOther(t *testing.T) {
	h := start(t)
	sub := join(t, h, "sub")
	sub.write(control(wire.KindSubscribe, 1, "kept.*", wire.Subscription{More: true}))
	sub.write(control(wire.KindSubscribe, 2, "kept.*", wire.Subscription{}))
	frames := sub.ended()
	if last := frames[len(frames)-1]; last.Kind() != wire.KindGoodbye || last.fault().Code != wire.CodeInvalidRequest {
		t.Errorf("ended with %v", last)
	}
}
