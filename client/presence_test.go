package client

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/wire"
)

// question returns the next question for a page of presence.
func (p *peer) question(after string) wire.Frame {
	p.t.Helper()
	f := p.want(wire.KindSend)
	q, err := wire.ParsePageRequest([]byte(payloads(p.t, f)[0]))
	if err != nil || q.After != after || string(f.Target()) != "$hub.presence" {
		p.t.Fatalf("asked %s for what follows %q, %v; want %q", f.Target(), q.After, err, after)
	}
	return f
}

func (p *peer) page(f wire.Frame, text string) {
	p.t.Helper()
	p.artifacts(wire.Header{Kind: wire.KindReply, Ref: f.Ref()}, "me", "$hub.presence", `{"node":"n","incarnation":"1",`+text+`}`)
}

func (p *peer) presence(ref uint32, text string) {
	p.t.Helper()
	p.deliver(ref, wire.TopicPresence, 0, `{"node":"n","incarnation":"1",`+text+`}`)
}

// told is an update in short.
func told(u PresenceUpdate) string {
	var words []string
	for _, c := range u.Clients {
		words = append(words, c.ID)
	}
	for _, e := range u.Events {
		words = append(words, string(e.Kind)+" "+e.Client)
	}
	return strings.Join(words, ", ")
}

// watch lets c watch, and returns what it is told and the subscription's frame.
func watch(t *testing.T, c *Client, p *peer) (updates <-chan PresenceUpdate, subscribed wire.Frame) {
	t.Helper()
	heard := make(chan PresenceUpdate, 100)
	ctx, stop := context.WithCancel(t.Context())
	ended := background(func() error {
		return c.WatchPresence(ctx, func(u PresenceUpdate) error {
			heard <- u
			return nil
		})
	})
	f := p.want(wire.KindSubscribe)
	p.control(wire.Header{Kind: wire.KindAck, Ref: f.Ref()}, wire.Subscribed{})
	t.Cleanup(func() {
		stop()
		p.hangUp()
		if err := got(t, ended); !errors.Is(err, context.Canceled) {
			t.Errorf("WatchPresence = %v, want that it was cancelled", err)
		}
	})
	return heard, f
}

func expect(t *testing.T, updates <-chan PresenceUpdate, want string, caughtUp bool) {
	t.Helper()
	u := got(t, updates)
	if diff := cmp.Diff(want, told(u)); diff != "" || u.CaughtUp != caughtUp {
		t.Fatalf("told, with caught up %v (-want +got):\n%s", u.CaughtUp, diff)
	}
}

func TestPagesAndEventsMakeOneSnapshot(t *testing.T) {
	c, p := connect(t, newNetwork("a:1"))
	updates, f := watch(t, c, p)
	first := p.question("")
	p.presence(f.Ref(), `"revision":3,"events":[{"kind":"joined","client":"m","node":"n","epoch":1}]`) // both pages hold it
	p.page(first, `"revision":3,"clients":[{"id":"a","node":"n","epoch":1},{"id":"m","node":"n","epoch":1}],"next":"m"`)
	second := p.question("m")
	p.presence(f.Ref(), `"revision":5,"events":[{"kind":"left","client":"a","node":"n","epoch":1},{"kind":"joined","client":"z","node":"n","epoch":1}]`)
	p.page(second, `"revision":5,"clients":[{"id":"z","node":"n","epoch":1}]`)
	expect(t, updates, "m, z", false)

	p.presence(f.Ref(), `"revision":6,"events":[{"kind":"joined","client":"b","node":"n","epoch":1}]`)
	expect(t, updates, "joined b", false)
}

func TestWatcherThatWasTooSlowLooksAnew(t *testing.T) {
	c, p := connect(t, newNetwork("a:1"))
	updates, f := watch(t, c, p)
	p.page(p.question(""), `"revision":3,"clients":[{"id":"a","node":"n","epoch":1},{"id":"b","node":"n","epoch":1}]`)
	expect(t, updates, "a, b", false)

	p.control(wire.Header{Kind: wire.KindLost, Sequence: 1}, nil)
	p.page(p.question(""), `"revision":5,"clients":[{"id":"b","node":"n","epoch":2},{"id":"c","node":"n","epoch":1}]`)
	expect(t, updates, "left a, moved b, joined c", true)

	p.presence(f.Ref(), `"revision":7,"events":[{"kind":"left","client":"c","node":"n","epoch":1}]`) // 6 is missing
	p.page(p.question(""), `"revision":7,"clients":[{"id":"b","node":"n","epoch":2}]`)
	expect(t, updates, "left c", true)
}

func TestWatcherEndsWithItsHandler(t *testing.T) {
	c, p := connect(t, newNetwork("a:1"))
	enough := errors.New("enough")
	ended := background(func() error {
		return c.WatchPresence(t.Context(), func(PresenceUpdate) error { return enough })
	})
	f := p.want(wire.KindSubscribe)
	p.control(wire.Header{Kind: wire.KindAck, Ref: f.Ref()}, wire.Subscribed{})
	p.page(p.question(""), `"revision":3,"clients":[]`)
	p.ack(p.want(wire.KindUnsubscribe), 0, 0)
	if err := got(t, ended); !errors.Is(err, enough) {
		t.Errorf("WatchPresence = %v, want the handler's error", err)
	}
}
