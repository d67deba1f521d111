package hub_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/wire"
)

// A Fetch may wait for ten seconds, and a client has 256 of them.
func TestARightThatIsTakenAwayEndsAFetchThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, hub.WithSettings(hub.Settings{History: history.Limits{MaxArtifacts: 10, MaxBytes: 1 << 20, MaxAge: time.Hour}}))
		boss, a, b := join(t, h, "boss"), join(t, h, "a", hub.WithPermit(permit("x"))), join(t, h, "b")
		boss.publish(1, "jobs", "old")
		fetch := wire.Fetch{Name: "d", Policy: wire.DurablePolicy{Shared: true}, Max: 1, Wait: 5 * time.Second}
		a.write(control(wire.KindFetch, 1, "jobs", fetch))
		a.expect(wire.KindPublish, 1)
		a.expect(wire.KindAck, 1)
		fetch.Acked = []wire.Range{{From: 1, To: 1}}
		a.write(control(wire.KindFetch, 2, "jobs", fetch))
		synctest.Wait()
		c, _ := h.Client("a")
		if !h.SetPermit(c, c.Permit(), &hub.Permit{Identity: "x", Allows: func(wire.Action, string) bool { return false }}) {
			t.Fatal("not set")
		}
		a.expect(wire.KindSettings, 0)
		boss.publish(2, "jobs", "secret")
		if f := a.next(); f.Kind() != wire.KindError || f.fault().Code != wire.CodePermission {
			t.Errorf("who may do nothing any more gets %v", f)
		}
		fetch.Acked = nil
		b.write(control(wire.KindFetch, 1, "jobs", fetch))
		b.expect(wire.KindPublish, 1) // given back
	})
}
