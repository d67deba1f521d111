package hub_test

import (
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/wire"
)

// A client of ten thousand subscriptions renews its token as often as it likes.
func TestANewPermitDoesNotHoldUpOthers(t *testing.T) {
	h := start(t)
	a := join(t, h, "a", hub.WithPermit(permit("x")))
	a.subscribe(1, "t", wire.Subscription{})
	a.subscribe(2, "u", wire.Subscription{})
	asked, release := make(chan struct{}, 2), make(chan struct{})
	slow := &hub.Permit{Identity: "x", Allows: func(_ wire.Action, target string) bool {
		asked <- struct{}{}
		<-release
		return target == "u"
	}}
	c, _ := h.Client("a")
	set := make(chan bool)
	go func() { set <- h.SetPermit(c, c.Permit(), slow) }()
	<-asked
	joined := make(chan struct{})
	go func() {
		defer close(joined)
		join(t, h, "b")
	}()
	select {
	case <-joined:
	case <-time.After(2 * time.Second):
		t.Error("the whole hub waits for one client's permit")
	}
	close(release)
	if !<-set {
		t.Error("not set")
	}
	<-joined
	a.expect(wire.KindSettings, 0)
	a.expectFault(wire.KindError, 1, wire.CodePermission)
	if got := c.Topics(); len(got) != 2 {
		t.Errorf("subscribed to %q", got)
	}
}
