package hub_test

import (
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/wire"
)

// may lets somebody do what is named, to anything.
func may(actions ...wire.Action) *hub.Permit {
	return &hub.Permit{Identity: "x", Allows: func(action wire.Action, _ string) bool { return slices.Contains(actions, action) }}
}

// idler is the client's end of a connection that is read only when a test says so.
type idler struct {
	t      *testing.T
	c      *hub.Client
	conn   net.Conn
	reader *wire.Reader
}

func idle(t *testing.T, h *hub.Hub, id string, p *hub.Permit) *idler {
	t.Helper()
	hubs, far := pair(t, "pipe")
	if err := h.RegisterClient(id, hubs, hub.WithPermit(p)); err != nil {
		t.Fatal(err)
	}
	_ = far.SetDeadline(time.Now().Add(patience))
	c, _ := h.Client(id)
	i := &idler{t, c, far, wire.NewReader(far, 32<<20)}
	t.Cleanup(i.reader.Close)
	return i
}

func (i *idler) write(b []byte) {
	i.t.Helper()
	if _, err := i.conn.Write(b); err != nil {
		i.t.Fatal(err)
	}
}

func (i *idler) next() got {
	i.t.Helper()
	f, err := i.reader.Next()
	if err != nil {
		i.t.Fatal(err)
	}
	return got{append(wire.Frame(nil), f...)}
}

// until reads up to a frame of a kind, and returns those before it and that one.
func (i *idler) until(kind wire.Kind) (before []got, last got) {
	i.t.Helper()
	for {
		f := i.next()
		if f.Kind() == kind {
			return before, f
		}
		before = append(before, f)
	}
}

// route publishes some artifacts on "kept", of which a few fill a client's queue.
func route(t *testing.T, h *hub.Hub, n int) {
	t.Helper()
	for range n {
		if _, err := h.Route(t.Context(), &wire.Artifact{Topic: "kept", Payload: make([]byte, 100)}); err != nil {
			t.Fatal(err)
		}
	}
}

// What was published before a subscription is history, and takes the right to that for as
// long as it is read. What is published while somebody is subscribed is not, also where a
// slow client is sent it from there.
func TestARightToHistoryThatIsTakenAway(t *testing.T) {
	const before, since = 100, 200
	end := before + since + 1
	for name, test := range map[string]struct {
		want    wire.Subscription
		pattern string
		read    int // so many are read before the right is taken away
		ends    bool
		gapTo   wire.Sequence // what is skipped ends here; 0: nothing is
	}{
		"in the middle of a replay":    {want: wire.Subscription{Since: wire.SinceAll}, ends: true},
		"in that of a pattern":         {want: wire.Subscription{Since: wire.SinceAll}, pattern: ">", ends: true},
		"in the middle, from a number": {want: wire.Subscription{Since: wire.SinceSequence, Sequence: 20}, ends: true},
		"in the middle, from an age":   {want: wire.Subscription{Since: wire.SinceAge, Age: time.Hour}, ends: true},
		"in the middle, from a place":  {want: wire.Subscription{Positions: map[string]wire.Sequence{"kept": 1}}, ends: true},
		"behind what is history":       {want: wire.Subscription{Since: wire.SinceAll}, read: before},
		"of one that is behind alone":  {want: wire.Subscription{Since: wire.SinceNew}},
		"of a pattern's that is":       {want: wire.Subscription{Since: wire.SinceNew}, pattern: ">"},
		"of one that has come back":    {want: wire.Subscription{Again: true, Positions: map[string]wire.Sequence{"kept": 2}}, gapTo: before},
		"of a pattern's that has":      {want: wire.Subscription{Again: true, Positions: map[string]wire.Sequence{"kept": 2}}, pattern: ">", gapTo: before},
	} {
		t.Run(name, func(t *testing.T) {
			h := start(t, hub.WithSettings(hub.Settings{PendingBytes: 2000}), hub.WithHistory("kept", 1000))
			route(t, h, before)
			i := idle(t, h, "slow", may(wire.ActionSubscribe, wire.ActionHistory))
			pattern := test.pattern
			if pattern == "" {
				pattern = "kept"
			}
			i.write(control(wire.KindSubscribe, 1, pattern, test.want))
			var frames []got
			if test.want.Since == wire.SinceNew {
				i.until(wire.KindAck)
			} else { // what it reads before the Ack could be all
				eventually(t, "the replay has begun", func() bool { return i.c.PendingBytes() > 0 })
			}
			route(t, h, since)
			for len(frames) <= test.read && test.read > 0 { // and the Ack
				frames = append(frames, i.next())
			}
			if !h.SetPermit(i.c, i.c.Permit(), may(wire.ActionSubscribe)) {
				t.Fatal("not set")
			}

			next := test.want.Positions["kept"] // 0: wherever it starts
			for next != wire.Sequence(end) {
				var f got
				if len(frames) > 0 {
					f, frames = frames[0], frames[1:]
				} else {
					f = i.next()
				}
				switch f.Kind() {
				case wire.KindSettings, wire.KindAck:
					continue
				case wire.KindError:
					denied, ok := wire.ParseFault(f.Body()).Err().(*wire.PermissionError) //nolint:errorlint // as it comes from there
					if !ok || denied.Action != wire.ActionHistory || denied.Target != pattern || f.Ref() != 1 {
						t.Fatalf("got %v, want that history has to be asked for", f)
					}
					if !test.ends {
						t.Fatalf("ended at %d: %v", next, f)
					}
					if next > before {
						t.Errorf("the whole of the history was read up to %d", next)
					}
					route(t, h, 1)
					i.write(control(wire.KindPing, 7, "", nil))
					if f := i.next(); f.Kind() != wire.KindPong {
						t.Errorf("behind the error came %v", f)
					}
					if n := len(i.c.Topics()); n != 1 {
						t.Errorf("%d subscriptions are left, want that to broadcast", n)
					}
					return
				case wire.KindGap:
					gap, err := wire.ParseGap(f.Frame)
					if err != nil || gap.From != next || gap.To != test.gapTo || gap.Topic != "kept" {
						t.Fatalf("the gap is %+v, %v; want it from %d to %d", gap, err, next, test.gapTo)
					}
					next, test.gapTo = gap.To+1, 0
					continue
				case wire.KindPublish:
				default:
					t.Fatalf("got %v", f)
				}
				if next != 0 && f.Sequence() != next {
					t.Fatalf("got %v, want sequence %d", f, next)
				}
				next = f.Sequence() + wire.Sequence(f.Count())
			}
			if test.ends || test.gapTo != 0 {
				t.Errorf("read on, to %d", next)
			}
			route(t, h, 1)
			if f := i.next(); f.Sequence() != next {
				t.Errorf("got %v, want sequence %d", f, next)
			}
		})
	}
}

// Who was never allowed to read history hears all that is published while it is subscribed,
// however slow it is.
func TestASlowSubscriberNeedsNoRightToHistory(t *testing.T) {
	for _, pattern := range []string{"kept", ">"} {
		t.Run(pattern, func(t *testing.T) {
			h := start(t, hub.WithSettings(hub.Settings{PendingBytes: 2000}), hub.WithHistory("kept", 1000))
			route(t, h, 10)
			i := idle(t, h, "slow", may(wire.ActionSubscribe))
			i.write(control(wire.KindSubscribe, 1, pattern, wire.Subscription{}))
			i.until(wire.KindAck)
			route(t, h, 300)
			for next := wire.Sequence(11); next <= 310; {
				f := i.next()
				if f.Kind() != wire.KindPublish || f.Sequence() != next {
					t.Fatalf("got %v, want sequence %d", f, next)
				}
				next += wire.Sequence(f.Count())
			}
		})
	}
}

// A subscription that begins while the rules change is looked at by the old ones or the new.
func TestARightToHistoryThatIsTakenAwayMeanwhile(t *testing.T) {
	h := start(t, hub.WithHistory("kept", 10))
	route(t, h, 3)
	asked, release := make(chan struct{}), make(chan struct{})
	a := join(t, h, "a", hub.WithPermit(&hub.Permit{Identity: "x", Allows: func(action wire.Action, _ string) bool {
		if action == wire.ActionHistory {
			close(asked)
			<-release
		}
		return true
	}}))
	a.write(control(wire.KindSubscribe, 1, "kept", wire.Subscription{Since: wire.SinceAll}))
	<-asked
	c, _ := h.Client("a")
	if !h.SetPermit(c, c.Permit(), may(wire.ActionSubscribe)) {
		t.Fatal("not set")
	}
	close(release)
	a.expect(wire.KindSettings, 0)
	if fault := a.expectFault(wire.KindError, 1, wire.CodePermission); !strings.Contains(fault.Detail, `history: ["kept"]`) {
		t.Errorf("the fault is %+v", fault)
	}
	a.quiet()
}

// A page waits until the client has read what it was sent before.
func TestARightToHistoryThatIsTakenAwayEndsAReadThatWaits(t *testing.T) {
	h := start(t, hub.WithSettings(hub.Settings{PendingBytes: 4000}), hub.WithHistory("kept", 10))
	route(t, h, 3)
	asked := make(chan struct{}, 1)
	i := idle(t, h, "slow", &hub.Permit{Identity: "x", Allows: func(action wire.Action, _ string) bool {
		if action == wire.ActionHistory {
			asked <- struct{}{}
		}
		return true
	}})
	i.write(control(wire.KindSubscribe, 1, "live", wire.Subscription{}))
	i.until(wire.KindAck)
	for range 15 { // more than a quarter of what may wait
		if _, err := h.Route(t.Context(), &wire.Artifact{Topic: "live", Payload: make([]byte, 100)}); err != nil {
			t.Fatal(err)
		}
	}
	i.write(control(wire.KindRead, 2, "kept", wire.Read{}))
	<-asked
	if !h.SetPermit(i.c, i.c.Permit(), may(wire.ActionSubscribe)) {
		t.Fatal("not set")
	}
	before, f := i.until(wire.KindError)
	if denied := f.fault(); f.Ref() != 2 || denied.Code != wire.CodePermission || !strings.Contains(denied.Detail, `history: ["kept"]`) {
		t.Errorf("the answer is %v", f)
	}
	for _, f := range before {
		if f.Ref() == 2 {
			t.Errorf("got %v of what may not be read any more", f)
		}
	}
}
