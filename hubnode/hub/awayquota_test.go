package hub_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/wire"
)

// Sessions that wait for their clients take places of all: an identity has no more of them
// than it may have clients.
func TestSessionsThatWaitAreTheirIdentitys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, hub.WithSettings(hub.Settings{ResumeWindow: time.Minute, MaxClients: 5, PerIdentity: hub.Quota{Clients: 2}}))
		resumable := hub.WithSession(hub.Resume{Attempt: 1})
		come := func(id, identity string) error {
			hubs, clients := pair(t, "pipe")
			err := h.RegisterClient(id, hubs, hub.WithPermit(permit(identity)), resumable)
			if err == nil {
				_ = newPeer(t, id, clients)
				_ = clients.Close() // without a goodbye
				synctest.Wait()
			}
			return err
		}
		for i := range 2 {
			if err := come(fmt.Sprintf("x%d", i), "x"); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 6 {
			var fault *wire.Error
			if err := come(fmt.Sprintf("y%d", i), "x"); !errors.As(err, &fault) || fault.Code != wire.CodeTooManyClients {
				t.Errorf("client %d more than it may have: %v", i+1, err)
			}
		}
		for range 3 { // in the place of its own
			if err := come("x0", "x"); err != nil {
				t.Error(err)
			}
		}
		if err := come("z", "z"); err != nil {
			t.Errorf("another identity: %v", err)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if err := come("y0", "x"); err != nil {
			t.Errorf("when they have ended: %v", err)
		}
	})
}
