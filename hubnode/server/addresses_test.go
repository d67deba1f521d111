package server_test

import (
	"net"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/hubnode/server"
	"github.com/switchboardhub/switchboard/hubnode/strangers"
	"github.com/switchboardhub/switchboard/wire"
)

// One connection too many from an address hears so, and there is room again when one ends:
// of those that never shook hands, of those that were refused, and of clients.
func TestAnAddressHasSoManyConnections(t *testing.T) {
	h, s, addr := serveWith(t, hub.Settings{}, func(cfg *server.Config) {
		cfg.PerAddress = func() strangers.PerAddress { return strangers.PerAddress{Connections: 2} }
	})
	// try returns a client, nil when it is turned away.
	try := func(id string) *raw {
		t.Helper()
		c := dial(t, addr)
		c.send(hello(id))
		f := c.next()
		switch fault := wire.ParseFault(f.Body()); {
		case f.Kind() == wire.KindWelcome:
			return c
		case f.Kind() == wire.KindError && fault.Code == wire.CodeTooManyClients:
			return nil
		}
		t.Fatalf("the answer is of kind %d: %s", f.Kind(), f.Body())
		return nil
	}
	// enter is try until there is room: the hub hears of an end a little later.
	enter := func(id string) *raw {
		t.Helper()
		for deadline := time.Now().Add(patience); ; {
			if c := try(id); c != nil {
				return c
			} else if time.Now().After(deadline) {
				t.Fatal("there is no room again")
			}
		}
	}
	member := enter("member")
	silent, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if try("late") != nil { // the silent one was accepted before it
		t.Error("a third connection is taken")
	}
	_ = silent.Close()
	wrong := enter("wrong")
	wrong.send(wire.AppendFrame(nil, wire.Header{Kind: wire.KindHello}, "", "", nil)) // ends it
	other := enter("other")
	if err := h.UnregisterClient("member"); err != nil {
		t.Fatal(err)
	}
	member.next() // Goodbye
	_ = other.conn.Close()
	enter("a")
	enter("b") // beside a: nothing of all that is left
	if number, rate := s.TurnedAway(); number == 0 || rate != 0 {
		t.Errorf("%d and %d were turned away", number, rate)
	}
}
