package hub_test

import (
	"strings"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/wire"
)

// What is given up goes to the dead-letter topic in the name of who published it, at the
// word of who fetches.
func TestWhoMayNotPublishHasNoDeadLetters(t *testing.T) {
	h := start(t, hub.WithSettings(hub.Settings{History: history.Limits{MaxArtifacts: 10, MaxBytes: 1 << 20, MaxAge: time.Hour}}))
	watch := join(t, h, "watch")
	watch.subscribe(1, "payroll", wire.Subscription{})
	mine := &hub.Permit{Identity: "x", Allows: func(_ wire.Action, target string) bool { return target == "mine" || target == "letters" }}
	a := join(t, h, "a", hub.WithPermit(mine))
	a.publish(1, "mine", "pay me")
	ref := uint32(1)
	fetch := func(f wire.Fetch) {
		ref++
		f.Name = "d"
		f.Policy.MaxDeliveries, f.Policy.AckWait = 1, wire.MinAckWait
		a.write(control(wire.KindFetch, ref, "mine", f))
	}
	to := wire.DurablePolicy{DeadLetter: "payroll"}
	fetch(wire.Fetch{Policy: to, Max: 1})
	f := a.next()
	if f.Kind() == wire.KindPublish { // let in: give it up, and see where it goes
		a.expect(wire.KindAck, ref)
		fetch(wire.Fetch{Policy: to, Failed: []wire.Range{{From: 1, To: 1}}})
		a.expect(wire.KindAck, ref)
		fetch(wire.Fetch{Policy: to, Max: 1, Wait: time.Second})
		t.Fatalf("published where no rule allows it: %v", watch.expect(wire.KindPublish, 1).payloads())
	}
	if f.Kind() != wire.KindError || f.fault().Code != wire.CodePermission || !strings.Contains(f.fault().Detail, "payroll") {
		t.Errorf("got %v", f)
	}
	fetch(wire.Fetch{Policy: wire.DurablePolicy{DeadLetter: "letters"}, Max: 1})
	a.expect(wire.KindPublish, ref)
}
