package hub

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/hubnode/topic"
	"github.com/switchboardhub/switchboard/wire"
)

// The errors that callers tell apart; they are the client's and the wire's as
// well.
type (
	// NoClientError says that no client of that id is there.
	NoClientError = wire.NoClientError
	// SessionReplacedError ends the older of two sessions of one client.
	SessionReplacedError = wire.SessionReplacedError
	// HistoryGapError says what retention took.
	HistoryGapError = wire.HistoryGapError
	// ArtifactTooLargeError refuses an artifact over the limit.
	ArtifactTooLargeError = wire.ArtifactTooLargeError
	// SlowClientError removes a client that does not read.
	SlowClientError = wire.SlowClientError
)

var (
	// ErrNotRunning is returned by what needs a hub that was started and not
	// stopped. A stopped hub can't be started again: make a new one.
	ErrNotRunning = errors.New("the hub is not running")
	// ErrStopped is the reason that clients of a stopping hub are given.
	ErrStopped = errors.New("the hub is stopping")
)

type state int

const (
	stateNew state = iota
	stateRunning
	stateStopping // no new clients; what is queued is written
	stateStopped
)

// Hub routes artifacts between its clients. All methods are safe for
// concurrent use.
type Hub struct {
	log      *slog.Logger
	remote   Remote
	compile  func(string) (Filter, error)
	system   System
	settings atomic.Pointer[Settings]
	metrics  counters

	clients  sync.Map // wire.ClientID → *Client
	routes   sync.Map // topic → *route
	peers    atomic.Pointer[map[string]Link]
	finds    finder
	awaiting awaiting
	handing  atomic.Bool // histories are handed over: nothing may be appended
	ids      wire.IDs

	wg     sync.WaitGroup
	retick chan struct{} // holds one: the housekeeper looks at the settings anew
	hurry  chan struct{} // closed when Stop has to stop waiting for clients
	rush   sync.Once
	life   context.Context //nolint:containedctx // the span from Start to Stop, which every goroutine of the hub ends with
	end    context.CancelFunc

	mu        sync.Mutex // guards the fields below, and writes to those above
	state     state
	index     *topic.Index[*subscription]
	interests map[string]int // name → local subscriptions
	peerSubs  map[string]map[string]*subscription
	routeN    int
	clientN   int
	lastSub   uint32
	early     []func() // goroutines that wait for Start
	stopped   chan struct{}
}

// New returns a hub that runs nothing before Start.
func New(opts ...Option) (*Hub, error) {
	b := &blueprint{log: slog.New(slog.DiscardHandler), remote: alone{}}
	for _, o := range opts {
		o(b)
	}
	if err := b.settings.validate(); err != nil {
		return nil, err
	}
	h := &Hub{
		log: b.log, remote: b.remote, compile: b.compile, system: b.system,
		index:     topic.NewIndex[*subscription](),
		interests: make(map[string]int),
		peerSubs:  make(map[string]map[string]*subscription),
		retick:    make(chan struct{}, 1),
		hurry:     make(chan struct{}),
		stopped:   make(chan struct{}),
	}
	h.life, h.end = context.WithCancel(context.Background())
	s := b.settings.withDefaults()
	h.settings.Store(&s)
	h.peers.Store(&map[string]Link{})
	for _, step := range append(b.clients, b.topics...) {
		if err := step(h); err != nil {
			h.abort() // closes the connections that it owns already
			return nil, err
		}
	}
	return h, nil
}

// Default returns the process-wide hub, made and started on first use. It runs
// until its Stop is called.
var Default = sync.OnceValue(func() *Hub {
	h, err := New()
	if err == nil {
		err = h.Start(context.Background())
	}
	if err != nil {
		panic("hub: default hub: " + err.Error()) // without options nothing can be wrong
	}
	return h
})

// Start begins to serve the registered clients. When ctx ends, so does the hub,
// as by Stop with no time to drain. Starting a running hub adds ctx to those
// that end it; a stopped one returns [ErrNotRunning].
func (h *Hub) Start(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state >= stateStopping {
		return ErrNotRunning
	}
	release := context.AfterFunc(ctx, h.abort)
	context.AfterFunc(h.life, func() { release() })
	if h.state == stateRunning {
		return nil
	}
	h.state = stateRunning
	for _, f := range h.early {
		h.wg.Go(f)
	}
	h.early = nil
	h.wg.Go(h.keepHouse)
	return nil
}

// abort ends the hub at once.
func (h *Hub) abort() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = h.Stop(ctx) // reports only that there was no time
}

// Stop says goodbye to every client, writes what is queued for them until ctx
// ends, closes their connections and waits until everything that the hub
// started has ended. It returns ctx's error when that cut the draining short;
// a client that takes nothing for five seconds is not waited for any longer.
// Further calls wait for the first, and cut it short when their ctx ends.
func (h *Hub) Stop(ctx context.Context) error {
	h.mu.Lock()
	first := h.state < stateStopping
	if first {
		h.state = stateStopping
		h.early = nil
	}
	h.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { h.rush.Do(func() { close(h.hurry) }) })
	defer stop()
	if !first {
		<-h.stopped
		return nil
	}

	cut := h.sayGoodbye()
	h.mu.Lock()
	h.state = stateStopped
	h.mu.Unlock()
	h.end()
	h.wg.Wait()
	close(h.stopped)
	switch {
	case cut == 0:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	default:
		return context.Canceled // by another Stop
	}
}

// sayGoodbye removes all clients and waits until their queues are written. It
// returns how many were cut off by the hurry.
func (h *Hub) sayGoodbye() (cut int) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var leaving, watching sync.WaitGroup
	var hurried atomic.Int32
	watching.Go(func() {
		select {
		case <-h.hurry:
			cancel()
		case <-ctx.Done():
		}
	})
	h.eachClient(func(c *Client) {
		leaving.Go(func() {
			h.retire(c, ErrStopped)
			if !c.drain(ctx) && ctx.Err() != nil {
				hurried.Add(1)
			}
			c.close()
		})
	})
	leaving.Wait()
	cancel()
	watching.Wait()
	return int(hurried.Load())
}

// spawn runs f in a goroutine that Stop waits for. It reports false, and f
// never runs, when the hub is stopped.
func (h *Hub) spawn(f func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state == stateStopped {
		return false
	}
	h.wg.Go(f)
	return true
}

// spawnAtStartLocked is spawn for what serves only after Start. It does nothing
// when the hub is stopped.
func (h *Hub) spawnAtStartLocked(f func()) {
	switch h.state {
	case stateNew:
		h.early = append(h.early, f)
	case stateRunning, stateStopping:
		h.wg.Go(f)
	case stateStopped:
	}
}

// Configure replaces the settings of a running hub. A wrong one is refused as
// a whole and the old one stays.
func (h *Hub) Configure(s Settings) error {
	if err := s.validate(); err != nil {
		return err
	}
	s = s.withDefaults()
	h.settings.Store(&s)
	select {
	case h.retick <- struct{}{}:
	default:
	}
	now := time.Now()
	h.eachLog(func(r *route, l *history.Log) {
		limits, _ := s.rule(r.topic)
		l.SetLimits(now, limits)
	})
	h.Rehome()
	h.eachClient(func(c *Client) { c.pushControl(nil, settingsFrame) })
	return nil
}

// settingsFrame tells clients to ask anew what they remember about topics.
var settingsFrame = wire.AppendFrame(nil, wire.Header{Kind: wire.KindSettings}, "", "", nil)

// Rehome makes the hub look up anew where topics have their home, after the
// settings or the Remote's placement changed.
func (h *Hub) Rehome() {
	h.mu.Lock()
	h.routes.Range(func(_, v any) bool {
		r, _ := v.(*route)
		r.fan.Store(nil)
		return true
	})
	h.mu.Unlock()
	h.eachLog(func(r *route, _ *history.Log) {
		if _, self := h.remote.Home(r.topic); !self {
			r.log.mu.Lock()
			r.log.open = false // what is here is held until the new home has fetched it
			r.log.mu.Unlock()
		}
	})
}

// eachLog visits the histories that this hub holds.
func (h *Hub) eachLog(visit func(*route, *history.Log)) {
	h.routes.Range(func(_, v any) bool {
		r, _ := v.(*route)
		if !r.log.held.Load() {
			return true
		}
		r.log.mu.Lock()
		l := r.log.log
		r.log.mu.Unlock()
		visit(r, l)
		return true
	})
}

func (h *Hub) eachClient(visit func(*Client)) {
	h.clients.Range(func(_, v any) bool {
		c, _ := v.(*Client)
		visit(c)
		return true
	})
}
