package shard

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/types"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/hubnode/placement"
	"github.com/switchboardhub/switchboard/wire"
)

// Timing is how fast the replicas notice that one of them is gone.
type Timing struct {
	// Heartbeat is how long a leader may be silent before another one is
	// chosen: up to twice as long, by chance. 0: 500 ms.
	Heartbeat time.Duration
	// Commit is how long a follower may be behind in hearing what is committed
	// while nothing new comes; up to twice as long by chance, and a fifth of Heartbeat for
	// what goes along. 0: 200 ms.
	Commit time.Duration
	// Tend is how often a replica looks whether the group is as it should be.
	// 0: 500 ms.
	Tend time.Duration

	barrier time.Duration // how long a new leader may take to apply what is committed; 0: barrierTime
}

func (t Timing) withDefaults() Timing {
	if t.Heartbeat == 0 {
		t.Heartbeat = 500 * time.Millisecond
	}
	if t.Commit == 0 {
		t.Commit = 200 * time.Millisecond
	}
	if t.Tend == 0 {
		t.Tend = 500 * time.Millisecond
	}
	t.barrier = cmp.Or(t.barrier, barrierTime)
	return t
}

// Config says what shards there are and how to reach the others. All fields but
// Dir, SyncInterval, Weighs, Owners and Timing are required.
type Config struct {
	Self   string // this node's name
	Shards int    // the same on all nodes, for the hub's whole life
	// Dir is where the replicas' logs are. Empty: in memory.
	Dir string
	// SyncInterval is how often logs are synced to disk; 0: before anything in
	// them is acknowledged.
	SyncInterval time.Duration
	// Store returns the store of a shard's topics, always the same.
	Store func(shard int) (history.Store, error)
	// Limits returns what a topic keeps.
	Limits func(topic string) history.Limits
	// Weighs reports whether somebody wants to know by how much topics grow, which takes
	// two looks at the store for each record. Nil: nobody ever does.
	Weighs func() bool
	// Owners returns what says whose a topic is, with an empty text for nobody's; nil while
	// topics are nobody's. An owner has a share of each shard's durable subscriptions. Nil:
	// there never are owners.
	Owners func() (ownerOf func(topic string) string)
	// Outlet returns what takes what is stored, for one goroutine.
	Outlet func() Outlet
	// Desired returns the nodes that a shard's replicas belong on, the one that
	// should lead first.
	Desired func(shard int) []string
	// Linked returns the other nodes that there is a link to.
	Linked func() []string
	// Settled reports whether every node of the hub that is there is linked.
	Settled func() bool
	// Ask puts a question to another node, whose Answer answers it.
	Ask func(ctx context.Context, node, question string, body []byte) ([]byte, error)
	// Carrier brings Raft's frames to other nodes.
	Carrier Carrier
	// Bundles reports whether a node takes such frames also as bundles: one of the version
	// before does not.
	Bundles func(node string) bool
	// Moved is called when the leader of a shard has changed.
	Moved func(shard int)
	// Looked is called after each look at the replicas: Ready may have changed.
	Looked func()
	Timing Timing
	Log    *slog.Logger

	files   files // that Dir is in; nil: the machine's
	segment int   // bytes of one file of a log; 0: segmentBytes
}

// Shards are the replicas of one node, and what it knows of who leads. Make it
// with [New], and run it once with Run.
type Shards struct {
	cfg     Config
	raftLog hclog.Logger
	leaders []atomic.Pointer[leadership]
	bundles *bundles
	lazies  lazySyncs

	pulling   chan struct{}            // holds one for each replica that fetches history
	recovered atomic.Uint64            // groups whose majority was lost for good
	remade    atomic.Uint64            // replicas whose state was damaged
	opening   sync.Mutex               // held while a replica is opened; taken before mu; guards unwritten
	unwritten map[int][]types.LogEntry // logs whose files are not relied on, until they are written to others
	setbacks  []setback                // of look, by shard

	mu       sync.Mutex // guards the fields below; never held for the disk's sake: links are read under it
	wanted   bool       // some topic keeps history
	since    time.Time  // when that became so
	running  bool
	life     context.Context //nolint:containedctx // of Run, of the replicas, which are ended one by one
	replicas map[int]*replica
	changing map[int]bool  // replicas that are just being closed, or made anew
	linking  chan struct{} // closed when the next link has come up
	woken    chan struct{} // holds one: look at what should run
}

// leadership is who leads a shard.
type leadership struct {
	node string
	term uint64
}

// New returns shards that do not run.
func New(cfg Config) *Shards {
	cfg.Timing = cfg.Timing.withDefaults()
	if cfg.files == nil {
		cfg.files = newMachineFiles()
	}
	cfg.segment = cmp.Or(cfg.segment, segmentBytes)
	return &Shards{
		cfg: cfg, raftLog: hclogTo(cfg.Log, cfg.Log.Enabled(context.Background(), slog.LevelDebug)),
		leaders: make([]atomic.Pointer[leadership], cfg.Shards), bundles: newBundles(cfg),
		setbacks: make([]setback, cfg.Shards), replicas: make(map[int]*replica), changing: make(map[int]bool), unwritten: make(map[int][]types.LogEntry), linking: make(chan struct{}), woken: make(chan struct{}, 1), pulling: make(chan struct{}, pullsMax),
	}
}

// Of returns the shard of a topic.
func (s *Shards) Of(topic string) int { return placement.ShardOf(topic, s.cfg.Shards) }

// Want says whether some topic keeps history: without one no replica runs that
// has no state already.
func (s *Shards) Want(on bool) {
	s.mu.Lock()
	if on && !s.wanted {
		s.since = time.Now()
	}
	s.wanted = on
	s.mu.Unlock()
	s.Wake()
}

// Wake makes the shards look at once at what changed around them: members,
// links, settings.
func (s *Shards) Wake() {
	select {
	case s.woken <- struct{}{}:
	default:
	}
}

// Run runs the replicas that belong here until ctx ends, and returns when all
// have stopped.
func (s *Shards) Run(ctx context.Context) {
	s.mu.Lock()
	s.running, s.life = true, context.WithoutCancel(ctx)
	s.mu.Unlock()
	defer s.stopAll()
	tick := time.NewTicker(s.cfg.Timing.Tend)
	defer tick.Stop()
	for {
		s.look()
		s.cfg.Looked()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-s.woken:
			s.eachReplica((*replica).poke)
		}
	}
}

func (s *Shards) stopAll() {
	s.mu.Lock()
	s.running = false
	all := s.replicas
	s.replicas = make(map[int]*replica)
	s.mu.Unlock()
	s.opening.Lock() // who opens one closes it, and nobody begins any more
	for n := range s.unwritten {
		if err := s.writeLog(n, s.directory(n)); err != nil {
			s.cfg.Log.Error("log not written anew: what was acknowledged last may not be on the disk", slog.Int("shard", n), slog.Any("error", err))
		}
	}
	s.opening.Unlock()
	var stopping sync.WaitGroup
	for _, r := range all {
		stopping.Go(r.close)
	}
	stopping.Wait()
	s.bundles.close()
}

// look starts the replicas that belong here, and makes those anew that failed. A shard
// whose files get in the way is looked at again later: the others, and all else that the
// node does, go on.
func (s *Shards) look() {
	s.mu.Lock()
	wanted := s.wanted
	s.mu.Unlock()
	now := time.Now()
	for n := range s.cfg.Shards {
		if s.setbacks[n].again.After(now) {
			continue
		}
		err := s.lookAt(n, wanted)
		switch {
		case err == nil:
			s.setbacks[n] = setback{}
		case errors.Is(err, errChanging), errors.Is(err, errStopped): // somebody else is at it, or nobody any more
		default:
			s.setBack(n, now, err)
		}
	}
}

func (s *Shards) lookAt(n int, wanted bool) error {
	r := s.replica(n)
	switch {
	case r != nil && r.forsaken.Load():
		if err := s.revive(r); err != nil {
			return fmt.Errorf("go on alone: %w", err)
		}
	case r != nil && r.dropped.Load():
		if err := s.remove(r); err != nil {
			return err
		}
		s.Wake() // for its successor, if one belongs here
	case r != nil && r.failed.Load() != nil:
		s.remade.Add(1)
		if err := s.remove(r); err != nil {
			return err
		}
		fallthrough
	case r == nil && wanted && s.belongs(n), r == nil && s.hasState(n):
		if _, err := s.open(n); err != nil {
			return err
		}
	case r != nil && r.unsynced.Load() != nil:
		if err := s.renew(r); err != nil {
			return err
		}
	}
	return nil
}

// renew takes a replica out whose log could not be synced, and brings it back with what was in
// that, all of which memory or the kernel still has, in other files. That no others are needed
// for it matters when the disks of all nodes are one, and it fails for a moment.
func (s *Shards) renew(r *replica) error {
	if !s.begin(r) {
		return nil
	}
	r.halt()
	entries, err := r.logs.all()
	if cerr := r.logs.close(); cerr != nil {
		r.log.Debug("log not closed", slog.Any("error", cerr))
	}
	if err == nil {
		s.opening.Lock()
		s.unwritten[r.n] = entries
		s.opening.Unlock()
	} else {
		s.remade.Add(1)
		r.log.Error("what was in the log can't be read any more: the replica is made anew from the others", slog.Any("error", err))
		err = r.wipe()
	}
	s.finish(r.n, nil)
	if err == nil {
		_, err = s.open(r.n)
	}
	return err
}

// writeLog writes what was in a log whose files are not relied on to others. opening is held.
func (s *Shards) writeLog(n int, dir string) error {
	entries, ok := s.unwritten[n]
	if !ok {
		return nil
	}
	if err := writeAnew(s.cfg.files, dir, s.cfg.segment, entries); err != nil {
		return err
	}
	delete(s.unwritten, n)
	return nil
}

// setback is that a shard's replica could not be opened, or removed.
type setback struct {
	wait  time.Duration // from the last try to the next
	again time.Time     // when it is tried again
}

// A shard's files are tried again after so long, twice as long each time.
const (
	setbackFirst = time.Second
	setbackMost  = 30 * time.Second
)

func (s *Shards) setBack(n int, now time.Time, err error) {
	wait := min(max(2*s.setbacks[n].wait, setbackFirst), setbackMost)
	s.setbacks[n] = setback{wait, now.Add(wait)}
	s.cfg.Log.Error("this node's replica of a shard can't be opened, or removed: it is tried again",
		slog.Int("shard", n), slog.Duration("after", wait), slog.Any("error", err))
}

// hasState reports whether there is a replica's state on this node's disk.
func (s *Shards) hasState(n int) bool {
	dir := s.directory(n)
	if dir == "" {
		return false
	}
	id, err := readIdentity(s.cfg.files, dir)
	return err == nil && id != ""
}

// belongs reports whether a replica of a shard should be here.
func (s *Shards) belongs(n int) bool {
	return slices.Contains(s.cfg.Desired(n), s.cfg.Self)
}

// open returns this node's replica of a shard, started if need be.
func (s *Shards) open(n int) (*replica, error) {
	if n < 0 || n >= s.cfg.Shards {
		return nil, fmt.Errorf("there is no shard %d: this hub has %d", n, s.cfg.Shards)
	}
	if r := s.replica(n); r != nil {
		return r, nil
	}
	s.opening.Lock() // reading a log takes its time
	defer s.opening.Unlock()
	if r, err := s.vacancy(n); r != nil || err != nil {
		return r, err
	}
	r, err := s.newReplica(n)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	running := s.running
	if running {
		s.replicas[n] = r
	}
	s.mu.Unlock()
	if !running {
		r.close()
		return nil, errStopped
	}
	return r, nil
}

// vacancy returns this node's replica of a shard, or nil when one can be opened.
func (s *Shards) vacancy(n int) (*replica, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.running:
		return nil, errStopped
	case s.changing[n]:
		return nil, errChanging
	}
	return s.replicas[n], nil
}

// remove closes a replica and throws its state away.
func (s *Shards) remove(r *replica) error {
	if !s.begin(r) {
		return nil
	}
	r.close()
	err := r.wipe()
	s.finish(r.n, nil)
	return err
}

// begin takes a replica out to be closed. It reports false when it is not in
// use any more, or somebody else has begun.
func (s *Shards) begin(r *replica) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.running || s.replicas[r.n] != r {
		return false
	}
	delete(s.replicas, r.n)
	s.changing[r.n] = true
	return true
}

// finish puts what came of a replica in its place, unless the shards have
// stopped: it reports whether it did.
func (s *Shards) finish(n int, r *replica) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.changing, n)
	if r == nil || !s.running {
		return false
	}
	s.replicas[n] = r
	return true
}

func (s *Shards) replica(n int) *replica {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.replicas[n]
}

func (s *Shards) eachReplica(visit func(*replica)) {
	s.mu.Lock()
	all := make([]*replica, 0, len(s.replicas))
	for _, r := range s.replicas {
		all = append(all, r)
	}
	s.mu.Unlock()
	for _, r := range all {
		visit(r)
	}
}

// newID returns an id for a replica that begins its life now.
func (s *Shards) newID() raft.ServerID {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return raft.ServerID(s.cfg.Self + "/" + hex.EncodeToString(b[:]))
}

// Leader returns the node that leads a topic's shard, empty while there is none.
func (s *Shards) Leader(topic string) (node string, self bool) {
	return s.leaderOf(s.Of(topic))
}

func (s *Shards) leaderOf(n int) (node string, self bool) {
	l := s.leaders[n].Load()
	if l == nil {
		return "", false
	}
	return l.node, l.node == s.cfg.Self
}

// leads notes that this node leads a shard, or no longer does, and tells the
// others.
func (s *Shards) leads(n int, term uint64, on bool) {
	if s.lead(n, s.cfg.Self, term, on) {
		said := encodeLeads([]lead{{n, term, on}})
		for _, node := range s.cfg.Linked() {
			s.cfg.Carrier.Carry(node, said)
		}
	}
}

// lead notes who leads a shard. A lower term than known says nothing new.
func (s *Shards) lead(n int, node string, term uint64, on bool) (changed bool) {
	if n < 0 || n >= len(s.leaders) {
		return false
	}
	for {
		have := s.leaders[n].Load()
		var now *leadership
		switch {
		case on && (have == nil || have.term <= term):
			now = &leadership{node, term}
		case !on && have != nil && have.node == node && have.term <= term:
		default:
			return false
		}
		if s.leaders[n].CompareAndSwap(have, now) {
			s.cfg.Moved(n)
			return true
		}
	}
}

// lead is one element of what a node says that it leads.
type lead struct {
	shard int
	term  uint64
	on    bool
}

func encodeLeads(all []lead) []byte {
	var b []byte
	for _, l := range all {
		b = binary.BigEndian.AppendUint32(b, uint32(l.shard))
		b = binary.BigEndian.AppendUint64(b, l.term)
		b = append(b, bit(l.on))
	}
	return wire.AppendFrame(nil, wire.Header{Kind: wire.KindLeads}, "", "", b)
}

func decodeLeads(b []byte) ([]lead, error) {
	f := &fields{rest: b}
	var all []lead
	for len(f.rest) > 0 && !f.bad {
		all = append(all, lead{int(f.uint32()), f.uint64(), f.byte() == 1})
	}
	if f.bad {
		return nil, fmt.Errorf("%w: leaders of shards", wire.ErrMalformed)
	}
	return all, nil
}

// Ready reports whether what is published here can be stored, and the node's
// replicas do their part: each shard has a leader, and the replicas that belong
// here have a vote and have caught up. While topics keep no history there is
// nothing to wait for, nor on a shard that never had a leader after patience has
// passed: it does not get one by this node's waiting.
func (s *Shards) Ready(patience time.Duration) bool {
	s.mu.Lock()
	wanted, since := s.wanted, s.since
	s.mu.Unlock()
	if !wanted {
		return true
	}
	for n := range s.leaders {
		if s.leaders[n].Load() == nil {
			if time.Since(since) < patience {
				return false
			}
			continue
		}
		if s.belongs(n) && !s.caughtUp(n) {
			return false
		}
	}
	return true
}

// caughtUp reports whether this node's replica of a shard has a vote and is near
// the end of the log.
func (s *Shards) caughtUp(n int) bool {
	r := s.replica(n)
	if r == nil || r.failed.Load() != nil || r.forsaken.Load() {
		return false
	}
	votes := slices.ContainsFunc(r.members(), func(m raft.Server) bool { return m.ID == r.id && m.Suffrage == raft.Voter })
	return votes && r.caughtUp()
}

// Unsettled returns how many shards this node knows to be not, or not yet, where
// they belong: without a leader, led from elsewhere, or with other members than
// placement wants, as far as a replica here can tell. It changes with Desired at once.
func (s *Shards) Unsettled() int {
	s.mu.Lock()
	wanted := s.wanted
	s.mu.Unlock()
	count := 0
	for n := range s.leaders {
		desired := s.cfg.Desired(n)
		leader := s.leaders[n].Load()
		r := s.replica(n)
		switch {
		case leader == nil && (wanted || r != nil && len(r.members()) > 0),
			leader != nil && !slices.Contains(desired, leader.node),
			r != nil && !settled(desired, r.members()):
			count++
		}
	}
	return count
}

// settled reports whether a group has its members on the desired nodes and nowhere
// else, or does not exist.
func settled(desired []string, members []raft.Server) bool {
	for _, m := range members {
		if m.Suffrage != raft.Voter || !slices.Contains(desired, nodeOf(m.ID)) {
			return false
		}
	}
	return len(members) == 0 || len(members) == len(desired)
}

// Linked tells a node that a link has come up to what this one leads.
func (s *Shards) Linked(node string) {
	s.mu.Lock()
	close(s.linking)
	s.linking = make(chan struct{})
	s.mu.Unlock()
	var all []lead
	s.eachReplica(func(r *replica) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.said {
			all = append(all, lead{r.n, r.term, true})
		}
	})
	if len(all) > 0 {
		s.cfg.Carrier.Carry(node, encodeLeads(all))
	}
	s.Wake()
}

// nextLink returns a channel that is closed when the next link has come up.
func (s *Shards) nextLink() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.linking
}

// Unlinked forgets what a node led, and fails the calls to it.
func (s *Shards) Unlinked(node string) {
	s.bundles.forget(node)
	s.eachReplica(func(r *replica) {
		r.trans.fail(node, errNoLink)
		r.succeeds(node)
	})
	for n := range s.leaders {
		if l := s.leaders[n].Load(); l != nil && l.node == node && s.leaders[n].CompareAndSwap(l, nil) {
			s.cfg.Moved(n)
		}
	}
	s.Wake()
}

// Take handles a frame of another node's shards. It reports false for frames of
// other kinds. The frame is valid until Take returns, but for what its slab, which may
// be nil, lets be kept.
func (s *Shards) Take(node string, f wire.Frame, slab *wire.Slab) bool {
	switch f.Kind() {
	case wire.KindRaft:
		s.called(f, slab, answers{node: node, carrier: s.cfg.Carrier})
	case wire.KindRafted:
		s.answered(f)
	case wire.KindBundle:
		s.takeBundle(node, f, slab)
	case wire.KindLeads:
		leads, err := decodeLeads(f.Body())
		if err != nil {
			s.cfg.Log.Warn("leaders not understood", slog.String("peer", node), slog.Any("error", err))
		}
		for _, l := range leads {
			s.lead(l.shard, node, l.term, l.on)
		}
	default:
		return false
	}
	return true
}

// called handles a call to a replica, which is answered by back.
func (s *Shards) called(f wire.Frame, slab *wire.Slab, back answers) {
	r := s.replica(int(f.Sequence()))
	if r == nil || string(r.id) != string(f.Target()) {
		refuse(f, back)
		return
	}
	r.trans.take(f, slab, back)
}

// answered handles the answer to a replica's call.
func (s *Shards) answered(f wire.Frame) {
	if r := s.replica(int(f.Sequence())); r != nil && string(r.id) == string(f.Target()) {
		r.trans.answered(f.Ref(), append([]byte(nil), f.Body()...), nil)
	}
}

// Append stores the artifacts of a frame whose body begins with skip bytes that
// are not theirs, on a topic whose shard this node leads. The frame is copied. It
// returns at once; done hears, on another goroutine and in the order of the calls
// for one shard, what came of it. An error says that it won't.
func (s *Shards) Append(f wire.Frame, skip int, by Publisher, done func(Outlet, Result)) error {
	r := s.replica(placement.ShardOf(f.Target(), s.cfg.Shards))
	if r == nil {
		return errNotLeader
	}
	return r.enqueue(appendAppend(newEntry(4+appendHead+len(f)-skip), time.Now(), by, f, skip), done)
}

// Stored reports whether a numbered frame is known to be stored, on a topic whose shard this
// node leads.
func (s *Shards) Stored(topic string, by Publisher) bool {
	r := s.replica(s.Of(topic))
	return r != nil && by.ID != 0 && r.servesNow() && r.machine.publishers.has(topic, by)
}

// Purge takes what a topic holds before a sequence, on every replica. This node
// must lead the topic's shard. It returns by how many bytes the topic has grown, which is
// less than nothing, as [Result] does.
func (s *Shards) Purge(ctx context.Context, topic string, before wire.Sequence) (grown int64, err error) {
	r := s.replica(s.Of(topic))
	if r == nil {
		return 0, errNotLeader
	}
	result, err := r.await(ctx, appendPurge(newEntry(0), time.Now(), topic, before), func() {})
	return result.Grown, err
}

// Begin makes a topic that nothing was ever published to begin at a sequence. This
// node must lead the topic's shard.
func (s *Shards) Begin(ctx context.Context, topic string, next wire.Sequence) error {
	r := s.replica(s.Of(topic))
	if r == nil {
		return errNotLeader
	}
	_, err := r.await(ctx, appendBegin(newEntry(0), time.Now(), topic, next), func() {})
	return err
}

// Bounds returns what a topic holds, with all that was acknowledged before the
// call. This node must lead the topic's shard.
func (s *Shards) Bounds(ctx context.Context, topic string) (history.Bounds, error) {
	r := s.replica(s.Of(topic))
	if r == nil {
		return history.Bounds{}, errNotLeader
	}
	if err := r.verify(ctx); err != nil {
		return history.Bounds{}, err
	}
	return r.bounds(topic)
}

// bounds returns what the replica holds of a topic, or an error when it was taken out
// meanwhile.
func (r *replica) bounds(topic string) (history.Bounds, error) {
	next := r.machine.next(topic)
	b, _, err := r.store.Bounds(topic)
	if err != nil {
		r.suspect(err)
		return b, err
	}
	if b.Next < next { // what was there has gone, or is just being stored
		b.Next = next
		if b.Artifacts == 0 {
			b.First = next
		}
	}
	return b, r.inPlace()
}

// suspect makes the replica anew when its store is corrupt.
func (r *replica) suspect(err error) {
	if errors.Is(err, history.ErrCorrupt) {
		r.fail(err)
	}
}

// Held returns the store of a topic's shard when a replica is here.
func (s *Shards) Held(topic string) (history.Store, bool) {
	r := s.replica(s.Of(topic))
	if r == nil || r.failed.Load() != nil {
		return nil, false
	}
	return readStore{r.store, r}, true
}

// readStore is a replica's store for those who read: the damage that they find is told, and
// when the replica was taken out meanwhile they get an error, not what is left for its successor.
type readStore struct {
	history.Store
	of *replica
}

// Bounds implements history.Store.
func (s readStore) Bounds(topic string) (history.Bounds, bool, error) {
	b, ok, err := s.Store.Bounds(topic)
	return b, ok, s.told(err)
}

// Read implements history.Store.
func (s readStore) Read(topic string, from wire.Sequence, maxBytes int, visit func(history.Run)) (wire.Sequence, error) {
	next, err := s.Store.Read(topic, from, maxBytes, visit)
	return next, s.told(err)
}

// Topics implements history.Store.
func (s readStore) Topics(visit func(topic string, b history.Bounds) bool) error {
	return s.told(s.Store.Topics(visit))
}

// SequenceAt implements history.Store.
func (s readStore) SequenceAt(topic string, t time.Time) (wire.Sequence, error) {
	at, err := s.Store.SequenceAt(topic, t)
	return at, s.told(err)
}

// told returns what a reader gets to hear of its error.
func (s readStore) told(err error) error {
	if err == nil {
		return s.of.inPlace()
	}
	s.of.suspect(err)
	return err
}

// Size returns what this node's replicas hold.
func (s *Shards) Size() (artifacts int, bytes int64) {
	s.eachReplica(func(r *replica) {
		err := r.store.Topics(func(_ string, b history.Bounds) bool {
			artifacts += b.Artifacts
			bytes += b.Bytes
			return true
		})
		r.suspect(err)
	})
	return artifacts, bytes
}

// ShardCount returns how many shards there are, on all nodes.
func (s *Shards) ShardCount() int { return s.cfg.Shards }

// Led visits the topics of the shards that this node leads, with all that was
// acknowledged before the call, and returns those shards. It returns an error when it could
// not be certain of one of them.
func (s *Shards) Led(ctx context.Context, visit func(topic string, b history.Bounds)) (shards []int, err error) {
	var errs []error
	s.eachReplica(func(r *replica) {
		if !r.servesNow() {
			return
		}
		if err := r.verify(ctx); err != nil {
			errs = append(errs, err)
			return
		}
		shards = append(shards, r.n)
		for _, name := range r.machine.names() {
			b, err := r.bounds(name)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			visit(name, b)
		}
	})
	return shards, errors.Join(errs...)
}

// Retain applies what topics keep now to all that is held here.
func (s *Shards) Retain(now time.Time) {
	s.eachReplica(func(r *replica) {
		if err := r.store.Retain(now, s.cfg.Limits); err != nil {
			r.suspect(err)
			r.log.Warn("retention not applied", slog.Any("error", err))
		}
	})
}

// HandOver gives the leadership of this node's shards to others: the node is about to
// stop.
func (s *Shards) HandOver(ctx context.Context) {
	var handing sync.WaitGroup
	s.eachReplica(func(r *replica) {
		handing.Go(func() { r.handOver(ctx) })
	})
	handing.Wait()
}
