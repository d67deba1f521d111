package server_test

import (
	"net"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/hubnode/server"
	"github.com/switchboardhub/switchboard/wire"
)

// Those that come too fast wait, and all of them get in.
func TestConnectionsWaitForTheirTurn(t *testing.T) {
	_, s, addr := serveWith(t, hub.Settings{}, func(cfg *server.Config) {
		cfg.PerSecond = func() int { return 50 }
	})
	const all = 20
	var conns [all]*raw
	for i := range conns {
		conns[i] = dial(t, addr)
	}
	for i, c := range conns {
		join := hello(string(rune('a' + i)))
		c.send(join)
		if f := c.next(); f.Kind() != wire.KindWelcome {
			t.Fatalf("number %d is answered with kind %d: %s", i+1, f.Kind(), f.Body())
		}
	}
	if s.Delayed() == 0 {
		t.Error("nobody waited")
	}
}

// A server that makes somebody wait for long stops at once; the server's cleanup waits for it.
func TestAServerThatMakesSomebodyWaitStops(t *testing.T) {
	_, s, addr := serveWith(t, hub.Settings{}, func(cfg *server.Config) {
		cfg.PerSecond = func() int { return 1 }
	})
	for range 2 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	for deadline := time.Now().Add(patience); s.Delayed() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody waits")
		}
	}
}
