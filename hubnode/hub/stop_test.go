package hub_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/wire"
)

// crowd registers clients of a hub that runs, and queues as many artifacts for
// each as are said; it returns how many bytes wait for each.
func crowd(t *testing.T, h *hub.Hub, artifacts map[string]int) (conns map[string]net.Conn, waiting map[string]int) {
	t.Helper()
	conns, waiting = make(map[string]net.Conn), make(map[string]int)
	for id, n := range artifacts {
		hubs, far := net.Pipe()
		t.Cleanup(func() { _, _ = hubs.Close(), far.Close() })
		if err := h.RegisterClient(id, hubs); err != nil {
			t.Fatal(err)
		}
		for range n {
			if _, err := h.Route(t.Context(), &wire.Artifact{To: id, Payload: make([]byte, 1000)}); err != nil {
				t.Fatal(err)
			}
		}
		c, _ := h.Client(id)
		conns[id], waiting[id] = far, c.PendingBytes()
	}
	return conns, waiting
}

func TestStopSaysWhatItDropped(t *testing.T) {
	h := start(t)
	conns, waiting := crowd(t, h, map[string]int{"stuck": 100, "parted": 10, "idle": 0, "reads": 50})
	reads := newPeer(t, "reads", conns["reads"])
	if err := h.UnregisterClient("parted"); err != nil { // it has a second to read, which Stop cuts as well
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err := h.Stop(ctx)
	var short *hub.StopError
	if !errors.As(err, &short) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Stop = %v, want a StopError for the deadline", err)
	}
	want := hub.StopError{Cut: 3, Clients: 2, Bytes: int64(waiting["stuck"] + waiting["parted"]), Err: context.DeadlineExceeded}
	if *short != want {
		t.Errorf("Stop = %+v, want %+v", *short, want)
	}
	if all := reads.ended(); len(all) != 51 {
		t.Errorf("the client that reads got %d frames, want 50 and Goodbye", len(all))
	}
	if err := h.Stop(t.Context()); err != nil {
		t.Errorf("Stop again = %v, want nil", err)
	}
}

func TestStopSaysWhoStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, err := hub.New()
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, waiting := crowd(t, h, map[string]int{"stuck": 3, "idle": 0})
		begun := time.Now()
		err = h.Stop(context.Background())
		var short *hub.StopError
		if !errors.As(err, &short) || !errors.Is(err, hub.ErrStalled) || short.Clients != 1 || short.Bytes != int64(waiting["stuck"]) {
			t.Errorf("Stop = %#v, want %d bytes of one client that stalled", err, waiting["stuck"])
		}
		if took := time.Since(begun); took != 5*time.Second {
			t.Errorf("Stop took %v, want 5s", took)
		}
	})
}

// A client that was just removed has its second also when the hub stops
// meanwhile.
func TestStopWaitsForClientsThatAreLeaving(t *testing.T) {
	h := start(t)
	conns, _ := crowd(t, h, map[string]int{"leaving": 50})
	if err := h.UnregisterClient("leaving"); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- h.Stop(context.Background()) }()
	all := newPeer(t, "leaving", conns["leaving"]).ended()
	if err := <-stopped; err != nil {
		t.Errorf("Stop = %v", err)
	}
	if len(all) != 51 || all[50].fault().Code != wire.CodeRemoved {
		t.Errorf("%d frames came, want 50 and Goodbye", len(all))
	}
}

func TestStopErrorsReadWell(t *testing.T) {
	for want, err := range map[string]*hub.StopError{
		"3 clients took their goodbye": {Cut: 3, Err: context.Canceled},
		"2 clients took all that was queued for them, 99 bytes were dropped: context canceled": {Cut: 3, Clients: 2, Bytes: 99, Err: context.Canceled},
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not contain %q", err, want)
		}
	}
}
