package hub_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(tests{m}) }

// tests stops the process-wide hub behind the tests that use it.
type tests struct{ *testing.M }

func (t tests) Run() int {
	code := t.M.Run()
	if err := hub.Default().Stop(context.Background()); err != nil {
		panic(err)
	}
	return code
}

const patience = 20 * time.Second

var ids wire.IDs

// run makes the body of a frame with one artifact for each payload.
func run(payloads ...string) []byte {
	var r wire.Run
	for _, p := range payloads {
		if err := r.Append(&wire.Artifact{ID: ids.Next(), Time: time.Unix(1, 0), Payload: []byte(p)}, 16<<20); err != nil {
			panic(err)
		}
	}
	return r.Body()
}

func frame(kind wire.Kind, flags wire.Flags, ref uint32, target, from string, payloads ...string) []byte {
	h := wire.Header{Kind: kind, Flags: flags, Ref: ref, Count: uint16(len(payloads))}
	return wire.AppendFrame(nil, h, target, from, run(payloads...))
}

func control(kind wire.Kind, ref uint32, target string, body any) []byte {
	return wire.AppendControl(nil, wire.Header{Kind: kind, Ref: ref}, target, body)
}

// pair returns the two ends of a connection: over TCP on loopback, or in
// memory.
func pair(tb testing.TB, network string) (hubs, clients net.Conn) {
	tb.Helper()
	if network == "pipe" {
		hubs, clients = net.Pipe()
	} else {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		defer ln.Close()
		if clients, err = net.Dial("tcp", ln.Addr().String()); err != nil {
			tb.Fatal(err)
		}
		if hubs, err = ln.Accept(); err != nil {
			tb.Fatal(err)
		}
	}
	tb.Cleanup(func() { _, _ = hubs.Close(), clients.Close() })
	return hubs, clients
}

// got is a frame that a client was sent, in memory of its own.
type got struct {
	wire.Frame
}

func (g got) fault() wire.Fault { return wire.ParseFault(g.Body()) }

// payloads returns what the artifacts of the frame hold.
func (g got) payloads() []string {
	var all []string
	var a wire.Artifact
	for r := wire.NewRunReader(g.Body()); ; {
		ok, err := r.Next(&a)
		if err != nil {
			panic(err)
		}
		if !ok {
			return all
		}
		all = append(all, string(a.Payload))
	}
}

func (g got) String() string {
	switch g.Kind() {
	case wire.KindPublish, wire.KindSend, wire.KindReply:
		return fmt.Sprintf("kind %d ref %d seq %d %s from %s: %q", g.Kind(), g.Ref(), g.Sequence(), g.Target(), g.From(), g.payloads())
	default:
		return fmt.Sprintf("kind %d ref %d seq %d flags %d %s: %s", g.Kind(), g.Ref(), g.Sequence(), g.Flags(), g.Target(), g.Body())
	}
}

// peer is the client's end of a connection. It reads all the time.
type peer struct {
	t      testing.TB
	id     string
	conn   net.Conn
	frames chan got      // everything but pings, which it answers
	done   chan struct{} // closed when the connection has ended
	err    error
}

// newPeer starts to read; it ends with the test.
func newPeer(tb testing.TB, id string, conn net.Conn) *peer {
	tb.Helper()
	p := &peer{t: tb, id: id, conn: conn, frames: make(chan got, 1<<17), done: make(chan struct{})}
	go p.read()
	tb.Cleanup(func() {
		_ = conn.Close()
		<-p.done
	})
	return p
}

func (p *peer) read() {
	defer close(p.done)
	r := wire.NewReader(p.conn, 32<<20)
	defer r.Close()
	for {
		f, err := r.Next()
		if err != nil {
			p.err = err
			close(p.frames)
			return
		}
		if f.Kind() == wire.KindPing {
			go func(ref uint32) { _, _ = p.conn.Write(control(wire.KindPong, ref, "", nil)) }(f.Ref())
			continue
		}
		p.frames <- got{append(wire.Frame(nil), f...)}
	}
}

func (p *peer) write(b []byte) {
	p.t.Helper()
	if _, err := p.conn.Write(b); err != nil {
		p.t.Fatalf("%s: write: %v", p.id, err)
	}
}

// next returns the next frame.
func (p *peer) next() got {
	p.t.Helper()
	select {
	case f, ok := <-p.frames:
		if !ok {
			p.t.Fatalf("%s: the connection ended: %v", p.id, p.err)
		}
		return f
	case <-time.After(patience):
		p.t.Fatalf("%s: nothing came", p.id)
		return got{}
	}
}

// expect returns the next frame, which has to be of this kind and ref.
func (p *peer) expect(kind wire.Kind, ref uint32) got {
	p.t.Helper()
	f := p.next()
	if f.Kind() != kind || f.Ref() != ref {
		p.t.Fatalf("%s: got %v; want kind %d ref %d", p.id, f, kind, ref)
	}
	return f
}

// expectPayload is expect for one artifact.
func (p *peer) expectPayload(ref uint32, want string) {
	p.t.Helper()
	f := p.expect(wire.KindPublish, ref)
	if all := f.payloads(); len(all) != 1 || all[0] != want {
		p.t.Fatalf("%s: got %v; want %q", p.id, f, want)
	}
}

// expectFault is expect for an Error or Goodbye with a code.
func (p *peer) expectFault(kind wire.Kind, ref uint32, code wire.Code) wire.Fault {
	p.t.Helper()
	f := p.expect(kind, ref)
	if fault := f.fault(); fault.Code != code {
		p.t.Fatalf("%s: got %v; want code %d", p.id, f, code)
	}
	return f.fault()
}

// quiet checks that nothing was sent before the answer to a ping.
func (p *peer) quiet() {
	p.t.Helper()
	const ref = 0xfeed
	p.write(control(wire.KindPing, ref, "", nil))
	p.expect(wire.KindPong, ref)
}

// ended waits for the end of the connection, and returns what came before.
func (p *peer) ended() []got {
	p.t.Helper()
	var rest []got
	for timeout := time.After(patience); ; {
		select {
		case f, ok := <-p.frames:
			if !ok {
				return rest
			}
			rest = append(rest, f)
		case <-timeout:
			p.t.Fatalf("%s: the connection did not end", p.id)
		}
	}
}

func (p *peer) subscribe(ref uint32, pattern string, want wire.Subscription) {
	p.t.Helper()
	p.write(control(wire.KindSubscribe, ref, pattern, want))
	p.expect(wire.KindAck, ref)
}

// publish publishes and returns the Ack.
func (p *peer) publish(ref uint32, topic string, payloads ...string) got {
	p.t.Helper()
	p.write(frame(wire.KindPublish, wire.FlagAck, ref, topic, p.id, payloads...))
	return p.expect(wire.KindAck, ref)
}

// start makes a hub that is stopped with the test.
func start(tb testing.TB, opts ...hub.Option) *hub.Hub {
	tb.Helper()
	h, err := hub.New(opts...)
	if err != nil {
		tb.Fatal(err)
	}
	if err := h.Start(context.Background()); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { stop(tb, h) })
	return h
}

func stop(tb testing.TB, h *hub.Hub) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := h.Stop(ctx); err != nil && !errors.Is(err, context.Canceled) {
		tb.Errorf("Stop = %v", err)
	}
}

// join registers a client.
func join(tb testing.TB, h *hub.Hub, id string, opts ...hub.ClientOption) *peer {
	tb.Helper()
	hubs, clients := pair(tb, "pipe")
	if err := h.RegisterClient(id, hubs, opts...); err != nil {
		tb.Fatal(err)
	}
	return newPeer(tb, id, clients)
}

// eventually waits for a condition that nothing tells of.
func eventually(tb testing.TB, what string, holds func() bool) {
	tb.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			tb.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// counted counts how often a connection is closed.
type counted struct {
	io.ReadWriteCloser
	mu     sync.Mutex // guards closed
	closed int
}

func (c *counted) Close() error {
	c.mu.Lock()
	c.closed++
	c.mu.Unlock()
	return c.ReadWriteCloser.Close()
}

func (c *counted) times() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}
