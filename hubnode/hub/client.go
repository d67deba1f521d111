package hub

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/outbox"
	"github.com/switchboardhub/switchboard/wire"
)

const (
	// goodbyeTime is how long a client that is being removed has to take what
	// is queued for it.
	goodbyeTime = time.Second
	// stallTime is how long a stopping hub waits for a client that takes
	// nothing at all.
	stallTime = 5 * time.Second
)

// Info is what lists of clients show about one beyond its id.
type Info struct {
	Address string // of its connection, as the hub sees it
	Name    string // of its library or program
	Version string // of its library or program
	Labels  map[string]string
	TLS     bool // its connection is encrypted
}

// Client is one registered client. Its methods are safe for concurrent use.
type Client struct {
	hub       *Hub
	id        wire.ClientID
	conn      io.ReadWriteCloser
	out       *outbox.Outbox
	reader    *wire.Reader
	epoch     uint64
	info      Info
	broadcast string // the topic that it hears unless it says otherwise; empty: none
	publisher uint64 // tells its frames from those of its other lives; 0: they are not numbered
	greet     func(Greeting) []byte
	renewal   Renew // nil: its permit can't be renewed
	since     time.Time

	resume  *Resume       // of WithSession; nil: the session ends with the connection
	session *session      // nil likewise
	resumed bool          // the session was there before
	readEnd chan struct{} // closed when nothing more is taken from the connection

	subs map[uint32]*subscription // guarded by Hub.mu

	asked       *asked                    // its session's, if it has one
	account     *account                  // it is one of; nil: nobody asked who it is. Set when it is admitted
	accountName string                    // the account's name
	permit      atomic.Pointer[permitted] // nil: it may do everything; written with Hub.mu held

	heard  atomic.Bool // something arrived since the last health tick
	slow   slowness
	asking atomic.Int32 // its questions to the hub that are being answered

	gathering gathering // of the goroutine that reads alone

	fetching  atomic.Int32 // its Fetches that are being answered
	beginning atomic.Int32 // its subscriptions whose start is looked for aside
	rtt       atomic.Int64 // nanoseconds, of the last answered ping
	health    health       // of the health checker's goroutine alone
	pinged    atomic.Int64 // when the ping under way was sent, nanoseconds since 1970

	gone      chan struct{} // closed when it is removed
	reason    error         // guarded by Hub.mu; does not change once gone is closed
	leave     sync.Once
	lastBytes int // of its Goodbye, when that was queued
	shut      sync.Once
	closed    func() // called once the connection is; nil: nobody wants to know
}

// ID returns the client's id.
func (c *Client) ID() wire.ClientID { return c.id }

// Epoch returns the number of the client's session: higher than that of any
// session of the same id before.
func (c *Client) Epoch() uint64 { return c.epoch }

// Info returns what was said of the client when it registered.
func (c *Client) Info() Info { return c.info }

// Done is closed when the client is removed; Reason says why.
func (c *Client) Done() <-chan struct{} { return c.gone }

// Reason returns why the client was removed, nil while it is there.
func (c *Client) Reason() error {
	select {
	case <-c.gone:
		return c.reason
	default:
		return nil
	}
}

// PendingBytes returns how much waits to be written to the client.
func (c *Client) PendingBytes() int { return c.out.Pending() }

// DroppedArtifacts returns how many artifacts it was too slow for.
func (c *Client) DroppedArtifacts() uint64 { return c.slow.dropped.Load() }

// RoundTrip returns how long the client took to answer the last health check,
// 0 before the first.
func (c *Client) RoundTrip() time.Duration { return time.Duration(c.rtt.Load()) }

// Topics returns the patterns of the client's subscriptions, "broadcast"
// included.
func (c *Client) Topics() []string {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	patterns := make([]string, 0, len(c.subs))
	for _, s := range c.subs {
		patterns = append(patterns, s.pattern)
	}
	return patterns
}

// RegisterClient adds a client, subscribed to "broadcast" if it may be. The hub owns conn
// from then on; on an error it stays the caller's. Closing conn has to end a
// Read and a Write that are under way. An older client of the same id is
// removed with a [SessionReplacedError].
func (h *Hub) RegisterClient(id wire.ClientID, conn io.ReadWriteCloser, opts ...ClientOption) error {
	if err := wire.CheckClientID(id); err != nil {
		return err
	}
	if err := h.enter(id); err != nil {
		return err
	}
	s := h.settings.Load()
	c := &Client{
		hub: h, id: id, conn: conn, since: time.Now(), broadcast: Broadcast,
		subs: make(map[uint32]*subscription), gone: make(chan struct{}), readEnd: make(chan struct{}),
	}
	for _, o := range opts {
		o(c)
	}
	if p := c.Permit(); p != nil && c.broadcast != "" && !p.Allows(wire.ActionSubscribe, c.broadcast) {
		c.broadcast = ""
	}
	if c.reader == nil {
		c.reader = wire.NewReader(conn, wire.MaxFrame(s.MaxArtifact))
	}
	c.out = outbox.New(conn, outbox.Config{
		LimitBytes: s.PendingBytes,
		Gauge:      h.queued,
		Failed: func(err error) { // by the writer, which removing waits for
			h.spawn(func() { h.remove(c, &ConnectionError{Op: "write", Err: err}) })
		},
	})

	if c.resume != nil {
		arrived, ok := h.arrivals.begin()
		if !ok {
			return ErrNotRunning
		}
		defer arrived()
	}
	release, err := h.reclaim(c)
	defer release()
	if err != nil {
		return err
	}
	h.mu.Lock()
	if h.state >= stateStopping {
		h.mu.Unlock()
		return ErrNotRunning
	}
	older, replaces := h.Client(id)
	if !replaces && c.session == nil && h.clientN+int(h.awayN.Load()) >= s.MaxClients {
		h.mu.Unlock()
		h.metrics.refused[refusedMaxClients].Add(1)
		return &wire.Error{Code: wire.CodeTooManyClients, Detail: "this node holds as many clients as it may: raise limits.maxClients or add nodes"}
	}
	if !replaces {
		if err := h.roomLocked(c); err != nil {
			h.mu.Unlock()
			h.metrics.refused[refusedIdentity].Add(1)
			return err
		}
	}
	h.admitLocked(c, older)
	h.mu.Unlock()

	if c.session != nil {
		c.session.goOn(c)
	}
	c.out.Flush()
	if replaces {
		h.dismiss(older)
	}
	return nil
}

// admitLocked makes c the client of its id.
func (h *Hub) admitLocked(c, older *Client) {
	if _, epoch, ok := h.remote.Locate(c.id); ok {
		c.epoch = max(c.epoch, epoch)
	}
	if older != nil {
		c.epoch = max(c.epoch, older.epoch)
	} else {
		h.clientN++
	}
	if s := c.session; s != nil {
		c.epoch = max(c.epoch, s.epoch)
	}
	if s := h.awaySession(c.id); s != nil {
		c.epoch = max(c.epoch, s.epoch)
	}
	c.epoch++
	h.beginSessionLocked(c)
	if c.greet != nil {
		g := Greeting{Epoch: c.epoch, Resumed: c.resumed, Expires: expiresIn(c.Permit())}
		if c.session != nil {
			g.Window, g.Taken, g.Session = h.settings.Load().ResumeWindow, c.session.taken, c.session.key
		}
		c.out.PushControl(c.greet(g))
	}
	h.clients.Store(c.id, c)
	h.away.Delete(c.id)
	h.flips.Add(1)
	h.remote.ClientUp(c.id, c.epoch)
	if older != nil {
		h.departLocked(older, &SessionReplacedError{ID: c.id})
	}
	h.moveInLocked(c)
	h.metrics.joined.Add(1)
	h.raiseLocked(ClientJoined{c})
	if c.broadcast != "" {
		h.addLocked(&subscription{client: c, pattern: c.broadcast})
	}
	h.expireLocked(c)
	h.spawnAtStartLocked(c.read)
}

// UnregisterClient says goodbye to a client and closes its connection. It
// returns a [NoClientError] when there is none of that id.
func (h *Hub) UnregisterClient(id wire.ClientID) error {
	c, ok := h.Client(id)
	if !ok {
		return &NoClientError{ID: id}
	}
	h.remove(c, &wire.Error{Code: wire.CodeRemoved, Detail: "removed by the program that runs the hub"})
	return nil
}

// Expel removes a client, which is told the reason, and closes its connection. It
// does nothing when the client has left.
func (h *Hub) Expel(c *Client, reason error) { h.remove(c, reason) }

// Client returns the client of that id on this hub.
func (h *Hub) Client(id wire.ClientID) (*Client, bool) {
	v, ok := h.clients.Load(id)
	if !ok {
		return nil, false
	}
	c, ok := v.(*Client)
	return c, ok
}

// Clients returns the clients of this hub, in no particular order.
func (h *Hub) Clients() []*Client {
	var all []*Client
	h.eachClient(func(c *Client) { all = append(all, c) })
	return all
}

// Supersede removes a client that another node holds with a newer session.
func (h *Hub) Supersede(id wire.ClientID, newer func(epoch uint64) bool) {
	if c, ok := h.Client(id); ok && newer(c.epoch) {
		h.remove(c, &SessionReplacedError{ID: id})
	}
	if s := h.awaySession(id); s != nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.awaySession(id) == s && newer(s.epoch) {
			h.endSessionLocked(s, wire.LeaveReplaced)
		}
	}
}

// remove takes the client out of the hub, tells it why, and closes its
// connection once what is queued is written or a second has passed.
func (h *Hub) remove(c *Client, reason error) {
	h.mu.Lock()
	first := h.departLocked(c, reason)
	h.mu.Unlock()
	if first {
		h.dismiss(c)
	}
}

// departLocked takes the client out of the hub; it reports false when that was
// done before.
func (h *Hub) departLocked(c *Client, reason error) bool {
	if c.reason != nil {
		return false
	}
	c.reason = reason
	parked := false
	if now, ok := h.Client(c.id); ok && now == c {
		h.clientN--
		parked = h.parkLocked(c, reason)
		h.clients.Delete(c.id)
		if !parked {
			h.remote.ClientDown(c.id, c.epoch, leaveReasons[departureOf(reason)])
		}
	}
	if c.session != nil && !parked {
		h.buryLocked(c.session)
	}
	for _, s := range c.subs {
		h.dropLocked(s)
	}
	if p := c.permit.Load(); p != nil && p.expiry != nil {
		p.expiry.Stop()
	}
	h.moveOutLocked(c)
	close(c.gone) // with the lock held: nobody subscribes it any more
	h.metrics.left[departureOf(reason)].Add(1)
	h.raiseLocked(ClientLeft{Client: c, Reason: reason})
	return true
}

// dismiss ends the connection of a client that has departed.
func (h *Hub) dismiss(c *Client) {
	c.sayGoodbye()
	if departureOf(c.reason).unreachable() || !h.spawn(func() {
		h.partings.Store(c, nil)
		defer h.partings.Delete(c)
		ctx, cancel := context.WithTimeout(h.grace, goodbyeTime)
		defer cancel()
		c.out.Drain(ctx)
		h.finish(c)
	}) {
		c.close()
	}
}

// sayGoodbye queues the last frame of a client that has departed, once.
func (c *Client) sayGoodbye() {
	c.leave.Do(func() {
		c.hub.log.LogAttrs(c.hub.life, slog.LevelDebug, "client left", slog.String("client", c.id), slog.Any("reason", c.reason))
		last := goodbye(c.reason)
		v := c.out.PushLast(last)
		if queued(v) {
			c.lastBytes = len(last)
		}
		if v == outbox.QueuedCold {
			c.out.Flush()
		}
	})
}

// drain waits until what is queued is written, for as long as the client takes
// something and ctx allows; it reports whether all was written.
func (c *Client) drain(ctx context.Context) bool {
	for left := c.out.Pending(); ; {
		step, cancel := context.WithTimeout(ctx, stallTime)
		done := c.out.Drain(step)
		cancel()
		now := c.out.Pending()
		if done || now == 0 || now >= left || ctx.Err() != nil {
			return done
		}
		left = now
	}
}

// goodbye is the last frame that a client is sent.
func goodbye(reason error) []byte {
	fallback := wire.CodeRemoved
	if errors.Is(reason, ErrStopped) {
		fallback = wire.CodeDraining
	}
	return wire.AppendControl(nil, wire.Header{Kind: wire.KindGoodbye}, "", wire.FaultOf(reason, fallback))
}

// close ends the connection and what is queued for it, once.
func (c *Client) close() {
	c.shut.Do(func() {
		c.out.Close()
		_ = c.conn.Close() // nothing more is wanted of it
		c.out.Wait()
		if c.closed != nil {
			c.closed()
		}
	})
}
