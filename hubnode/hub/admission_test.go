package hub_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/wire"
)

func TestAdmit(t *testing.T) {
	full := &wire.Error{Code: wire.CodeOverloaded, Detail: "full", Elsewhere: []string{"b:7400"}}
	for name, test := range map[string]struct {
		admission hub.Admission
		admitted  []string
	}{
		"all":   {hub.AdmitAll, []string{"here", "away", "new"}},
		"known": {hub.AdmitKnown, []string{"here", "away"}},
		"none":  {hub.AdmitNone, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := start(t, hub.WithSettings(hub.Settings{ResumeWindow: time.Minute}))
				here := join(t, h, "here")
				away := join(t, h, "away", hub.WithSession(hub.Resume{Attempt: 1}))
				_ = away.conn.Close() // as a lost network does
				synctest.Wait()

				h.Admit(test.admission, func() error { return full })
				here.quiet() // it stays
				refused := uint64(0)
				for _, id := range []string{"here", "away", "new"} {
					hubs, far := pair(t, "pipe")
					err := h.RegisterClient(id, hubs, hub.WithSession(hub.Resume{Attempt: 2}))
					admitted := slices.Contains(test.admitted, id)
					switch {
					case admitted && err != nil:
						t.Errorf("%s is refused: %v", id, err)
					case admitted:
						newPeer(t, id, far)
					case !errors.Is(err, full):
						t.Errorf("%s: %v, want %v", id, err, full)
					default:
						refused++
					}
				}
				if got := h.Metrics().ClientsRefused["memory"]; got != refused {
					t.Errorf("%d are counted as refused, want %d", got, refused)
				}
				h.Admit(hub.AdmitAll, nil)
				join(t, h, "later").quiet()
			})
		})
	}
}

// Those go that most waits for, no more of them than have to, and nobody who reads.
func TestShedLetsTheSlowestGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, hub.WithSettings(hub.Settings{PendingBytes: 16 << 20, ResumeWindow: time.Minute}))
		quick, pub := join(t, h, "quick"), join(t, h, "pub")
		quick.subscribe(1, "slow.>", wire.Subscription{})
		far := make(map[string]*peer)
		for name, kibibytes := range map[string]int{"little": 32, "some": 200, "more": 300, "most": 400} {
			hubs, conn := pair(t, "pipe")
			if err := h.RegisterClient(name, hubs, hub.WithSession(hub.Resume{Attempt: 1})); err != nil {
				t.Fatal(err)
			}
			if err := h.Subscribe(name, "slow."+name); err != nil {
				t.Fatal(err)
			}
			for i := range kibibytes {
				pub.publish(uint32(i+1), "slow."+name, strings.Repeat("x", 1<<10))
			}
			far[name] = &peer{t: t, id: name, conn: conn}
		}
		synctest.Wait() // quick has taken all that it is sent
		present := func() string {
			var there []string
			for _, name := range []string{"little", "some", "more", "most", "quick", "pub"} {
				if _, ok := h.Client(name); ok {
					there = append(there, name)
				}
			}
			return strings.Join(there, " ")
		}
		for _, step := range []struct {
			bytes, freed int64 // KiB
			left         string
		}{
			{0, 0, "little some more most quick pub"},
			{1, 400, "little some more quick pub"},
			{330, 500, "little quick pub"},
			{1, 0, "little quick pub"},
		} {
			if freed := h.Shed(step.bytes << 10); freed>>10 < step.freed || freed>>10 > step.freed*11/10 {
				t.Errorf("Shed(%d KiB) = %d KiB, want %d", step.bytes, freed>>10, step.freed)
			}
			if got := present(); got != step.left {
				t.Errorf("after Shed(%d KiB) there are %s, want %s", step.bytes, got, step.left)
			}
		}
		if m := h.Metrics(); m.ClientsLeft["shed"] != 3 || m.Sessions != m.ActiveClients+3 {
			t.Errorf("%d clients, %d sessions, %v left: the sessions should stay", m.ActiveClients, m.Sessions, m.ClientsLeft)
		}
		newPeer(t, "most", far["most"].conn).ended()
		for range 932 {
			quick.expect(wire.KindPublish, 1)
		}
		quick.quiet()
		_ = far["little"].conn.Close() // or the hub would wait for it to take what is queued
		synctest.Wait()
	})
}

// Who was too slow and is leaving holds on to its queue until it has taken it, or for a second.
// That is over when memory is needed.
func TestShedEndsGoodbyes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, hub.WithSettings(hub.Settings{PendingBytes: 1 << 20}))
		hubs, far := pair(t, "pipe")
		if err := h.RegisterClient("slow", hubs); err != nil {
			t.Fatal(err)
		}
		if err := h.Subscribe("slow", "t"); err != nil {
			t.Fatal(err)
		}
		pub := join(t, h, "pub")
		left := func() bool { _, there := h.Client("slow"); return !there }
		for i := 1; !left(); i++ {
			pub.publish(uint32(i), "t", strings.Repeat("x", 100<<10))
		}
		synctest.Wait() // for its goodbye to begin
		if freed := h.Shed(1); freed < 900<<10 {
			t.Errorf("Shed = %d bytes, want about a mebibyte", freed)
		}
		before := time.Now()
		newPeer(t, "slow", far).ended()
		if waited := time.Since(before); waited != 0 {
			t.Errorf("the connection ended after %v", waited)
		}
		if m := h.Metrics(); m.ClientsLeft["slow"] != 1 || m.ClientsLeft["shed"] != 0 {
			t.Errorf("left: %v", m.ClientsLeft)
		}
	})
}
