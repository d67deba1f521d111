package hub_test

import (
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRouteReachesSubscribers(t *testing.T) {
	a, b := net.Pipe()
	h, err := hub.New(hub.WithClient("a", a), hub.WithTopics("a", "news.>"))
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	n, err := h.Route(t.Context(), &wire.Artifact{Topic: "news.x", Payload: []byte("hello")})
	if n != 1 || err != nil {
		t.Fatalf("Route = %d, %v; want 1, nil", n, err)
	}
	r := wire.NewReader(b, wire.MaxFrame(1<<20))
	_ = b.SetReadDeadline(time.Now().Add(10 * time.Second))
	f, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	if got := string(f.Target()); got != "news.x" {
		t.Errorf("frame is for %q, want news.x", got)
	}
	r.Close()
	go func() { // takes the goodbye
		buf := make([]byte, 1024)
		for {
			if _, err := b.Read(buf); err != nil {
				return
			}
		}
	}()
	if err := h.Stop(t.Context()); err != nil {
		t.Errorf("Stop = %v", err)
	}
	_ = b.Close()
}
