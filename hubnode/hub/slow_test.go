package hub_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/wire"
)

// Time stands still while anybody has something to do: the second that a client has to
// take its goodbye does not run out.
func TestSlowClientsHoldUpNobody(t *testing.T) {
	for _, policy := range []hub.Policy{hub.Disconnect, hub.DropOldest, hub.DropNewest, hub.Conflate} {
		t.Run(string(policy), func(t *testing.T) { synctest.Test(t, func(t *testing.T) { testSlowClient(t, policy) }) })
	}
}

func testSlowClient(t *testing.T, policy hub.Policy) {
	t.Helper()
	h := start(t, hub.WithSettings(hub.Settings{PendingBytes: 10_000, SlowClient: policy}))
	hubs, far := pair(t, "pipe")
	if err := h.RegisterClient("slow", hubs); err != nil {
		t.Fatal(err)
	}
	if err := h.Subscribe("slow", "t"); err != nil {
		t.Fatal(err)
	}
	quick, pub := join(t, h, "quick"), join(t, h, "pub")
	quick.subscribe(1, "t", wire.Subscription{})
	const artifacts = 1000
	for i := range artifacts {
		pub.publish(uint32(i+1), "t", fmt.Sprintf("%0100d", i))
		quick.expectPayload(1, fmt.Sprintf("%0100d", i))
	}
	if c, ok := h.Client("slow"); ok && c.PendingBytes() > 10_000 {
		t.Errorf("%d bytes wait", c.PendingBytes())
	}
	slow := newPeer(t, "slow", far)
	var received, lost int
	last := -1
	take := func(f got) {
		switch f.Kind() {
		case wire.KindPublish:
			for _, payload := range f.payloads() {
				received++
				var n int
				if _, err := fmt.Sscanf(payload, "%d", &n); err != nil || n <= last {
					t.Errorf("%d after %d, %v", n, last, err)
				}
				last = n
			}
		case wire.KindLost:
			lost += int(f.Sequence())
		default:
			t.Errorf("got %v", f)
		}
	}
	if policy == hub.Disconnect {
		all := slow.ended()
		fault := all[len(all)-1].fault()
		if fault.Code != wire.CodeSlowClient || fault.B != 10_000 {
			t.Errorf("goodbye with %+v", fault)
		}
		for _, f := range all[:len(all)-1] {
			take(f)
		}
		if m := h.Metrics(); m.SlowClients != 1 || m.ArtifactsDropped["slow_client"] == 0 {
			t.Errorf("%d slow clients, %v dropped", m.SlowClients, m.ArtifactsDropped)
		}
		return
	}
	for received+lost < artifacts {
		take(slow.next())
	}
	if want := h.Metrics().ArtifactsDropped["slow_client"]; lost == 0 || uint64(lost) != want {
		t.Errorf("told of %d lost ones, the hub counts %d", lost, want)
	}
	if newest := last == artifacts-1; newest == (policy == hub.DropNewest) {
		t.Errorf("the last one that came is %d", last)
	}
	if c, _ := h.Client("slow"); c.DroppedArtifacts() != uint64(lost) {
		t.Errorf("DroppedArtifacts = %d, want %d", c.DroppedArtifacts(), lost)
	}
	slow.quiet()
}

// Of a stream of updates, a slow client gets the newest for each key, and is
// told how many it did not get.
func TestASlowClientGetsTheNewestOfEachKey(t *testing.T) {
	h := start(t, hub.WithSettings(hub.Settings{PendingBytes: 10_000, SlowClient: hub.Conflate, ConflateKey: "symbol"}))
	hubs, far := pair(t, "pipe")
	if err := h.RegisterClient("slow", hubs); err != nil {
		t.Fatal(err)
	}
	if err := h.Subscribe("slow", "prices.*"); err != nil {
		t.Fatal(err)
	}
	const artifacts, symbols = 5000, 20
	for i := range artifacts {
		a := &wire.Artifact{Topic: "prices.live", Payload: fmt.Append(nil, i), Attributes: map[string]string{"symbol": fmt.Sprint(i % symbols)}}
		if n, err := h.Route(t.Context(), a); n != 1 || err != nil {
			t.Fatalf("Route = %d, %v", n, err)
		}
	}
	slow := newPeer(t, "slow", far)
	received, lost := 0, 0
	newest := make(map[string]bool)
	for received+lost < artifacts {
		switch f := slow.next(); f.Kind() {
		case wire.KindLost:
			lost += int(f.Sequence())
		default:
			received += f.Count()
			for _, payload := range f.payloads() {
				newest[payload] = true
			}
		}
	}
	for i := artifacts - symbols; i < artifacts; i++ {
		if !newest[fmt.Sprint(i)] {
			t.Errorf("%d did not come, though it is the newest of its symbol", i)
		}
	}
	c, _ := h.Client("slow")
	if want := h.Metrics().ArtifactsDropped["slow_client"]; received > artifacts/2 || uint64(lost) != want || c.DroppedArtifacts() != want {
		t.Errorf("%d came, told of %d lost ones; the hub counts %d, the client %d", received, lost, want, c.DroppedArtifacts())
	}
	slow.quiet()
}

// A client that falls behind on live artifacts keeps what has history.
func TestDroppingLeavesTopicsWithHistoryWhole(t *testing.T) {
	h := start(t, hub.WithSettings(hub.Settings{PendingBytes: 4000, SlowClient: hub.DropOldest}), hub.WithHistory("kept", 1<<20))
	hubs, far := pair(t, "pipe")
	if err := h.RegisterClient("slow", hubs); err != nil {
		t.Fatal(err)
	}
	if err := h.Subscribe("slow", "kept", "live"); err != nil {
		t.Fatal(err)
	}
	const artifacts = 500
	for range artifacts {
		for _, topic := range []string{"kept", "live"} {
			_, err := h.Route(t.Context(), &wire.Artifact{Topic: topic, Payload: make([]byte, 100)})
			if _, missed := errors.AsType[*hub.UndeliveredError](err); err != nil && (!missed || topic == "kept") {
				t.Fatal(err)
			}
		}
	}
	slow := newPeer(t, "slow", far)
	for next := wire.Sequence(1); next <= artifacts; {
		f := slow.next()
		if string(f.Target()) != "kept" {
			continue
		}
		if f.Sequence() != next {
			t.Fatalf("got %v, want sequence %d", f, next)
		}
		next += wire.Sequence(f.Count())
	}
}
