package hubnode

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/hubnode/shard"
	"github.com/switchboardhub/switchboard/hubnode/tenancy"
	"github.com/switchboardhub/switchboard/wire"
)

// questionShares asks another node what the histories that it leads hold. Nodes of before
// there was a limit don't know it.
const questionShares = "history.shares"

const (
	// askEvery is how often the nodes ask each other. What others store meanwhile is not
	// known here: a tenant may have that much more than its limit.
	askEvery = 2 * time.Second
	// tellTime is how long an answer may take. Who gives none is not waited for.
	tellTime = 2 * time.Second
	// toldAge is how long a shard counts of which nothing is heard any more. Its leader may
	// be a node that can't tell, and what may long be gone must not stop anybody for ever.
	toldAge = 30 * time.Second
)

// shares knows what the histories of each tenant hold in the whole hub, and refuses what
// would be beyond the limit. It is asked where a topic is led, through which everything
// comes that is stored, whichever node it was published on. It follows what is stored on
// the shards that this node leads, and of the others knows what their leaders told last.
// Without a limit nothing is counted and nobody asked.
type shares struct {
	refused atomic.Uint64 // artifacts
	limit   atomic.Int64  // bytes of one tenant; 0: there is none
	woken   chan struct{} // holds one: count what this node leads

	mu       sync.Mutex // guards the fields below
	tenants  map[string]*share
	shards   map[int]*holding
	counting bool // from begin to counted
}

// share is what one tenant's histories hold.
type share struct {
	tenant string
	led    int64 // on shards that this node leads
	coming int64 // on its way to be stored there
	others int64 // on shards that others lead
}

func (s *share) used() int64 { return s.led + s.coming + s.others }

// holding is what one shard holds.
type holding struct {
	term  uint64
	here  bool             // this node leads it
	at    time.Time        // when that was counted, or told
	bytes map[string]int64 // by tenant
	since map[string]int64 // the part of bytes that came and went since a count began
}

// place is room that was made for what is to be stored. The zero place is that of what
// takes none.
type place struct {
	of    *share
	shard int
	bytes int64
}

func newShares() *shares {
	return &shares{woken: make(chan struct{}, 1), tenants: make(map[string]*share), shards: make(map[int]*holding)}
}

// on reports whether there is a limit.
func (s *shares) on() bool { return s.limit.Load() > 0 }

// configure takes over settings.
func (s *shares) configure(cfg config.Config) {
	limit := int64(cfg.Limits.PerNamespace.HistoryBytes)
	if cfg.Tenancy != config.TenancyNamespace {
		limit = 0
	}
	if s.limit.Swap(limit) == 0 {
		s.wake()
	}
}

// wake makes the count come at once, while there is a limit: shards have come or gone, or
// something went from their topics that was not told of.
func (s *shares) wake() {
	if !s.on() {
		return
	}
	select {
	case s.woken <- struct{}{}:
	default:
	}
}

// take makes room in its tenant's share for what is to be stored on a topic that this node
// leads, or returns why there is none. Settle has to hear what came of it.
func (s *shares) take(topic []byte, shard, bytes int) (place, error) {
	limit := s.limit.Load()
	owner := tenancy.OwnerOf(topic)
	if limit == 0 || len(owner) == 0 {
		return place{}, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.tenants[string(owner)]
	if of == nil {
		of = s.shareLocked(string(owner))
	}
	if used := of.used(); used+int64(bytes) > limit {
		return place{}, &wire.Error{Code: wire.CodeStorageFull, Detail: fmt.Sprintf(
			"the topics of namespace %s keep %d bytes of history and may keep %d: let them keep less or for a shorter time, or ask who runs the hub to purge some or to raise limits.perNamespace.historyBytes",
			owner, used, limit)}
	}
	of.coming += int64(bytes)
	return place{of, shard, int64(bytes)}, nil
}

// shareLocked returns a tenant's share.
func (s *shares) shareLocked(tenant string) *share {
	of := s.tenants[tenant]
	if of == nil {
		of = &share{tenant: tenant}
		s.tenants[tenant] = of
	}
	return of
}

// settle says what came of that for which there was room: by how much the topic has grown.
func (s *shares) settle(p place, grown int64) {
	if p.of == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.of.coming -= p.bytes
	s.grewLocked(p.of, p.shard, grown)
}

// purged says by how much a topic has grown when some of it was taken, which is less than
// nothing.
func (s *shares) purged(topic string, shard int, grown int64) {
	owner := tenancy.OwnerOf(topic)
	if owner == "" || !s.on() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grewLocked(s.shareLocked(owner), shard, grown)
}

func (s *shares) grewLocked(of *share, shard int, grown int64) {
	if grown == 0 {
		return
	}
	h := s.shards[shard]
	if h == nil { // it has just come here
		h = &holding{here: true, at: time.Now(), bytes: make(map[string]int64)}
		s.shards[shard] = h
	}
	h.bytes[of.tenant] += grown
	if s.counting {
		if h.since == nil {
			h.since = make(map[string]int64)
		}
		h.since[of.tenant] += grown
	}
	if h.here {
		of.led += grown
	} else {
		of.others += grown
	}
}

// begin begins a count. What is stored until it ends may or may not be in what is counted,
// and counts on top until the next.
func (s *shares) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counting = true
}

// counted ends a count: this is what the shards hold that this node leads. One that it has
// led and does no longer counts as before until its next leader tells.
func (s *shares) counted(here []shard.Tally, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.shards {
		if h.here {
			h.here, h.at = false, now
		}
	}
	for _, t := range here {
		h := &holding{term: t.Term, here: true, at: now, bytes: make(map[string]int64, len(t.Bytes))}
		maps.Copy(h.bytes, t.Bytes)
		if before := s.shards[t.Shard]; before != nil {
			for tenant, bytes := range before.since {
				h.bytes[tenant] += bytes
			}
		}
		s.shards[t.Shard] = h
	}
	for _, h := range s.shards {
		h.since = nil
	}
	s.counting = false
	s.sumLocked(now)
}

// heard takes over what other nodes tell of the shards that they lead.
func (s *shares) heard(told []shard.Tally, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	latest := make(map[int]shard.Tally)
	for _, t := range told {
		if have, ok := latest[t.Shard]; !ok || have.Term < t.Term {
			latest[t.Shard] = t
		}
	}
	for n, t := range latest {
		if h := s.shards[n]; h != nil && h.here && h.term >= t.Term {
			continue // who led it before is late
		}
		h := &holding{term: t.Term, at: now, bytes: make(map[string]int64, len(t.Bytes))}
		maps.Copy(h.bytes, t.Bytes)
		s.shards[n] = h
	}
	s.sumLocked(now)
}

// sumLocked adds up what the shards hold. Those of which nothing is heard are forgotten, and
// so are tenants that hold nothing.
func (s *shares) sumLocked(now time.Time) {
	maps.DeleteFunc(s.shards, func(_ int, h *holding) bool { return !h.here && now.Sub(h.at) > toldAge })
	for _, of := range s.tenants {
		of.led, of.others = 0, 0
	}
	for _, h := range s.shards {
		for tenant, bytes := range h.bytes {
			if of := s.shareLocked(tenant); h.here {
				of.led += bytes
			} else {
				of.others += bytes
			}
		}
	}
	maps.DeleteFunc(s.tenants, func(_ string, of *share) bool { return of.led == 0 && of.coming == 0 && of.others == 0 })
}

// clear forgets everything: the limit is gone.
func (s *shares) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.shards)
	s.sumLocked(time.Now())
}

// led returns what the shards hold that this node leads, for other nodes.
func (s *shares) led() []shard.Tally {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := []shard.Tally{}
	for n, h := range s.shards {
		if h.here {
			all = append(all, shard.Tally{Shard: n, Term: h.term, Bytes: maps.Clone(h.bytes)})
		}
	}
	return all
}

// byTenant returns what the tenants hold.
func (s *shares) byTenant() map[string]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]int64, len(s.tenants))
	for name, of := range s.tenants {
		all[name] = of.used()
	}
	return all
}

// NamespaceInfo is one namespace in the answer to "namespaces".
type NamespaceInfo struct {
	Namespace    string `json:"namespace"`
	HistoryBytes int64  `json:"historyBytes"` // that its topics keep in the whole hub, as far as the node knows
}

// namespaceList is the answer to "namespaces", who keeps most first.
type namespaceList struct {
	MaxHistoryBytes int64           `json:"maxHistoryBytes"` // of one namespace; 0: there is no limit, and nothing is counted
	Namespaces      []NamespaceInfo `json:"namespaces"`
}

// list returns what the tenants hold, and may.
func (s *shares) list() namespaceList {
	l := namespaceList{s.limit.Load(), []NamespaceInfo{}}
	if l.MaxHistoryBytes == 0 {
		return l
	}
	for name, bytes := range s.byTenant() {
		l.Namespaces = append(l.Namespaces, NamespaceInfo{name, bytes})
	}
	slices.SortFunc(l.Namespaces, func(a, b NamespaceInfo) int {
		return cmp.Or(cmp.Compare(b.HistoryBytes, a.HistoryBytes), cmp.Compare(a.Namespace, b.Namespace))
	})
	return l
}

// followShares keeps up with what tenants' histories hold, until ctx ends.
func (n *Node) followShares(ctx context.Context) error {
	var next <-chan time.Time // nil while there is no limit
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.shares.woken:
			n.countShares()
		case <-next:
		}
		next = nil
		if n.shares.on() {
			n.shares.heard(n.askShares(ctx, n.view.peers(), n.view.Ask), time.Now())
			next = time.After(askEvery)
		} else {
			n.shares.clear()
		}
	}
}

// countShares looks at every topic that this node leads.
func (n *Node) countShares() {
	n.shares.begin()
	n.shares.counted(n.keeper.Tallies(tenancy.OwnerOf[string]), time.Now())
}

// askShares returns what other nodes say of the shards that they lead. Who says nothing is
// left out.
func (n *Node) askShares(ctx context.Context, peers []string, ask func(ctx context.Context, node, question string, body []byte) ([]byte, error)) []shard.Tally {
	ctx, cancel := context.WithTimeout(ctx, tellTime)
	defer cancel()
	answers := make([][]shard.Tally, len(peers))
	var asking sync.WaitGroup
	for i, peer := range peers {
		asking.Go(func() {
			var all []shard.Tally
			b, err := ask(ctx, peer, questionShares, nil)
			if err == nil {
				err = wire.DecodeJSON(b, &all)
			}
			if err == nil {
				answers[i] = all
			} else { // it may be of a version that does not know the question
				n.log.Debug("a node does not say what its histories hold", slog.String("peer", peer), slog.Any("error", err))
			}
		})
	}
	asking.Wait()
	return slices.Concat(answers...)
}
