package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"

	"github.com/switchboardhub/switchboard/hubnode/outbox"
	"github.com/switchboardhub/switchboard/wire"
)

// These bound the questions of one peer that are being answered: those that are
// answered at once, and those whose answers wait for something to happen.
const (
	answersMax = 256
	waitsMax   = 16 << 10
)

// Link is the connection to one peer. Pushing to it is safe for concurrent use
// and never blocks.
type Link struct {
	*outbox.Outbox
	peer      Peer
	version   int
	conn      net.Conn
	encrypted bool
	gone      chan struct{} // closed when the link has ended
	shut      sync.Once

	alive alive

	mu   sync.Mutex // guards the fields below
	ref  uint32
	asks map[uint32]chan<- answer
}

type answer struct {
	body []byte
	err  error
}

// Peer returns the node at the other end.
func (l *Link) Peer() Peer { return l.peer }

// Version returns the version of the protocol that both ends speak.
func (l *Link) Version() int { return l.version }

// close ends the link, once.
func (l *Link) close() {
	l.shut.Do(func() {
		l.Close()
		_ = l.conn.Close() // nothing more is wanted of it
	})
}

// Break closes the link; it is dialled again.
func (l *Link) Break() { l.close() }

// serve runs a link until it breaks or ctx ends.
func (m *Mesh) serve(ctx context.Context, conn net.Conn, encrypted bool, r *wire.Reader, peer Peer, version int) error {
	r.SetLimit(frameLimit)
	defer r.Close()
	link := &Link{peer: peer, version: version, conn: conn, encrypted: encrypted, gone: make(chan struct{}), asks: make(map[uint32]chan<- answer)}
	link.Outbox = outbox.New(conn, outbox.Config{LimitBytes: linkBytes, Failed: func(error) { link.close() }})
	stop := context.AfterFunc(ctx, link.close)
	defer stop()
	defer func() {
		link.close()
		link.Wait()
	}()
	if !m.enter(ctx, link) {
		return fmt.Errorf("a newer link to node %q is there", peer.Name)
	}
	if !encrypted && m.tls().Required { // since its handshake; EndPlain may have missed it
		link.close()
	}
	pinging, stopPing := context.WithCancel(ctx)
	var ping sync.WaitGroup
	ping.Go(func() { link.ping(pinging, m.cfg.Ping) })
	defer func() {
		stopPing()
		ping.Wait()
	}()
	taker := m.cfg.Handler.Linked(peer, link)
	m.linked.Add(1)
	m.up.Add(1)
	if encrypted {
		m.encrypted.Add(1)
	}
	m.cfg.Log.Info("node linked", slog.String("peer", peer.Name), slog.Bool("encrypted", encrypted))
	defer func() {
		m.up.Add(-1)
		if encrypted {
			m.encrypted.Add(-1)
		}
		link.failAsks()
		m.cfg.Handler.Unlinked(peer, link)
		m.exit(link)
		m.cfg.Log.Info("node unlinked", slog.String("peer", peer.Name))
	}()
	return m.read(ctx, link, r, taker)
}

// enter makes link the one to its peer. An older one is closed and has ended
// when enter returns.
func (m *Mesh) enter(ctx context.Context, link *Link) bool {
	for {
		m.mu.Lock()
		old := m.links[link.peer.Name]
		if old == nil {
			m.links[link.peer.Name] = link
			m.mu.Unlock()
			return true
		}
		m.mu.Unlock()
		if old.peer.Incarnation > link.peer.Incarnation {
			return false
		}
		old.close()
		select {
		case <-old.gone:
		case <-ctx.Done():
			return false
		}
	}
}

func (m *Mesh) exit(link *Link) {
	m.mu.Lock()
	delete(m.links, link.peer.Name)
	m.mu.Unlock()
	close(link.gone)
}

// read takes frames off the link until it ends.
func (m *Mesh) read(ctx context.Context, link *Link, r *wire.Reader, taker Taker) error {
	var answering sync.WaitGroup
	defer answering.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	atOnce, waiting := make(chan struct{}, answersMax), make(chan struct{}, waitsMax)
	for {
		waits := !r.Buffered()
		if waits {
			link.alive.listen()
		}
		f, err := r.Next()
		if waits {
			link.alive.hear()
		}
		if err != nil {
			taker.Flush()
			if errors.Is(err, io.EOF) {
				return errors.New("the other node closed the link")
			}
			return err
		}
		switch f.Kind() {
		case wire.KindAsk:
			question, body, ref := string(f.Target()), append([]byte(nil), f.Body()...), f.Ref()
			slots := atOnce
			if m.cfg.Handler.Waits(question) {
				slots = waiting
			}
			select {
			case slots <- struct{}{}:
				answering.Go(func() {
					defer func() { <-slots }()
					m.reply(ctx, link, ref, question, body)
				})
			default:
				link.Say(failed(ref, &wire.Error{Code: wire.CodeOverloaded, Detail: "too many questions at a time"}))
			}
		case wire.KindAnswer:
			link.answered(f)
		case wire.KindPing:
		default:
			taker.Take(f, r.Slab())
		}
		if !r.Buffered() {
			taker.Flush()
		}
	}
}

func (m *Mesh) reply(ctx context.Context, link *Link, ref uint32, question string, body []byte) {
	text, err := m.cfg.Handler.Answer(ctx, question, body)
	if err == nil && len(text) > frameLimit/2 {
		err = &wire.Error{Code: wire.CodeFrameTooLarge, Detail: fmt.Sprintf("the answer to %q has %d bytes", question, len(text))}
	}
	if err != nil {
		link.Say(failed(ref, err))
		return
	}
	link.Say(wire.AppendFrame(nil, wire.Header{Kind: wire.KindAnswer, Ref: ref}, "", "", text))
}

func failed(ref uint32, err error) []byte {
	h := wire.Header{Kind: wire.KindAnswer, Flags: wire.FlagFailed, Ref: ref}
	return wire.AppendControl(nil, h, "", wire.FaultOf(err, wire.CodeUnavailable))
}

// Say queues a control frame and sends it. A link that has no room even for
// that is broken: its state is sent anew when it is up again.
func (l *Link) Say(frame []byte) {
	switch l.PushControl(frame) {
	case outbox.QueuedCold:
		l.Flush()
	case outbox.Full:
		l.close()
	case outbox.Queued, outbox.Closed:
	}
}

// Ask puts a question to a node and returns its answer. Errors: the node's, as
// a wire error, or a wire.Error with CodeUnavailable when there is no link or
// it breaks, or ctx's.
func (m *Mesh) Ask(ctx context.Context, node, question string, body []byte) ([]byte, error) {
	if wire.HeaderSize+len(question)+len(body) > frameLimit { // the other side would end the link, and all that is on it
		return nil, &wire.Error{Code: wire.CodeFrameTooLarge, Detail: fmt.Sprintf("question %q to node %q is too large: %d bytes", question, node, len(body))}
	}
	m.mu.Lock()
	link := m.links[node]
	m.mu.Unlock()
	if link == nil {
		return nil, noLink(node)
	}
	ref, result := link.expect()
	link.Say(wire.AppendFrame(nil, wire.Header{Kind: wire.KindAsk, Ref: ref}, []byte(question), nil, body))
	select {
	case a := <-result:
		return a.body, a.err
	case <-link.gone:
		return nil, noLink(node)
	case <-ctx.Done():
		link.mu.Lock()
		delete(link.asks, ref)
		link.mu.Unlock()
		return nil, fmt.Errorf("ask node %q for %q: %w", node, question, context.Cause(ctx))
	}
}

func noLink(node string) error {
	return &wire.Error{Code: wire.CodeUnavailable, Detail: fmt.Sprintf("there is no link to node %q", node)}
}

func (l *Link) expect() (uint32, <-chan answer) {
	result := make(chan answer, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ref++
	l.asks[l.ref] = result
	return l.ref, result
}

func (l *Link) answered(f wire.Frame) {
	l.mu.Lock()
	result := l.asks[f.Ref()]
	delete(l.asks, f.Ref())
	l.mu.Unlock()
	if result == nil {
		return // the asker gave up
	}
	if f.Flags()&wire.FlagFailed != 0 {
		result <- answer{err: wire.ParseFault(f.Body()).Err()}
		return
	}
	result <- answer{body: append([]byte(nil), f.Body()...)}
}

// failAsks ends the questions that the link can't answer any more.
func (l *Link) failAsks() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for ref, result := range l.asks {
		result <- answer{err: noLink(l.peer.Name)}
		delete(l.asks, ref)
	}
}
