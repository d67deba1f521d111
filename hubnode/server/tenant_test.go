package server_test

import (
	"testing"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/hubnode/server"
	"github.com/switchboardhub/switchboard/wire"
)

// Answers are free, and none gets from one tenant to another: nothing that one sends tells it
// so much as who is there.
func TestAnswersStayWithTheTenant(t *testing.T) {
	_, _, addr := serveWith(t, hub.Settings{}, func(cfg *server.Config) { cfg.Door = door{} })
	enter := func(id, token string) *raw {
		c := dial(t, addr)
		c.send(wire.AppendControl(nil, wire.Header{Kind: wire.KindHello}, "", wire.Hello{MinVersion: wire.Version, MaxVersion: wire.Version, ID: id, Token: token}))
		if f := c.next(); f.Kind() != wire.KindWelcome {
			t.Fatalf("%s is answered by kind %d: %s", id, f.Kind(), f.Body())
		}
		return c
	}
	victim, admin, spy := enter("w", "tenant"), enter("admin", ""), enter("spy", "other tenant")
	for _, to := range []string{"/shop/w", "/shop//w", "shop/w", "/admin"} {
		var run wire.Run
		if err := run.Append(&wire.Artifact{ID: wire.ID{1}, Payload: []byte("psst")}, 1<<10); err != nil {
			t.Fatal(err)
		}
		spy.send(wire.AppendFrame(nil, wire.Header{Kind: wire.KindReply, Flags: wire.FlagAck, Count: 1, Ref: 5}, to, "spy", run.Body()))
	}
	ping := wire.AppendFrame(nil, wire.Header{Kind: wire.KindPing, Ref: 7}, "", "", nil)
	spy.send(ping)
	var acks int
	for {
		f := spy.next()
		if f.Kind() == wire.KindPong {
			break
		}
		if f.Kind() == wire.KindAck {
			acks++
		}
	}
	if acks > 1 { // whoever is of no tenant can be answered
		t.Errorf("%d of the answers are acknowledged", acks)
	}
	victim.send(ping)
	if f := victim.next(); f.Kind() != wire.KindPong {
		t.Errorf("the other tenant's client gets a frame of kind %d from %s", f.Kind(), f.From())
	}
	if f := admin.next(); f.Kind() != wire.KindReply || string(f.From()) != "bank/spy" {
		t.Errorf("who is of no tenant gets a frame of kind %d from %s", f.Kind(), f.From())
	}
}
