package client

import (
	"context"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/switchboardhub/switchboard/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// network is where fake nodes listen, by address.
type network struct {
	mu    sync.Mutex
	nodes map[string]chan net.Conn
	dials []string
}

func newNetwork(addresses ...string) *network {
	n := &network{nodes: make(map[string]chan net.Conn)}
	for _, a := range addresses {
		n.nodes[a] = make(chan net.Conn)
	}
	return n
}

func (n *network) dial(ctx context.Context, _, address string) (net.Conn, error) {
	n.mu.Lock()
	n.dials = append(n.dials, address)
	node, ok := n.nodes[address]
	n.mu.Unlock()
	if !ok {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	near, far := net.Pipe()
	select {
	case node <- far:
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// kill makes dials to a:1 fail.
func (n *network) kill() {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.nodes, "a:1")
}

func (n *network) dialed() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.dials...)
}

func (n *network) option() Option { return WithDialer(n.dial) }

// peer is the node's end of one connection, played by the test.
type peer struct {
	t     *testing.T
	conn  net.Conn
	r     *wire.Reader
	hello wire.Hello
}

// patience is how long a test waits for what has to happen.
const patience = 30 * time.Second

func (n *network) accept(t *testing.T, address string) *peer {
	t.Helper()
	select {
	case conn := <-n.nodes[address]:
		p := &peer{t: t, conn: conn, r: wire.NewReader(conn, 1<<22)}
		t.Cleanup(p.hangUp)
		_ = conn.SetDeadline(time.Now().Add(time.Hour))
		return p
	case <-time.After(patience):
		t.Fatalf("nobody connected to %s", address)
		return nil
	}
}

// welcome plays the node's part of the handshake.
func (n *network) welcome(t *testing.T, address string, change ...func(*wire.Welcome)) *peer {
	t.Helper()
	p := n.accept(t, address)
	f := p.want(wire.KindHello)
	if err := wire.DecodeControl(f, &p.hello); err != nil {
		t.Fatal(err)
	}
	w := wire.Welcome{
		Version: 1, Hub: "test", Node: "node-" + address, Epoch: p.hello.Epoch + 1,
		MaxArtifact: 1 << 20, MaxFrame: wire.MaxFrame(1 << 20),
	}
	for _, c := range change {
		c(&w)
	}
	p.control(wire.Header{Kind: wire.KindWelcome}, w)
	return p
}

func (p *peer) hangUp() { _ = p.conn.Close() }

// next returns the next frame of the client.
func (p *peer) next() wire.Frame {
	p.t.Helper()
	_ = p.conn.SetReadDeadline(time.Now().Add(patience))
	f, err := p.r.Next()
	if err != nil {
		p.t.Errorf("read from the client: %v", err)
		p.t.FailNow()
	}
	return append(wire.Frame(nil), f...)
}

// want returns the next frame, which has to be of that kind.
func (p *peer) want(kind wire.Kind) wire.Frame {
	p.t.Helper()
	f := p.next()
	if f.Kind() != kind {
		p.t.Fatalf("client sent kind %d for %q, want kind %d", f.Kind(), f.Target(), kind)
	}
	return f
}

func (p *peer) write(frame []byte) {
	p.t.Helper()
	_ = p.conn.SetWriteDeadline(time.Now().Add(patience))
	if _, err := p.conn.Write(frame); err != nil {
		p.t.Errorf("write to the client: %v", err)
	}
}

func (p *peer) control(h wire.Header, body any) {
	p.t.Helper()
	p.write(wire.AppendControl(nil, h, "", body))
}

func (p *peer) ack(f wire.Frame, seq wire.Sequence, flags wire.Flags) {
	p.t.Helper()
	p.control(wire.Header{Kind: wire.KindAck, Flags: flags, Ref: f.Ref(), Sequence: seq, Count: uint16(f.Count())}, nil)
}

func (p *peer) refuse(f wire.Frame, err error) {
	p.t.Helper()
	p.control(wire.Header{Kind: wire.KindError, Ref: f.Ref()}, wire.FaultOf(err, wire.CodeInvalidRequest))
}

// deliver sends artifacts with these payloads under a subscription.
func (p *peer) deliver(ref uint32, topic string, first wire.Sequence, payloads ...string) {
	p.t.Helper()
	p.artifacts(wire.Header{Kind: wire.KindPublish, Ref: ref, Sequence: first}, topic, "publisher", payloads...)
}

func (p *peer) artifacts(h wire.Header, target, from string, payloads ...string) {
	p.t.Helper()
	var run wire.Run
	var ids wire.IDs
	for _, text := range payloads {
		if err := run.Append(&wire.Artifact{ID: ids.Next(), Time: time.Unix(1, 0), Payload: []byte(text)}, 1<<20); err != nil {
			p.t.Fatal(err)
		}
	}
	h.Count = uint16(run.Count())
	p.write(wire.AppendFrame(nil, h, target, from, run.Body()))
}

// payloads returns what a frame of artifacts holds.
func payloads(t *testing.T, f wire.Frame) []string {
	t.Helper()
	var all []string
	r := wire.NewRunReader(f.Body())
	for {
		var a wire.Artifact
		ok, err := r.Next(&a)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return all
		}
		all = append(all, string(a.Payload))
	}
}

// behave plays a well-behaved node from here on: it acknowledges everything
// and answers pings, until the client hangs up.
func (p *peer) behave() {
	go func() {
		var seq wire.Sequence
		for {
			f, err := p.r.Next()
			if err != nil {
				return
			}
			var answer wire.Header
			switch f.Kind() {
			case wire.KindPing:
				answer.Kind = wire.KindPong
			case wire.KindGoodbye:
				p.hangUp()
				return
			case wire.KindSubscribe, wire.KindUnsubscribe:
				answer.Kind = wire.KindAck
			default:
				if f.Flags()&wire.FlagAck == 0 {
					continue
				}
				answer.Kind, answer.Sequence, answer.Count = wire.KindAck, seq+1, uint16(f.Count())
				seq += wire.Sequence(f.Count())
			}
			answer.Ref = f.Ref()
			if _, err := p.conn.Write(wire.AppendControl(nil, answer, "", nil)); err != nil {
				return
			}
		}
	}()
}

// inSession makes a node keep sessions.
func inSession(w *wire.Welcome) { w.ResumeWindow, w.Session = 30_000, "session" }

// connect connects a client to a fake node at "a:1" that is played by the test.
func connect(t *testing.T, n *network, opts ...Option) (*Client, *peer) {
	t.Helper()
	return connectAs(t, n, nil, opts...)
}

// connectAs is connect to a node that says something of its own in Welcome.
func connectAs(t *testing.T, n *network, change []func(*wire.Welcome), opts ...Option) (*Client, *peer) {
	t.Helper()
	type result struct {
		c   *Client
		err error
	}
	connected := make(chan result, 1)
	go func() {
		c, err := Connect(t.Context(), "a:1", append([]Option{WithID("me"), n.option()}, opts...)...)
		connected <- result{c, err}
	}()
	p := n.welcome(t, "a:1", change...)
	r := <-connected
	if r.err != nil {
		t.Fatal(r.err)
	}
	closeAtEnd(t, r.c)
	return r.c, p
}

// closeAtEnd closes a client after the test, when its peers may be gone.
func closeAtEnd(t *testing.T, c *Client) {
	t.Helper()
	t.Cleanup(func() {
		c.stop() // don't wait for a peer that no longer plays
		_ = c.Close()
	})
}

// got receives from a channel of results.
func got[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

// background runs a call whose result the test looks at later.
func background[T any](f func() T) <-chan T {
	c := make(chan T, 1)
	go func() { c <- f() }()
	return c
}
