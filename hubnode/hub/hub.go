package hub

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/outbox"
	"github.com/switchboardhub/switchboard/hubnode/seldom"
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
	// NoQuorumError says that history can't be appended to now.
	NoQuorumError = wire.NoQuorumError
	// HistoryGapError says what retention took, or what is missed for want of a right.
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
	keeper   Keeper
	compile  func(string) (Filter, error)
	system   System
	settings atomic.Pointer[Settings]
	entrance atomic.Pointer[entrance] // nil: everybody may come
	metrics  counters

	clients  sync.Map // wire.ClientID → *Client
	away     sync.Map // wire.ClientID → *session, of clients that are not here now
	awayN    atomic.Int64
	flips    atomic.Uint64 // rises when a client goes from clients to away, or back
	turns    turns
	fence    fence
	moves    moves
	onward   onward
	routes   sync.Map // topic → *route
	peers    atomic.Pointer[map[string]Link]
	finds    finder
	sending  sync.RWMutex // held for reading from a look at where a client is until its frame is queued for there
	awaiting awaiting
	filters  filters
	desks    desks
	polls    atomic.Uint64 // clients' Fetches so far
	arrivals arrivals
	queued   *outbox.Gauge // of all clients
	partings sync.Map      // *Client → nothing: those that have left, and take what is queued for them
	denials  seldom.Log
	ids      wire.IDs

	listing chan struct{} // a value for each subscription for which topics are listed again

	wg     sync.WaitGroup
	retick chan struct{} // holds one: the housekeeper looks at the settings anew
	unsent unsent
	life   context.Context //nolint:containedctx // the span from Start to Stop, which every goroutine of the hub ends with
	end    context.CancelFunc
	grace  context.Context //nolint:containedctx // ended when Stop has to stop waiting for clients
	hurry  context.CancelFunc

	mu        sync.Mutex // guards the fields below, and writes to those above
	state     state
	index     *topic.Index[*subscription]
	interests map[string]int // name → local subscriptions
	peerSubs  map[string]map[string]*subscription
	routeN    int
	clientN   int
	accounts  map[string]*account
	lastSub   uint32
	early     []func() // goroutines that wait for Start
	listeners []*listener
	stopped   chan struct{}
	relinked  chan struct{}        // closed when a link comes or goes
	lost      map[string]time.Time // when the link to a node went; those that came back are not in it
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
		queued:    outbox.NewGauge(),
		index:     topic.NewIndex[*subscription](),
		interests: make(map[string]int),
		peerSubs:  make(map[string]map[string]*subscription),
		listing:   make(chan struct{}, listingMax),
		retick:    make(chan struct{}, 1),
		stopped:   make(chan struct{}),
		relinked:  make(chan struct{}),
		lost:      make(map[string]time.Time),
	}
	if h.keeper = b.keeper; h.keeper == nil {
		h.keeper = newLocal(h)
	}
	h.life, h.end = context.WithCancel(context.Background())
	h.grace, h.hurry = context.WithCancel(context.Background())
	s := b.settings.withDefaults()
	h.settings.Store(&s)
	h.peers.Store(&map[string]Link{})
	for _, listen := range b.events {
		h.OnEvent(listen)
	}
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
	h.keeper.Retain(time.Now())
	h.forgetFans()
	h.eachClient(func(c *Client) { c.pushControl(nil, settingsFrame) })
	return nil
}

// settingsFrame tells clients to ask anew what they remember about topics.
var settingsFrame = wire.AppendFrame(nil, wire.Header{Kind: wire.KindSettings}, "", "", nil)

// forgetFans makes every topic be resolved anew, after the settings changed.
func (h *Hub) forgetFans() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.routes.Range(func(_, v any) bool {
		r, _ := v.(*route)
		r.fan.Store(nil)
		return true
	})
}

// Queued tells about how much memory is taken by what waits for clients.
func (h *Hub) Queued() *outbox.Gauge { return h.queued }

func (h *Hub) eachClient(visit func(*Client)) {
	h.clients.Range(func(_, v any) bool {
		c, _ := v.(*Client)
		visit(c)
		return true
	})
}
