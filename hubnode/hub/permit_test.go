package hub_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/wire"
)

// permit lets somebody do everything.
func permit(identity string) *hub.Permit {
	return &hub.Permit{Identity: identity, Allows: func(wire.Action, string) bool { return true }}
}

// Time is the bubble's: it moves on only while everybody waits.
func TestAnIdentityIsHeldToItsRate(t *testing.T) {
	for name, quota := range map[string]hub.Quota{
		"artifacts": {ArtifactsPerSecond: 100},
		"bytes":     {BytesPerSecond: 100 * len(frame(wire.KindPublish, wire.FlagAck, 1, "t", "noisy-0", "0000"))},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := start(t, hub.WithSettings(hub.Settings{PerIdentity: quota}))
				noisy := []*peer{join(t, h, "noisy-0", hub.WithPermit(permit("noisy"))), join(t, h, "noisy-1", hub.WithPermit(permit("noisy")))}
				quiet := join(t, h, "quiet", hub.WithPermit(permit("quiet")))
				begun := time.Now()
				for i := range 250 { // of each of two: 500 at 100 a second, with the first second's at once
					for _, p := range noisy {
						go p.write(frame(wire.KindPublish, wire.FlagAck, uint32(i+1), "t", p.id, fmt.Sprintf("%04d", i)))
						p.expect(wire.KindAck, uint32(i+1))
					}
					if i == 200 {
						at := time.Now()
						quiet.publish(1, "t", "now")
						if took := time.Since(at); took != 0 {
							t.Errorf("another identity waits for %v", took)
						}
					}
				}
				if took := time.Since(begun).Round(10 * time.Millisecond); took != 4*time.Second {
					t.Errorf("500 took %v, want 4s", took)
				}
				if n := h.Metrics().ArtifactsThrottled; n != 400 {
					t.Errorf("%d were held up, want 400", n)
				}
			})
		})
	}
}

func TestAnIdentityIsHeldToItsNumbers(t *testing.T) {
	h := start(t, hub.WithSettings(hub.Settings{PerIdentity: hub.Quota{Clients: 2, Subscriptions: 2}}))
	a := join(t, h, "a", hub.WithPermit(permit("x")))
	b := join(t, h, "b", hub.WithPermit(permit("x")))
	hubs, _ := pair(t, "pipe")
	err := h.RegisterClient("c", hubs, hub.WithPermit(permit("x")))
	if fault := wire.FaultOf(err, 0); fault.Code != wire.CodeTooManyClients || !strings.Contains(fault.Detail, "limits.perIdentity.clients") {
		t.Errorf("a third client: %v", err)
	}
	if n := h.Metrics().ClientsRefused["per_identity"]; n != 1 {
		t.Errorf("%d are counted as refused, want 1", n)
	}
	join(t, h, "a", hub.WithPermit(permit("x"))) // takes its own place
	join(t, h, "d", hub.WithPermit(permit("y")))
	namesake := permit("x")
	namesake.Account = "another issuer's x"
	join(t, h, "f", hub.WithPermit(namesake))
	join(t, h, "e")
	<-a.done

	b.subscribe(1, "one", wire.Subscription{})
	b.subscribe(2, "two", wire.Subscription{})
	b.write(control(wire.KindSubscribe, 3, "three", nil))
	if fault := b.expectFault(wire.KindError, 3, wire.CodeInvalidRequest); !strings.Contains(fault.Detail, "limits.perIdentity.subscriptions") {
		t.Errorf("a third subscription: %+v", fault)
	}
	b.write(control(wire.KindUnsubscribe, 1, "", nil))
	b.expect(wire.KindAck, 1)
	b.subscribe(4, "three", wire.Subscription{})
	if err := h.UnregisterClient("b"); err != nil {
		t.Fatal(err)
	}
	c := join(t, h, "c", hub.WithPermit(permit("x"))) // there is room again, and nothing is left of b's
	c.subscribe(1, "one", wire.Subscription{})
	c.subscribe(2, "two", wire.Subscription{})
}

// Whoever is asked may answer once, and nobody else is heard without the right to send: an answer
// that nobody waits for would take the place of what the client is sent by those who may.
func TestAnswersNeedAQuestion(t *testing.T) {
	h := start(t, hub.WithSettings(hub.Settings{ResumeWindow: time.Minute}))
	asks := join(t, h, "asks", hub.WithPermit(permit("x")))
	servant := join(t, h, "servant", hub.WithPermit(may()))
	answer := func(from *peer, ref uint32, allowed bool) {
		t.Helper()
		from.write(frame(wire.KindReply, wire.FlagAck, ref, "asks", from.id, "answer"))
		if allowed {
			from.expect(wire.KindAck, ref)
			asks.expect(wire.KindReply, ref)
			return
		}
		fault := from.expectFault(wire.KindError, ref, wire.CodePermission)
		if fault.Action != wire.ActionSend || fault.Target != "asks" {
			t.Errorf("%+v", fault)
		}
		asks.quiet()
	}
	ask := func(ref uint32, of wire.ClientID) {
		t.Helper()
		asks.write(frame(wire.KindSend, wire.FlagRequest, ref, of, "asks", "question"))
	}
	answer(servant, 1, false)
	ask(1, "servant")
	servant.expect(wire.KindSend, 1)
	answer(servant, 2, false)
	answer(servant, 1, true)
	answer(servant, 1, false)
	asks.write(frame(wire.KindSend, wire.FlagAck, 3, "servant", "asks", "no question"))
	asks.expect(wire.KindAck, 3)
	servant.expect(wire.KindSend, 3)
	answer(servant, 3, false)

	ask(4, "servant")
	servant.expect(wire.KindSend, 4)
	other := join(t, h, "other", hub.WithPermit(may()))
	answer(other, 4, false)
	answer(join(t, h, "sender", hub.WithPermit(may(wire.ActionSend))), 4, true)
	answer(servant, 4, true)
}

func TestPermitsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		p := permit("x")
		p.Expires = time.Now().Add(time.Minute)
		renewed := permit("x")
		renewed.Expires = time.Now().Add(time.Hour)
		a := join(t, h, "a", hub.WithPermit(p), hub.WithRenewal(func(_ context.Context, _ *hub.Client, token string) (*hub.Permit, error) {
			if token != "new" {
				return nil, &wire.Error{Code: wire.CodeUnauthenticated, Detail: "no"}
			}
			return renewed, nil
		}))
		b := join(t, h, "b", hub.WithPermit(p))
		a.write(control(wire.KindRenew, 1, "", wire.Renew{Token: "old"}))
		a.expectFault(wire.KindError, 1, wire.CodeUnauthenticated)
		a.write(control(wire.KindRenew, 2, "", wire.Renew{Token: "new"}))
		for f := a.next(); f.Kind() != wire.KindAck; f = a.next() {
			if f.Kind() != wire.KindSettings {
				t.Fatalf("got %v", f)
			}
		}
		time.Sleep(time.Minute) // the bubble's
		synctest.Wait()
		b.expectFault(wire.KindGoodbye, 0, wire.CodeUnauthenticated)
		if _, ok := h.Client("a"); !ok {
			t.Error("who renewed its permit is gone as well")
		}
		if _, ok := h.Client("b"); ok {
			t.Error("who did not is still there")
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if _, ok := h.Client("a"); ok {
			t.Error("the new permit does not end")
		}
		if n := h.Metrics().ClientsLeft["unauthenticated"]; n != 2 {
			t.Errorf("%d left for it", n)
		}
	})
}

// What was asked for a topic or a client is remembered for as long as the permit is the same.
func TestANewPermitIsAskedAnew(t *testing.T) {
	h := start(t)
	a := join(t, h, "a", hub.WithPermit(permit("x")))
	b := join(t, h, "b")
	for ref := range uint32(2) {
		a.publish(2*ref+1, "t", "x")
		a.write(frame(wire.KindSend, wire.FlagAck, 2*ref+2, "b", "a", "x"))
		a.expect(wire.KindAck, 2*ref+2)
		b.expect(wire.KindSend, 2*ref+2)
	}
	c, _ := h.Client("a")
	old := c.Permit()
	never := &hub.Permit{Identity: "x", Allows: func(wire.Action, string) bool { return false }}
	if !h.SetPermit(c, old, never) || h.SetPermit(c, old, permit("x")) {
		t.Error("the permit is not replaced, or by whoever comes late")
	}
	a.expect(wire.KindSettings, 0)
	a.write(frame(wire.KindPublish, wire.FlagAck, 5, "t", "a", "x"))
	a.expectFault(wire.KindError, 5, wire.CodePermission)
	a.write(frame(wire.KindSend, wire.FlagAck, 6, "b", "a", "x"))
	a.expectFault(wire.KindError, 6, wire.CodePermission)
	b.write(frame(wire.KindSend, wire.FlagRequest, 7, "a", "b", "?"))
	a.expect(wire.KindSend, 7)
	a.write(frame(wire.KindReply, 0, 7, "b", "a", "x")) // answers are free
	b.expect(wire.KindReply, 7)
}

// Whether somebody may purge is asked of each topic, and of nothing else.
func TestPurgesAreAllowedByTopic(t *testing.T) {
	h := start(t)
	a := join(t, h, "a", hub.WithPermit(&hub.Permit{Identity: "x", Allows: func(action wire.Action, target string) bool {
		return action == wire.ActionPurge && target == "orders"
	}}))
	for body, want := range map[string]wire.Code{
		`{"topic":"orders"}`:                   0,
		`{"topic":"orders","before":1}`:        0,
		`{"topic":"bills"}`:                    wire.CodePermission,
		`{"topic":"orders","topic":"bills"}`:   wire.CodePermission,
		`{"topic":"orders"} {"topic":"bills"}`: wire.CodePermission,
		`{"topic":["orders"]}`:                 wire.CodePermission,
		`orders`:                               wire.CodePermission,
		``:                                     wire.CodePermission,
	} {
		a.write(frame(wire.KindSend, wire.FlagRequest, 1, "$hub.topics.purge", "a", body))
		if want != 0 {
			a.expectFault(wire.KindError, 1, want)
		} else if f := a.expect(wire.KindReply, 1); !strings.Contains(f.payloads()[0], `"topic":"orders"`) {
			t.Errorf("the answer to %s is %v", body, f)
		}
	}
	for _, question := range []string{"$hub.topics", "$hub.durables.delete", "$hub.topics.describe", "$hub.local.topics.purge"} {
		a.write(frame(wire.KindSend, wire.FlagRequest, 2, question, "a", `{"topic":"orders"}`))
		a.expectFault(wire.KindError, 2, wire.CodePermission)
	}
	b := join(t, h, "b", hub.WithPermit(permit("y"))) // who may do everything hears what is wrong
	b.write(frame(wire.KindSend, wire.FlagRequest, 1, "$hub.topics.purge", "b", "orders"))
	b.expectFault(wire.KindError, 1, wire.CodeMalformed)
}

func TestWhoMayNotHearBroadcastsHearsNone(t *testing.T) {
	h := start(t)
	for id, may := range map[string]bool{"a": true, "b": false} {
		join(t, h, id, hub.WithPermit(&hub.Permit{Identity: id, Allows: func(action wire.Action, target string) bool {
			return may && action == wire.ActionSubscribe && target == hub.Broadcast
		}}))
		c, _ := h.Client(id)
		if hears := len(c.Topics()) == 1; hears != may {
			t.Errorf("%s is subscribed to %q", id, c.Topics())
		}
	}
}
