package hub_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/wire"
)

// Rules may change while a new token is looked at: who is told that it counts may stay.
func TestARenewalIsNotLostToNewRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		until := func(d time.Duration) *hub.Permit {
			p := permit("x")
			p.Expires = time.Now().Add(d)
			return p
		}
		changed := false
		a := join(t, h, "a", hub.WithPermit(until(time.Minute)), hub.WithRenewal(func(_ context.Context, c *hub.Client, _ string) (*hub.Permit, error) {
			next := until(time.Hour)
			if !changed {
				changed = h.SetPermit(c, c.Permit(), until(time.Minute)) // the old proof by new rules
			}
			return next, nil
		}))
		a.write(control(wire.KindRenew, 1, "", wire.Renew{Token: "new"}))
		for f := a.next(); f.Kind() != wire.KindAck; f = a.next() {
			if f.Kind() != wire.KindSettings {
				t.Fatalf("got %v", f)
			}
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if _, ok := h.Client("a"); !ok {
			t.Error("the hub said that the new token counts, and disconnected who has it when the old one expired")
		}
	})
}
