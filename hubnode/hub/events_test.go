package hub_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/wire"
)

// diary is a listener that writes down what it hears.
type diary struct {
	mu    sync.Mutex // guards lines
	lines []string
	left  chan hub.ClientLeft
}

func newDiary() *diary { return &diary{left: make(chan hub.ClientLeft, 1000)} }

func (d *diary) hear(e hub.Event) {
	line := ""
	switch e := e.(type) {
	case hub.ClientJoined:
		line = fmt.Sprintf("%s/%d joined", e.Client.ID(), e.Client.Epoch())
	case hub.ClientLeft:
		line = fmt.Sprintf("%s/%d left", e.Client.ID(), e.Client.Epoch())
	}
	d.mu.Lock()
	d.lines = append(d.lines, line)
	d.mu.Unlock()
	if e, ok := e.(hub.ClientLeft); ok {
		d.left <- e
	}
}

func (d *diary) read() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.lines)
}

func (d *diary) expect(t *testing.T, want ...string) {
	t.Helper()
	if got := d.read(); !slices.Equal(got, want) {
		t.Errorf("events are %q, want %q", got, want)
	}
}

func TestClientsLeaveWithAReason(t *testing.T) {
	isA := func(target any) func(error) bool {
		return func(err error) bool { return errors.As(err, target) }
	}
	is := func(target error) func(error) bool {
		return func(err error) bool { return errors.Is(err, target) }
	}
	code := func(want wire.Code) func(error) bool {
		return func(err error) bool {
			coded, ok := errors.AsType[*wire.Error](err)
			return ok && coded.Code == want
		}
	}
	for name, test := range map[string]struct {
		leave   func(h *hub.Hub, far net.Conn)
		reason  func(error) bool
		counted string
	}{
		"goodbye": {
			func(_ *hub.Hub, far net.Conn) { _, _ = far.Write(control(wire.KindGoodbye, 0, "", nil)) },
			is(hub.ErrLeft), "goodbye",
		},
		"a closed connection": {
			func(_ *hub.Hub, far net.Conn) { _ = far.Close() },
			is(hub.ErrDisconnected), "disconnected",
		},
		"a connection closed in the middle of a frame": {
			func(_ *hub.Hub, far net.Conn) {
				_, _ = far.Write([]byte{0, 0})
				_ = far.Close()
			},
			is(hub.ErrDisconnected), "disconnected",
		},
		"bad input": {
			func(_ *hub.Hub, far net.Conn) { _, _ = far.Write(control(99, 0, "", nil)) },
			code(wire.CodeUnknownKind), "bad_input",
		},
		"removed": {
			func(h *hub.Hub, _ net.Conn) { _ = h.UnregisterClient("a") },
			code(wire.CodeRemoved), "removed",
		},
		"replaced": {
			func(h *hub.Hub, _ net.Conn) { h.Supersede("a", func(uint64) bool { return true }) },
			isA(new(*hub.SessionReplacedError)), "replaced",
		},
		"slow": {
			func(h *hub.Hub, _ net.Conn) {
				for range 3 {
					_, _ = h.Route(context.Background(), &wire.Artifact{To: "a", Payload: make([]byte, 6000)})
				}
			},
			isA(new(*hub.SlowClientError)), "slow",
		},
		"the hub's end": {
			func(h *hub.Hub, _ net.Conn) {
				ctx, cancel := context.WithCancel(context.Background())
				cancel()
				_ = h.Stop(ctx)
			},
			is(hub.ErrStopped), "stopped",
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDiary()
			h := start(t, hub.WithEvents(d.hear), hub.WithSettings(hub.Settings{PendingBytes: 10_000}))
			hubs, far := pair(t, "pipe")
			if err := h.RegisterClient("a", hubs); err != nil {
				t.Fatal(err)
			}
			c, _ := h.Client("a")
			test.leave(h, far)
			left := <-d.left
			if !test.reason(left.Reason) || left.Client != c || !errors.Is(c.Reason(), left.Reason) {
				t.Errorf("%s left for %v (%T), Reason = %v", left.Client.ID(), left.Reason, left.Reason, c.Reason())
			}
			if _, ok := h.Client("a"); ok {
				t.Error("the client is still there when it is said to have left")
			}
			if m := h.Metrics(); m.ClientsLeft[test.counted] != 1 || m.ClientsJoined != 1 {
				t.Errorf("%d joined and left for %v; want one for %s", m.ClientsJoined, m.ClientsLeft, test.counted)
			}
			d.expect(t, "a/1 joined", "a/1 left")
			_ = far.Close()
		})
	}
}

func TestAWriteErrorTellsDisconnectsFromOtherFaults(t *testing.T) {
	broken := errors.New("certificate expired")
	for name, test := range map[string]struct {
		fault        error
		disconnected bool
	}{
		"reset":            {&net.OpError{Op: "write", Err: os.NewSyscallError("write", syscall.ECONNRESET)}, true},
		"broken pipe":      {&net.OpError{Op: "write", Err: os.NewSyscallError("write", syscall.EPIPE)}, true},
		"no keep-alive":    {&net.OpError{Op: "write", Err: os.NewSyscallError("write", syscall.ETIMEDOUT)}, true},
		"closed":           {net.ErrClosed, true},
		"closed in memory": {io.ErrClosedPipe, true},
		"a deadline":       {os.ErrDeadlineExceeded, false},
		"anything else":    {broken, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDiary()
			h := start(t, hub.WithEvents(d.hear))
			if err := h.RegisterClient("a", &halfOpen{gone: make(chan struct{}), fault: test.fault}); err != nil {
				t.Fatal(err)
			}
			if _, err := h.Route(t.Context(), &wire.Artifact{To: "a"}); err != nil {
				t.Fatal(err)
			}
			reason := (<-d.left).Reason
			fault, ok := errors.AsType[*hub.ConnectionError](reason)
			if !ok || fault.Op != "write" || !errors.Is(reason, test.fault) {
				t.Errorf("left for %v, want a ConnectionError in writing: %v", reason, test.fault)
			}
			if errors.Is(reason, hub.ErrDisconnected) != test.disconnected {
				t.Errorf("%v is ErrDisconnected: %v, want %v", reason, !test.disconnected, test.disconnected)
			}
			counted := map[bool]string{true: "disconnected", false: "connection_fault"}[test.disconnected]
			if left := h.Metrics().ClientsLeft; left[counted] != 1 {
				t.Errorf("left for %v, want one for %s", left, counted)
			}
		})
	}
}

func TestAReplacedSessionHasLeftBeforeTheNextJoins(t *testing.T) {
	d := newDiary()
	h := start(t, hub.WithEvents(d.hear))
	for range 3 {
		join(t, h, "a")
	}
	stop(t, h)
	d.expect(t, "a/1 joined", "a/1 left", "a/2 joined", "a/2 left", "a/3 joined", "a/3 left")
}

func TestEventsWaitForStart(t *testing.T) {
	for _, started := range []bool{true, false} {
		t.Run(fmt.Sprintf("started=%v", started), func(t *testing.T) {
			d := newDiary()
			hubs, _ := pair(t, "pipe")
			h, err := hub.New(hub.WithClient("a", hubs), hub.WithEvents(d.hear))
			if err != nil {
				t.Fatal(err)
			}
			if got := d.read(); len(got) != 0 {
				t.Errorf("before Start the hub raised %q", got)
			}
			if started {
				if err := h.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				eventually(t, "the client of New is announced", func() bool { return len(d.read()) == 1 })
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // nobody reads
			_ = h.Stop(ctx)
			d.expect(t, "a/1 joined", "a/1 left")
		})
	}
}

func TestAListenerHearsOfWhoIsThere(t *testing.T) {
	h := start(t)
	join(t, h, "a")
	d, canceled := newDiary(), newDiary()
	defer h.OnEvent(d.hear)()
	cancel := h.OnEvent(canceled.hear)
	eventually(t, "both hear of the one that is there", func() bool { return len(d.read()) == 1 && len(canceled.read()) == 1 })
	cancel()
	cancel()
	join(t, h, "b")
	stop(t, h)
	canceled.expect(t, "a/1 joined")
	if got := d.read(); len(got) != 4 || got[1] != "b/1 joined" {
		t.Errorf("events are %q", got)
	}
	after := newDiary()
	h.OnEvent(after.hear)()
	after.expect(t)
}

func TestAListenerMayCallTheHub(t *testing.T) {
	var h *hub.Hub
	ready := make(chan struct{})
	d := newDiary()
	h = start(t, hub.WithEvents(d.hear), hub.WithEvents(func(e hub.Event) {
		<-ready
		if e, ok := e.(hub.ClientJoined); ok && e.Client.ID() != "keeper" {
			_ = h.UnregisterClient(e.Client.ID())
		}
	}))
	close(ready)
	join(t, h, "keeper")
	join(t, h, "a").ended()
	if left := <-d.left; left.Client.ID() != "a" {
		t.Errorf("%s left", left.Client.ID())
	}
}

func TestASlowListenerDelaysNobody(t *testing.T) {
	resume := make(chan struct{})
	slow, quick := newDiary(), newDiary()
	h := start(t, hub.WithEvents(func(e hub.Event) {
		<-resume
		slow.hear(e)
	}), hub.WithEvents(quick.hear))
	a, b := join(t, h, "a"), join(t, h, "b")
	a.write(frame(wire.KindSend, wire.FlagAck, 1, "b", "a", "hello"))
	a.expect(wire.KindAck, 1)
	b.expect(wire.KindSend, 1)
	if err := h.UnregisterClient("b"); err != nil {
		t.Fatal(err)
	}
	b.ended()
	<-quick.left
	stopped := make(chan error, 1)
	go func() { stopped <- h.Stop(context.Background()) }()
	a.ended()
	select {
	case <-stopped:
		t.Error("Stop returned before the listener had heard everything")
	default:
	}
	slow.expect(t)
	close(resume)
	if err := <-stopped; err != nil {
		t.Errorf("Stop = %v", err)
	}
	want := []string{"a/1 joined", "b/1 joined", "b/1 left", "a/1 left"}
	slow.expect(t, want...)
	quick.expect(t, want...)
}

// ledger checks that the sessions of each id begin and end in turn.
type ledger struct {
	t            *testing.T
	there        map[string]*hub.Client
	joined, left uint64
}

func (l *ledger) hear(e hub.Event) {
	switch e := e.(type) {
	case hub.ClientJoined:
		l.joined++
		if older := l.there[e.Client.ID()]; older != nil {
			l.t.Errorf("%s joined as %d, but %d has not left", e.Client.ID(), e.Client.Epoch(), older.Epoch())
		}
		l.there[e.Client.ID()] = e.Client
	case hub.ClientLeft:
		l.left++
		if l.there[e.Client.ID()] != e.Client {
			l.t.Errorf("%s/%d left, but had not joined", e.Client.ID(), e.Client.Epoch())
		}
		if e.Reason == nil || !errors.Is(e.Client.Reason(), e.Reason) {
			l.t.Errorf("%s left for %v, Reason = %v", e.Client.ID(), e.Reason, e.Client.Reason())
		}
		delete(l.there, e.Client.ID())
	}
}
