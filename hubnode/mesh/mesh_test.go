package mesh_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/switchboardhub/switchboard/hubnode/mesh"
	"github.com/switchboardhub/switchboard/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 10 * time.Second

// end is one node's side of the mesh, and what it saw.
type end struct {
	name string
	addr string
	mesh *mesh.Mesh

	linked   chan *mesh.Link
	unlinked chan mesh.Peer
	frames   chan wire.Frame

	mu     sync.Mutex // guards answer
	answer func(ctx context.Context, question string, body []byte) ([]byte, error)
}

func (e *end) Linked(_ mesh.Peer, link *mesh.Link) mesh.Taker {
	e.linked <- link
	return taker{e}
}
func (e *end) Unlinked(peer mesh.Peer, _ *mesh.Link) { e.unlinked <- peer }

func (e *end) Waits(question string) bool { return question == "wait" }

func (e *end) Answer(ctx context.Context, question string, body []byte) ([]byte, error) {
	e.mu.Lock()
	answer := e.answer
	e.mu.Unlock()
	return answer(ctx, question, body)
}

type taker struct{ *end }

func (t taker) Take(f wire.Frame, _ *wire.Slab) { t.frames <- bytes.Clone(f) }
func (t taker) Flush()                          {}

// start runs a mesh until the test ends.
func start(t *testing.T, name string, incarnation uint64) *end {
	t.Helper()
	return startWith(t, name, incarnation, nil)
}

// startWith runs a mesh with TLS, as far as there is any.
func startWith(t *testing.T, name string, incarnation uint64, secure func() mesh.TLS) *end {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return startOn(t, ln, name, incarnation, secure)
}

// startOn runs a mesh that accepts on ln.
func startOn(t *testing.T, ln net.Listener, name string, incarnation uint64, secure func() mesh.TLS) *end {
	t.Helper()
	e := &end{
		name: name, addr: ln.Addr().String(),
		linked: make(chan *mesh.Link, 10), unlinked: make(chan mesh.Peer, 10), frames: make(chan wire.Frame, 10_000),
	}
	e.answer = func(_ context.Context, question string, body []byte) ([]byte, error) {
		return append([]byte(name+" "+question+" "), body...), nil
	}
	e.mesh = mesh.New(mesh.Config{Hub: "hub", Self: mesh.Peer{Name: name, Incarnation: incarnation}, Handler: e, Log: slog.New(slog.DiscardHandler), TLS: secure}, ln)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.mesh.Run(ctx) }() // ended and waited for below
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s: Run = %v", name, err)
		}
	})
	return e
}

// refused returns how many links were, for any reason.
func (e *end) refused() (n uint64) {
	for _, count := range e.mesh.Refused() {
		n += count
	}
	return n
}

func (e *end) peer(incarnation uint64) mesh.Peer {
	return mesh.Peer{Name: e.name, Incarnation: incarnation, Addr: e.addr}
}

func wait[T any](t *testing.T, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("no %s within %s", what, patience)
		panic("unreachable")
	}
}

// pair is two linked nodes.
func pair(t *testing.T) (a, b *end, toB, toA *mesh.Link) {
	t.Helper()
	a = start(t, "node-0", 1)
	b = start(t, "node-1", 1)
	a.mesh.SetPeers([]mesh.Peer{b.peer(1)})
	b.mesh.SetPeers([]mesh.Peer{a.peer(1)})
	return a, b, wait(t, "link", a.linked), wait(t, "link", b.linked)
}

func TestPairHasOneLinkInBothDirections(t *testing.T) {
	a, b, toB, toA := pair(t)
	if toB.Peer().Name != "node-1" || toA.Peer().Name != "node-0" {
		t.Errorf("links are to %q and %q", toB.Peer().Name, toA.Peer().Name)
	}
	// A link is told of before it is counted.
	for deadline := time.Now().Add(patience); a.mesh.Links() != 1 || b.mesh.Links() != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d and %d links are up, want one each", a.mesh.Links(), b.mesh.Links())
		}
	}
	toB.Say(wire.AppendFrame(nil, wire.Header{Kind: wire.KindSend, Ref: 1}, "x", "", nil))
	toA.Say(wire.AppendFrame(nil, wire.Header{Kind: wire.KindSend, Ref: 2}, "y", "", nil))
	if f := wait(t, "frame", b.frames); f.Ref() != 1 {
		t.Errorf("node-1 got ref %d, want 1", f.Ref())
	}
	if f := wait(t, "frame", a.frames); f.Ref() != 2 {
		t.Errorf("node-0 got ref %d, want 2", f.Ref())
	}
}

func TestFramesArriveInOrderAndWhole(t *testing.T) {
	_, b, toB, _ := pair(t)
	const count = 2000
	for i := range count {
		body := bytes.Repeat([]byte{byte(i)}, i%100)
		if i%100 == 0 {
			body = bytes.Repeat([]byte{byte(i)}, 200_000) // larger than a slab
		}
		f := wire.AppendFrame(nil, wire.Header{Kind: wire.KindPublish, Ref: uint32(i)}, "t", "", body)
		toB.Push(f[:wire.HeaderSize], f[wire.HeaderSize:], nil)
		if i%10 == 0 {
			toB.Flush()
		}
	}
	toB.Flush()
	for i := range count {
		f := wait(t, "frame", b.frames)
		if int(f.Ref()) != i {
			t.Fatalf("frame %d has ref %d", i, f.Ref())
		}
		for _, c := range f.Body() {
			if c != byte(i) {
				t.Fatalf("frame %d is damaged", i)
			}
		}
	}
}

func TestAskIsAnswered(t *testing.T) {
	a, b, _, _ := pair(t)
	got, err := a.mesh.Ask(t.Context(), "node-1", "how", []byte("now"))
	if string(got) != "node-1 how now" || err != nil {
		t.Errorf("Ask = %q, %v", got, err)
	}
	b.mu.Lock()
	b.answer = func(context.Context, string, []byte) ([]byte, error) { return nil, &wire.NoClientError{ID: "x"} }
	b.mu.Unlock()
	var noClient *wire.NoClientError
	if _, err := a.mesh.Ask(t.Context(), "node-1", "who", nil); !errors.As(err, &noClient) || noClient.ID != "x" {
		t.Errorf("Ask = %v, want the answerer's NoClientError", err)
	}
}

// The other side would end the link for it, and what else is on it.
func TestAQuestionThatIsTooLargeIsNotAsked(t *testing.T) {
	a, _, _, _ := pair(t)
	var coded *wire.Error
	if _, err := a.mesh.Ask(t.Context(), "node-1", "q", make([]byte, 32<<20)); !errors.As(err, &coded) || coded.Code != wire.CodeFrameTooLarge {
		t.Errorf("Ask = %v, want that it is too large", err)
	}
	if _, err := a.mesh.Ask(t.Context(), "node-1", "how", nil); err != nil {
		t.Errorf("a small one after it: %v", err)
	}
	select {
	case <-a.unlinked:
		t.Error("the link has ended")
	default:
	}
}

func TestManyAsksAtATime(t *testing.T) {
	a, b, _, _ := pair(t)
	var asking sync.WaitGroup
	for i := range 100 {
		for _, e := range []struct{ from, to *end }{{a, b}, {b, a}} {
			asking.Go(func() {
				want := fmt.Sprintf("%s q %d", e.to.name, i)
				if got, err := e.from.mesh.Ask(t.Context(), e.to.name, "q", fmt.Append(nil, i)); string(got) != want || err != nil {
					t.Errorf("Ask = %q, %v; want %q", got, err, want)
				}
			})
		}
	}
	asking.Wait()
}

func TestAskEndsWithItsContextAndWithTheLink(t *testing.T) {
	a, b, _, toA := pair(t)
	asked := make(chan struct{}, 2)
	b.mu.Lock()
	b.answer = func(ctx context.Context, _ string, _ []byte) ([]byte, error) {
		asked <- struct{}{}
		<-ctx.Done() // ends with the link
		return nil, ctx.Err()
	}
	b.mu.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	ask := func(ctx context.Context) {
		_, err := a.mesh.Ask(ctx, "node-1", "q", nil)
		result <- err
	}
	go ask(ctx) // ended by cancel
	wait(t, "question", asked)
	cancel()
	if err := wait(t, "end", result); !errors.Is(err, context.Canceled) {
		t.Errorf("Ask = %v, want context.Canceled", err)
	}
	go ask(t.Context()) // ended by the link's end
	wait(t, "question", asked)
	toA.Break()
	var coded *wire.Error
	if err := wait(t, "end", result); !errors.As(err, &coded) || coded.Code != wire.CodeUnavailable {
		t.Errorf("Ask = %v, want code Unavailable", err)
	}
}

func TestAskOfANodeWithoutALink(t *testing.T) {
	a := start(t, "node-0", 1)
	var coded *wire.Error
	if _, err := a.mesh.Ask(t.Context(), "node-9", "q", nil); !errors.As(err, &coded) || coded.Code != wire.CodeUnavailable {
		t.Errorf("Ask = %v, want code Unavailable", err)
	}
}

func TestBrokenLinkIsMadeAgain(t *testing.T) {
	a, b, toB, _ := pair(t)
	toB.Break()
	wait(t, "end of the link", a.unlinked)
	wait(t, "end of the link", b.unlinked)
	wait(t, "new link", a.linked)
	wait(t, "new link", b.linked)
}

func TestNewerIncarnationReplacesTheOlder(t *testing.T) {
	a := start(t, "node-0", 1)
	older := start(t, "node-1", 1)
	a.mesh.SetPeers([]mesh.Peer{older.peer(1)})
	wait(t, "link", a.linked)
	newer := start(t, "node-1", 2)
	a.mesh.SetPeers([]mesh.Peer{newer.peer(2)})
	if gone := wait(t, "end of the older link", a.unlinked); gone.Incarnation != 1 {
		t.Errorf("incarnation %d was unlinked, want 1", gone.Incarnation)
	}
	if link := wait(t, "link to the newer", a.linked); link.Peer().Incarnation != 2 {
		t.Errorf("incarnation %d is linked, want 2", link.Peer().Incarnation)
	}
}

func TestPeerThatIsNoMemberAnyMoreIsUnlinked(t *testing.T) {
	a, b, _, _ := pair(t)
	a.mesh.SetPeers(nil)
	wait(t, "end of the link", a.unlinked)
	wait(t, "end of the link", b.unlinked)
	if n := a.mesh.Links(); n > 1 {
		t.Errorf("%d links are up", n)
	}
}

func TestStrangersAreRefused(t *testing.T) {
	a := start(t, "node-0", 1)
	hello := func(body string) []byte {
		return wire.AppendFrame(nil, wire.Header{Kind: wire.KindMesh}, "", "", []byte(body))
	}
	for name, tt := range map[string]struct {
		bytes []byte
		code  wire.Code
	}{
		"a node of another hub":        {hello(`{"minVersion":1,"maxVersion":1,"hub":"other","node":"node-1"}`), wire.CodeInvalidRequest},
		"a version from the future":    {hello(`{"minVersion":7,"maxVersion":9,"hub":"hub","node":"node-1"}`), wire.CodeUnsupportedVersion},
		"a version from the past":      {hello(`{"minVersion":0,"maxVersion":0,"hub":"hub","node":"node-1"}`), wire.CodeUnsupportedVersion},
		"no version, but a range":      {hello(`{"minVersion":2,"maxVersion":1,"hub":"hub","node":"node-1"}`), wire.CodeUnsupportedVersion},
		"one that says it is this one": {hello(`{"minVersion":1,"maxVersion":1,"hub":"hub","node":"node-0"}`), wire.CodeInvalidRequest},
		"a client":                     {wire.AppendFrame(nil, wire.Header{Kind: wire.KindHello}, "", "", nil), wire.CodeUnknownKind},
		"garbage":                      {[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n\r\n\r\n\r\n"), wire.CodeFrameTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", a.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			if _, err := conn.Write(tt.bytes); err != nil {
				t.Fatal(err)
			}
			r := wire.NewReader(conn, 1<<16)
			defer r.Close()
			f, err := r.Next()
			if err != nil {
				t.Fatal(err)
			}
			if got := wire.ParseFault(f.Body()); f.Kind() != wire.KindError || got.Code != tt.code {
				t.Errorf("answered with kind %d, %+v; want Error with code %d", f.Kind(), got, tt.code)
			}
		})
	}
	if n := a.mesh.Links(); n != 0 {
		t.Errorf("%d links are up, want none", n)
	}
}

// The members are learned while the node's parts start and while they stop.
func TestPeersMayBeSetAtAnyTime(t *testing.T) {
	nobody := mesh.Peer{Name: "node-1", Incarnation: 1, Addr: "127.0.0.1:1"}
	for range 200 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		m := mesh.New(mesh.Config{Hub: "hub", Self: mesh.Peer{Name: "node-0", Incarnation: 1}, Log: slog.New(slog.DiscardHandler)}, ln)
		ctx, cancel := context.WithCancel(t.Context())
		var setting sync.WaitGroup
		for range 4 {
			setting.Go(func() {
				for ctx.Err() == nil {
					m.SetPeers([]mesh.Peer{nobody})
					m.SetPeers(nil)
				}
			})
		}
		time.AfterFunc(time.Millisecond, cancel)
		if err := m.Run(ctx); err != nil {
			t.Errorf("Run = %v", err)
		}
		setting.Wait()
	}
}

// A link speaks the highest version that both ends do.
func TestALinkHasTheVersionOfBothEnds(t *testing.T) {
	_, _, toB, toA := pair(t)
	if toB.Version() != mesh.VersionBundles || toA.Version() != mesh.VersionBundles {
		t.Errorf("links between nodes of this version speak %d and %d, want %d", toB.Version(), toA.Version(), mesh.VersionBundles)
	}
	for name, tt := range map[string]struct{ minimum, maximum, want int }{
		"a node of the version before":                  {1, 1, 1},
		"a node of this version":                        {1, 2, 2},
		"a node of this version that knows none before": {2, 2, 2},
		"a node of a later one":                         {2, 9, 2},
	} {
		t.Run(name, func(t *testing.T) {
			e := start(t, "node-1", 1)
			conn, err := net.Dial("tcp", e.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Write(helloRange("hub", "node-0", tt.minimum, tt.maximum)); err != nil {
				t.Fatal(err)
			}
			if got := wait(t, "link", e.linked).Version(); got != tt.want {
				t.Errorf("the link speaks version %d, want %d", got, tt.want)
			}
		})
	}
}
