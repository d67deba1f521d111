package hub_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/wire"
)

// Whoever has topics of its own deletes the durable subscriptions that it may use up all the
// same. Elsewhere that is for those who manage the hub, whatever else a client may do.
func TestWhoMayDeleteADurableSubscription(t *testing.T) {
	var none []wire.Action
	use := []wire.Action{wire.ActionSubscribe, wire.ActionHistory}
	manage := []wire.Action{wire.ActionManage}
	for name, test := range map[string]struct {
		own    bool
		may    []wire.Action // on topic "jobs"
		topic  string
		denied wire.Action // empty: it is deleted
	}{
		"its own":                             {true, use, "jobs", ""},
		"its own, without a right to history": {true, use[:1], "jobs", wire.ActionHistory},
		"its own, with nothing else":          {true, use[1:], "jobs", wire.ActionSubscribe},
		"its own, with no right":              {true, none, "jobs", wire.ActionSubscribe},
		"another topic's":                     {true, use, "other", wire.ActionSubscribe},
		"no topic's":                          {true, use, "", wire.ActionSubscribe},
		"everybody's":                         {false, use, "jobs", wire.ActionManage},
		"everybody's, by a manager":           {false, manage, "jobs", ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := start(t, hub.WithSettings(hub.Settings{History: history.Limits{MaxArtifacts: 10, MaxBytes: 1 << 20, MaxAge: time.Hour}}))
				boss := join(t, h, "boss")
				for i, topic := range []string{"jobs", "other"} {
					boss.write(control(wire.KindFetch, uint32(i+1), topic, wire.Fetch{Name: "d", Since: wire.SinceAll}))
					boss.expect(wire.KindAck, uint32(i+1))
				}
				p := join(t, h, "p", hub.WithPermit(&hub.Permit{Identity: "x", Own: test.own, Allows: func(action wire.Action, target string) bool {
					return slices.Contains(test.may, action) && (target == "jobs" || strings.HasPrefix(target, "$hub."))
				}}))
				p.write(frame(wire.KindSend, wire.FlagRequest, 1, "$hub.durables.delete", "p", fmt.Sprintf(`{"topic":%q,"name":"d"}`, test.topic)))
				if test.denied != "" {
					if f := p.expectFault(wire.KindError, 1, wire.CodePermission); f.Action != test.denied {
						t.Errorf("it lacks %q, want %q", f.Action, test.denied)
					}
				} else {
					p.expect(wire.KindReply, 1)
				}
				left, err := h.Ask(t.Context(), "durables")
				if err != nil {
					t.Fatal(err)
				}
				if there := strings.Contains(string(left), `"topic":"jobs"`); there != (test.denied != "") || !strings.Contains(string(left), `"topic":"other"`) {
					t.Errorf("what is left: %s", left)
				}
			})
		})
	}
}
