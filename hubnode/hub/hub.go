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
	ids      wire.IDs

	wg   sync.WaitGroup
	life context.Context //nolint:containedctx // the span from Start to Stop, which every goroutine of the hub ends with
	end  context.CancelFunc

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
// started has ended. It returns ctx's error when that cut the draining short.
// Further calls wait for the first.
func (h *Hub) Stop(ctx context.Context) error {
	h.mu.Lock()
	if h.state >= stateStopping {
		h.mu.Unlock()
		<-h.stopped
		return nil
	}
	h.state = stateStopping
	h.early = nil
	h.mu.Unlock()

	clean := h.sayGoodbye(ctx)
	h.mu.Lock()
	h.state = stateStopped
	h.mu.Unlock()
	h.end()
	h.wg.Wait()
	close(h.stopped)
	if !clean {
		return context.Cause(ctx)
	}
	return nil
}

// sayGoodbye removes all clients and waits until their queues are written.
func (h *Hub) sayGoodbye(ctx context.Context) (clean bool) {
	var leaving sync.WaitGroup
	var cut atomic.Bool
	h.clients.Range(func(_, v any) bool {
		c, _ := v.(*Client)
		leaving.Go(func() {
			h.retire(c, ErrStopped)
			if !c.out.Drain(ctx) {
				cut.Store(true)
			}
			c.close()
		})
		return true
	})
	leaving.Wait()
	return !cut.Load()
}

// spawn runs f in a goroutine that Stop waits for; before Start it waits for
// that. It reports false, and f never runs, when the hub is stopped.
func (h *Hub) spawn(f func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.spawnLocked(f)
}

func (h *Hub) spawnLocked(f func()) bool {
	switch h.state {
	case stateNew:
		h.early = append(h.early, f)
	case stateRunning, stateStopping:
		h.wg.Go(f)
	case stateStopped:
		return false
	}
	return true
}

// Configure replaces the settings of a running hub. A wrong one is refused as
// a whole and the old one stays.
func (h *Hub) Configure(s Settings) error {
	if err := s.validate(); err != nil {
		return err
	}
	s = s.withDefaults()
	h.settings.Store(&s)
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
