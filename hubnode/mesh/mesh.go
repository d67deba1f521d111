// Package mesh keeps one long-lived connection to each other node and carries
// frames over it: artifacts on their way, announcements of the directory, and
// questions with their answers.
//
// Of two nodes the one whose name sorts first dials, so there is one connection
// for each pair and frames in each direction stay in order. What arrives is
// handed to the Handler; the mesh knows nothing of what frames mean but for
// questions and answers.
package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/switchboardhub/switchboard/hubnode/seldom"
	"github.com/switchboardhub/switchboard/hubnode/socket"
	"github.com/switchboardhub/switchboard/hubnode/strangers"
	"github.com/switchboardhub/switchboard/wire"
)

const (
	handshakeTime = 5 * time.Second
	dialTime      = 3 * time.Second
	retryMin      = 50 * time.Millisecond
	retryMax      = 3 * time.Second
	// linkBytes bounds what waits for one link. What does not fit is dropped
	// and counted by who pushed it: a slow node never holds up another one.
	linkBytes = 64 << 20
	// frameLimit bounds one frame between nodes: the largest artifact a hub
	// may allow, or a page of history, or a list of clients.
	frameLimit = 32 << 20
	// strangersMax bounds the connections that have not shaken hands, and addressRate how
	// many may begin from one address in a second. Other nodes open one each.
	strangersMax = 256
	addressRate  = 64
)

// Peer is another node.
type Peer struct {
	Name        string // stable: survives a restart
	Incarnation uint64 // of its process; higher after a restart
	Addr        string // host:port of its cluster port
	TLS         bool   // it says that its cluster port takes TLS
}

// Taker takes the frames of one link, on the goroutine that reads it.
type Taker interface {
	// Take handles a frame, which is valid until Take returns unless slab is
	// retained.
	Take(f wire.Frame, slab *wire.Slab)
	// Flush is called when no further frame is at hand.
	Flush()
}

// Handler is what the mesh serves. Its methods are called from several
// goroutines; for one peer Linked, Takes and Unlinked come in this order, and
// the next Linked only after Unlinked.
type Handler interface {
	Linked(peer Peer, link *Link) Taker
	Unlinked(peer Peer, link *Link)
	// Answer answers a peer's question. An error reaches the asker.
	Answer(ctx context.Context, question string, body []byte) ([]byte, error)
	// Waits reports whether the answer to a question may wait for something to
	// happen: such ones don't keep others from being answered.
	Waits(question string) bool
}

// Config says who this node is. All fields but Ping and TLS are required.
type Config struct {
	Hub     string // identity of the hub; nodes of another one are refused
	Self    Peer   // Addr and TLS are not used
	Handler Handler
	Log     *slog.Logger
	// Ping is how often each link is pinged; zero means every second. A peer
	// that was silent for four times as long has lost its link.
	Ping time.Duration
	// TLS returns how links that begin now are encrypted; nil means that none is.
	TLS func() TLS
}

// Mesh is a node's links. Make it with [New] and run it with Run.
type Mesh struct {
	cfg Config
	ln  net.Listener

	up        atomic.Int64 // links that the handler serves
	encrypted atomic.Int64 // of those
	linked    atomic.Uint64
	refused   refusals
	wrong     seldom.Log // those refused, by their addresses
	strangers *strangers.Crowd
	addresses strangers.Addresses

	mu    sync.Mutex // guards the fields below
	peers map[string]*peerState
	links map[string]*Link
	run   *errgroup.Group // nil when no goroutine may be added
	ctx   context.Context //nolint:containedctx // the span of Run, which every link ends with
}

// peerState is a peer that this node dials.
type peerState struct {
	peer Peer // guarded by the mesh's mu
	stop context.CancelFunc
}

// New returns a mesh that accepts links on ln, which it closes when Run ends.
func New(cfg Config, ln net.Listener) *Mesh {
	if cfg.Ping == 0 {
		cfg.Ping = pingTime
	}
	return &Mesh{cfg: cfg, ln: ln, refused: newRefusals(), strangers: strangers.NewCrowd(strangersMax), peers: make(map[string]*peerState), links: make(map[string]*Link)}
}

// Run serves links until ctx ends and returns when all goroutines have ended.
func (m *Mesh) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.accept(ctx, g) })
	g.Go(func() error {
		<-ctx.Done()
		_ = m.ln.Close()    // unblocks accept
		m.strangers.Close() // unblocks handshakes
		// While this goroutine counts, SetPeers may add more to the group.
		m.mu.Lock()
		m.run = nil
		m.mu.Unlock()
		return nil
	})
	m.mu.Lock()
	if ctx.Err() == nil {
		m.run, m.ctx = g, ctx
	}
	for _, p := range m.peers {
		m.dialLocked(p)
	}
	m.mu.Unlock()
	return g.Wait()
}

// SetPeers replaces the set of nodes that links are kept to. Links to nodes
// that are no longer in it are closed, dials to them stop.
func (m *Mesh) SetPeers(peers []Peer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	wanted := make(map[string]Peer, len(peers))
	for _, p := range peers {
		if p.Name != m.cfg.Self.Name {
			wanted[p.Name] = p
		}
	}
	for name, have := range m.peers {
		want, ok := wanted[name]
		if ok && have.peer.sameAs(want) {
			have.peer = want
			continue
		}
		if have.stop != nil {
			have.stop()
		}
		delete(m.peers, name)
	}
	for name, link := range m.links {
		if want, ok := wanted[name]; !ok || want.Incarnation > link.peer.Incarnation {
			link.close()
		}
	}
	for name, p := range wanted {
		if m.peers[name] == nil {
			state := &peerState{peer: p}
			m.peers[name] = state
			m.dialLocked(state)
		}
	}
}

// Links returns the number of links that are up: those that the handler serves.
func (m *Mesh) Links() int { return int(m.up.Load()) }

// Linked returns how many links came up so far.
func (m *Mesh) Linked() uint64 { return m.linked.Load() }

// sameAs reports whether both are to have the same link. That a node has come to speak
// TLS is for the next one.
func (p Peer) sameAs(other Peer) bool {
	p.TLS = other.TLS
	return p == other
}

// dialLocked keeps a link to a peer that it is this node's turn to dial.
func (m *Mesh) dialLocked(p *peerState) {
	if m.run == nil || m.ctx.Err() != nil || p.stop != nil || m.cfg.Self.Name >= p.peer.Name {
		return
	}
	ctx, cancel := context.WithCancel(m.ctx)
	p.stop = cancel
	m.run.Go(func() error {
		defer cancel()
		m.keepLinked(ctx, p)
		return nil
	})
}

// keepLinked dials a peer again and again, with backoff and jitter, until ctx
// ends.
func (m *Mesh) keepLinked(ctx context.Context, state *peerState) {
	wait := retryMin
	for ctx.Err() == nil {
		start := time.Now()
		m.mu.Lock()
		p := state.peer
		m.mu.Unlock()
		err := m.dial(ctx, p)
		if ctx.Err() != nil {
			return
		}
		if refused, ok := errors.AsType[*refusedError](err); ok {
			m.refused[refused.why].Add(1)
			m.sayRefused(p.Name, err)
		}
		m.cfg.Log.Debug("link ended", slog.String("peer", p.Name), slog.Any("error", err))
		if time.Since(start) > retryMax {
			wait = retryMin
		}
		t := time.NewTimer(wait/2 + rand.N(wait)) //nolint:gosec // spreads load, guards nothing
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
		wait = min(2*wait, retryMax)
	}
}

// dial makes one link and serves it until it ends.
func (m *Mesh) dial(ctx context.Context, p Peer) error {
	dialer := net.Dialer{Timeout: dialTime}
	conn, err := dialer.DialContext(ctx, "tcp", p.Addr)
	if err != nil {
		return err
	}
	conn, encrypted, err := m.secure(ctx, socket.Wrap(conn), p)
	if err != nil {
		_ = conn.Close() // the handshake's error matters
		return &refusedError{reasonOf(err), err}
	}
	r := wire.NewReader(conn, wire.MaxHandshakeFrame)
	got, err := m.greet(conn, r, p.Name)
	if err != nil {
		r.Close()
		_ = conn.Close()                                  // the handshake's error matters
		if why := reasonOf(err); why != RefusedGreeting { // the other side's word on the certificate comes late
			return &refusedError{why, err}
		}
		return err
	}
	if got.Node != p.Name {
		r.Close()
		_ = conn.Close() // the next line's error matters
		return fmt.Errorf("node %q answers at the address of %q", got.Node, p.Name)
	}
	return m.serve(ctx, conn, encrypted, r, Peer{Name: got.Node, Incarnation: got.Incarnation, Addr: p.Addr, TLS: p.TLS}, got.version())
}

// accept serves the links that other nodes open.
func (m *Mesh) accept(ctx context.Context, g *errgroup.Group) error {
	entrance := strangers.Entrance{Listener: m.ln, Failed: func(err error, silent int) {
		m.cfg.Log.Warn("link not accepted", slog.Any("error", err), slog.Int("more_since_last_told", silent))
	}}
	for {
		conn, err := entrance.Accept(ctx)
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close() // nobody serves it any more
			}
			return nil
		case err != nil:
			return fmt.Errorf("accept links: %w", err)
		}
		left, err := m.addresses.Enter(conn.RemoteAddr(), strangers.PerAddress{ConnectionsPerSecond: addressRate}, time.Now())
		if err != nil {
			m.refuse(ctx, conn, &refusedError{RefusedRate, err})
			continue
		}
		place := m.strangers.Enter(conn)
		if place == nil {
			left()
			continue
		}
		g.Go(func() error {
			defer left()
			m.welcome(ctx, conn, place)
			return nil
		})
	}
}

// welcome answers a handshake, with which the connection leaves its place among strangers,
// and serves the link.
func (m *Mesh) welcome(ctx context.Context, conn net.Conn, place *strangers.Place) {
	conn, encrypted, err := m.admit(ctx, socket.Wrap(conn))
	r := wire.NewReader(conn, wire.MaxHandshakeFrame)
	var got hello
	if err == nil {
		got, err = m.answer(conn, r)
	}
	place.Leave()
	if err == nil {
		err = m.serve(ctx, conn, encrypted, r, Peer{Name: got.Node, Incarnation: got.Incarnation}, got.version())
	} else {
		r.Close()
		m.refuse(ctx, conn, err)
	}
	if ctx.Err() == nil {
		m.cfg.Log.Debug("accepted link ended", slog.String("remote", conn.RemoteAddr().String()), slog.Any("error", err))
	}
}

// refuse closes a connection that another machine opened, and counts and tells why.
func (m *Mesh) refuse(ctx context.Context, conn net.Conn, why error) {
	if ctx.Err() == nil {
		m.refused[reasonOf(why)].Add(1)
		m.sayRefused(hostOf(conn.RemoteAddr()), why)
	}
	_ = conn.Close() // why matters
}

// sayRefused logs why a link was refused, once a minute for each machine or peer.
func (m *Mesh) sayRefused(remote string, err error) {
	if due, silent := m.wrong.Due(remote, time.Now()); due {
		m.cfg.Log.Warn("link refused", slog.String("remote", remote), slog.String("reason", string(reasonOf(err))), slog.Any("error", err), slog.Int("more_since_last_told", silent))
	}
}

func hostOf(remote net.Addr) string {
	host, _, err := net.SplitHostPort(remote.String())
	if err != nil {
		return remote.String()
	}
	return host
}
