package server_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/hubnode/server"
	"github.com/switchboardhub/switchboard/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 10 * time.Second

// serve runs a server with a hub of its own until the test ends.
func serve(t *testing.T, settings hub.Settings) (*hub.Hub, string) {
	t.Helper()
	h, _, addr := serveTLS(t, settings, func() server.TLS { return server.TLS{} })
	return h, addr
}

// serveTLS is serve of a server that encrypts.
func serveTLS(t *testing.T, settings hub.Settings, encryption func() server.TLS) (*hub.Hub, *server.Server, string) {
	t.Helper()
	return serveWith(t, settings, func(cfg *server.Config) { cfg.TLS = encryption })
}

// serveWith is serve of a server whose config is changed.
func serveWith(tb testing.TB, settings hub.Settings, change func(*server.Config)) (*hub.Hub, *server.Server, string) {
	tb.Helper()
	h, err := hub.New(hub.WithSettings(settings))
	if err != nil {
		tb.Fatal(err)
	}
	if err := h.Start(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	cfg := server.Config{
		Hub: h, HubName: "test", Node: "node-0", Log: slog.New(slog.DiscardHandler),
		Limits:    func() server.Limits { return server.Limits{MaxArtifact: 1 << 10} },
		Addresses: func() []string { return []string{ln.Addr().String()} },
		TLS:       func() server.TLS { return server.TLS{} },
	}
	change(&cfg)
	s := server.New(cfg, ln)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(tb.Context()) }() // ended by the test's context, waited for below
	tb.Cleanup(func() {
		if err := <-ended; err != nil {
			tb.Errorf("Run = %v", err)
		}
		<-h.Stopped()
	})
	return h, s, ln.Addr().String()
}

// raw is a client that can send anything.
type raw struct {
	t    testing.TB
	conn net.Conn
	r    *wire.Reader
}

func dial(tb testing.TB, addr string) *raw {
	tb.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	c := &raw{t: tb, conn: conn, r: wire.NewReader(conn, 1<<20)}
	tb.Cleanup(func() {
		_ = conn.Close()
		c.r.Close()
	})
	return c
}

func hello(id string) []byte {
	return wire.AppendControl(nil, wire.Header{Kind: wire.KindHello}, "", wire.Hello{MinVersion: wire.Version, MaxVersion: wire.Version, ID: id})
}

// join shakes hands as id.
func join(tb testing.TB, addr, id string) *raw {
	tb.Helper()
	c := dial(tb, addr)
	c.send(hello(id))
	if f := c.next(); f.Kind() != wire.KindWelcome {
		tb.Fatalf("the answer to Hello is of kind %d: %s", f.Kind(), f.Body())
	}
	return c
}

func (c *raw) send(b []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

func (c *raw) next() wire.Frame {
	c.t.Helper()
	f, err := c.r.Next()
	if err != nil {
		c.t.Fatal(err)
	}
	return f
}

// ends checks that the node says why, with this code, and closes.
func (c *raw) ends(kind wire.Kind, code wire.Code) {
	c.t.Helper()
	f := c.next()
	if got := wire.ParseFault(f.Body()); f.Kind() != kind || got.Code != code {
		c.t.Errorf("the node sends kind %d, %+v; want kind %d, code %d", f.Kind(), got, kind, code)
	}
	if _, err := c.r.Next(); !errors.Is(err, io.EOF) {
		c.t.Errorf("then %v; want the end of the connection", err)
	}
}

func TestBadHandshakeIsRefusedWithAReason(t *testing.T) {
	_, addr := serve(t, hub.Settings{})
	other := join(t, addr, "other")
	for name, tt := range map[string]struct {
		bytes []byte
		code  wire.Code
	}{
		"a frame that is too long":     {binary.BigEndian.AppendUint32(nil, 1<<30), wire.CodeFrameTooLarge},
		"a length that can't be":       {binary.BigEndian.AppendUint32(nil, 3), wire.CodeMalformed},
		"a first frame that is not it": {wire.AppendFrame(nil, wire.Header{Kind: wire.KindPing}, "", "", nil), wire.CodeUnknownKind},
		"a version from the future":    {wire.AppendControl(nil, wire.Header{Kind: wire.KindHello}, "", wire.Hello{MinVersion: 2, MaxVersion: 9, ID: "a"}), wire.CodeUnsupportedVersion},
		"no id":                        {hello(""), wire.CodeInvalidClientID},
		"an id of the hub's own":       {hello("$hub.clients"), wire.CodeInvalidClientID},
		"what is not JSON":             {wire.AppendFrame(nil, wire.Header{Kind: wire.KindHello}, "", "", []byte("{")), wire.CodeMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, addr)
			c.send(tt.bytes)
			c.ends(wire.KindError, tt.code)
		})
	}
	other.send(wire.AppendFrame(nil, wire.Header{Kind: wire.KindPing, Ref: 3}, "", "", nil))
	if f := other.next(); f.Kind() != wire.KindPong || f.Ref() != 3 {
		t.Errorf("another client's ping is answered with kind %d", f.Kind())
	}
}

func TestBadFrameEndsItsConnectionOnly(t *testing.T) {
	h, addr := serve(t, hub.Settings{MaxArtifact: 1 << 10})
	other := join(t, addr, "other")
	lied := wire.AppendFrame(nil, wire.Header{Kind: wire.KindPublish, Count: 2}, "t", "bad", []byte{3, 0})
	for name, tt := range map[string]struct {
		bytes []byte
		code  wire.Code
	}{
		"a frame that is too long":         {binary.BigEndian.AppendUint32(nil, 1<<30), wire.CodeFrameTooLarge},
		"a kind that there is not":         {wire.AppendFrame(nil, wire.Header{Kind: 63}, "", "", nil), wire.CodeUnknownKind},
		"a kind between nodes":             {wire.AppendFrame(nil, wire.Header{Kind: wire.KindStore}, "t", "bad", nil), wire.CodeUnknownKind},
		"a run that is not what it says":   {lied, wire.CodeMalformed},
		"somebody else's name as a sender": {wire.AppendFrame(nil, wire.Header{Kind: wire.KindPublish, Count: 1}, "t", "other", nil), wire.CodeInvalidRequest},
	} {
		t.Run(name, func(t *testing.T) {
			c := join(t, addr, "bad")
			c.send(tt.bytes)
			c.ends(wire.KindGoodbye, tt.code)
		})
	}
	if n := h.Metrics().MalformedFrames; n < 4 {
		t.Errorf("%d malformed frames are counted, want at least 4", n)
	}
	other.send(wire.AppendFrame(nil, wire.Header{Kind: wire.KindPing, Ref: 3}, "", "", nil))
	if f := other.next(); f.Kind() != wire.KindPong {
		t.Errorf("another client's ping is answered with kind %d", f.Kind())
	}
}

func TestTruncatedFrameLeavesNothingBehind(t *testing.T) {
	h, addr := serve(t, hub.Settings{})
	c := join(t, addr, "cut")
	gone, ok := h.Client("cut")
	if !ok {
		t.Fatal("the client is not registered")
	}
	frame := wire.AppendFrame(nil, wire.Header{Kind: wire.KindPublish, Count: 1}, "t", "cut", make([]byte, 100))
	c.send(frame[:50])
	_ = c.conn.Close()
	select {
	case <-gone.Done():
	case <-time.After(patience):
		t.Fatal("the client stays registered")
	}
	if !errors.Is(gone.Reason(), io.ErrUnexpectedEOF) {
		t.Errorf("it left because of %v, want io.ErrUnexpectedEOF", gone.Reason())
	}
}

func TestArtifactOverTheLimitIsRefusedAndTheConnectionGoesOn(t *testing.T) {
	_, addr := serve(t, hub.Settings{MaxArtifact: 1 << 10})
	c := join(t, addr, "a")
	var run wire.Run
	if err := run.Append(&wire.Artifact{ID: wire.ID{1}, Time: time.Unix(1, 0), Payload: make([]byte, 2<<10)}, 4<<10); err != nil {
		t.Fatal(err)
	}
	c.send(wire.AppendFrame(nil, wire.Header{Kind: wire.KindPublish, Count: 1, Ref: 9}, "t", "a", run.Body()))
	f := c.next()
	var large *wire.ArtifactTooLargeError
	if f.Kind() != wire.KindError || f.Ref() != 9 || !errors.As(wire.ParseFault(f.Body()).Err(), &large) || large.Limit != 1<<10 {
		t.Errorf("got kind %d, %s; want Error for 9 with ArtifactTooLarge", f.Kind(), f.Body())
	}
	c.send(wire.AppendFrame(nil, wire.Header{Kind: wire.KindPing, Ref: 3}, "", "", nil))
	if f := c.next(); f.Kind() != wire.KindPong {
		t.Errorf("the next frame is of kind %d, want Pong", f.Kind())
	}
}

func TestFullNodeRefusesFurtherClients(t *testing.T) {
	_, addr := serve(t, hub.Settings{MaxClients: 1})
	join(t, addr, "first")
	c := dial(t, addr)
	c.send(hello("second"))
	c.ends(wire.KindError, wire.CodeTooManyClients)
}

func TestNewerSessionWinsAndTheOlderHearsWhy(t *testing.T) {
	_, addr := serve(t, hub.Settings{})
	older := join(t, addr, "twin")
	join(t, addr, "twin")
	older.ends(wire.KindGoodbye, wire.CodeSessionReplaced)
}

// inMemory is a listener for pipes.
type inMemory struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *inMemory) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *inMemory) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *inMemory) Addr() net.Addr { return &net.TCPAddr{} }

func (l *inMemory) dial() net.Conn {
	ours, theirs := net.Pipe()
	l.conns <- theirs
	return ours
}

// A connection that is never done with saying who it is takes no more than the
// time of a handshake, whether it says nothing or a byte a second, and holds up
// nobody.
func TestSlowHandshakeIsGivenUp(t *testing.T) {
	const handshake = 5 * time.Second
	for name, pause := range map[string]time.Duration{"silent": time.Hour, "a byte a second": time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, err := hub.New()
				if err != nil {
					t.Fatal(err)
				}
				if err := h.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				ln := &inMemory{conns: make(chan net.Conn), closed: make(chan struct{})}
				s := server.New(server.Config{
					Hub: h, HubName: "test", Node: "node-0", Log: slog.New(slog.DiscardHandler),
					Limits:    func() server.Limits { return server.Limits{MaxArtifact: 1 << 10} },
					Addresses: func() []string { return nil },
					TLS:       func() server.TLS { return server.TLS{} },
				}, ln)
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- s.Run(ctx) }() // ended below

				slow := &raw{t: t, conn: ln.dial()}
				slow.r = wire.NewReader(slow.conn, 1<<20)
				begun := time.Now()
				var writing sync.WaitGroup
				writing.Go(func() { // ends with the connection
					for _, b := range hello("slow") {
						if _, err := slow.conn.Write([]byte{b}); err != nil {
							return
						}
						time.Sleep(pause)
					}
				})
				quick := &raw{t: t, conn: ln.dial()}
				quick.r = wire.NewReader(quick.conn, 1<<20)
				quick.send(hello("quick"))
				if f := quick.next(); f.Kind() != wire.KindWelcome || time.Since(begun) != 0 {
					t.Errorf("a frame of kind %d came after %v, want Welcome at once", f.Kind(), time.Since(begun))
				}
				slow.ends(wire.KindError, wire.CodeHandshakeTimeout)
				if took := time.Since(begun); took != handshake {
					t.Errorf("given up after %v, want %v", took, handshake)
				}
				_, _ = slow.conn.Close(), quick.conn.Close()
				writing.Wait()
				cancel()
				if err := <-ended; err != nil {
					t.Errorf("Run = %v", err)
				}
				_ = h.Stop(context.Background())
			})
		})
	}
}
