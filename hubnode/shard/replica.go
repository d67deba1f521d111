package shard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/types"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
)

const (
	// One log entry takes what waits together, up to about as much.
	entryBytes = 64 << 10
	// What waits to be stored, or is on its way to a majority, is bounded.
	pendingBytes = 64 << 20
	// How much is applied before the log is cut. On disk it is more, for each cut
	// flushes what the store has in memory, and what is flushed early is compacted
	// more often.
	logBytes     = 8 << 20
	diskLogBytes = 16 << 20
	// trailingLogs stay in the log for followers that are a little behind; who
	// is further behind fetches from the leader's store.
	trailingLogs = 128
	maxAppend    = 64
	// barrierTime is how long a new leader may take to apply what is committed, before the
	// leadership goes to another replica that has.
	barrierTime = 30 * time.Second
)

// replica is this node's member of one shard's Raft group.
type replica struct {
	s   *Shards
	n   int
	id  raft.ServerID
	run uint64 // of this replica, in its tickets
	dir string // empty: in memory
	log *slog.Logger

	raft     *raft.Raft
	machine  *machine
	trans    *transport
	logs     *logs
	snaps    *snapshots
	store    history.Store
	held     uint64 // when it was started: the last log entry of which something is in the store
	heldTerm uint64 // its term
	running  sync.WaitGroup

	asking sync.WaitGroup // those who wait for Raft's answer

	stop chan struct{}
	life context.Context //nolint:containedctx // until stop, for questions to other nodes
	end  context.CancelFunc

	led      chan bool             // from Raft: it leads, it no longer does
	poked    chan struct{}         // holds one: look at the members
	arrived  chan struct{}         // holds one when proposals wait
	answers  chan struct{}         // holds one when entries have landed
	failed   atomic.Pointer[error] // why it has to be made anew
	unsynced atomic.Pointer[error] // why its log has to be written anew
	forsaken atomic.Bool           // it has to go on as the only member
	dropped  atomic.Bool           // it is no member any more
	cutting  atomic.Bool           // the log is being cut
	handing  atomic.Bool           // the leadership is being given to another replica
	whole    atomic.Bool           // of the leader: when it looked last, nobody was missing

	leaderless time.Time // of the tending goroutine: since when no leader is known
	settled    time.Time // of the tending goroutine: since when nothing is to be done

	mu      sync.Mutex // guards the fields below
	halting bool       // nobody may ask Raft any more
	serving bool       // it leads, has applied all that was committed before, and takes proposals
	said    bool       // the others were told that it leads
	term    uint64     // of its leadership
	waiting []proposal
	pending int // bytes of waiting proposals and of entries on their way
	number  uint64
	flights map[uint64]*flight // by their tickets' numbers
	landed  []*flight          // whose results are there

	upToDate bool      // it has caught up
	goal     uint64    // the log entry to reach for that
	aimed    time.Time // when that became the goal
}

// proposal is a record that waits for its entry: for being one, or a part of one.
type proposal struct {
	entry []byte // with the record alone, not sealed
	done  func(Outlet, Result)
}

// size is that of the record.
func (p *proposal) size() int { return len(p.entry) - ticketSize }

// flight is an entry on its way to a majority.
type flight struct {
	done    []func(Outlet, Result)
	bytes   int
	results []Result // once it is there
}

// directory returns where a shard's replica keeps its log, empty for in memory.
func (s *Shards) directory(n int) string {
	if s.cfg.Dir == "" {
		return ""
	}
	return filepath.Join(s.cfg.Dir, "shards", strconv.Itoa(n))
}

// newReplica makes the replica of a shard, from the state that this node has of
// it, or empty. State that is not whole is thrown away: a replica under a new id
// takes its place. State that only can't be opened now stays.
func (s *Shards) newReplica(n int) (*replica, error) {
	dir := s.directory(n)
	store, err := s.cfg.Store(n)
	if err != nil {
		return nil, err
	}
	if dir != "" {
		id, err := readIdentity(s.cfg.files, dir)
		if err == nil {
			err = s.writeLog(n, dir)
		}
		if s.unwritten[n] != nil && !errors.Is(err, history.ErrCorrupt) {
			return nil, fmt.Errorf("write the log in %s anew: %w", dir, err) // it is all in memory
		}
		if id != "" {
			var r *replica
			if err == nil {
				r, err = s.openReplica(n, dir, raft.ServerID(id), store, true)
			}
			if err == nil {
				return r, nil
			}
		}
		if passing(err) {
			return nil, fmt.Errorf("open the replica in %s: %w", dir, err)
		}
		if err != nil {
			s.remade.Add(1)
			s.cfg.Log.Error("this node's replica of a shard is lost: it is made anew from the others", slog.Int("shard", n), slog.Any("error", err))
		}
	}
	delete(s.unwritten, n)
	if err := s.forget(dir, store); err != nil {
		return nil, err
	}
	if dir != "" {
		if err := errors.Join(store.Flush(), s.makeDirectory(dir)); err != nil {
			return nil, err
		}
	}
	return s.openReplica(n, dir, s.newID(), store, false)
}

// forget removes a replica's state. If that is interrupted, what is left is nobody's.
func (s *Shards) forget(dir string, store history.Store) error {
	if dir == "" {
		return store.Clear()
	}
	if err := s.cfg.files.Delete(dir, identityFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return errors.Join(store.Clear(), s.cfg.files.RemoveAll(dir))
}

// makeDirectory makes a replica's directory, and returns once it survives a crash.
func (s *Shards) makeDirectory(dir string) error {
	if err := s.cfg.files.MkdirAll(dir); err != nil {
		return err
	}
	for above := filepath.Dir(dir); ; above = filepath.Dir(above) {
		if err := s.cfg.files.SyncDir(above); err != nil || above == filepath.Clean(s.cfg.Dir) {
			return err
		}
	}
}

// vacant returns a replica that has neither logs nor a Raft yet.
func (s *Shards) vacant(n int, dir string, id raft.ServerID, store history.Store) *replica {
	life, end := context.WithCancel(s.life)
	return &replica{
		s: s, life: life, end: end, n: n, id: id, dir: dir, store: store,
		log: s.cfg.Log.With(slog.Int("shard", n)),
		led: make(chan bool, 16), stop: make(chan struct{}), poked: make(chan struct{}, 1), arrived: make(chan struct{}, 1), answers: make(chan struct{}, 1),
		run:     rand.Uint64(), //nolint:gosec // tells runs apart, keeps no secret
		flights: make(map[uint64]*flight),
	}
}

// openReplica starts a replica on its state, or on none that is begun with it.
func (s *Shards) openReplica(n int, dir string, id raft.ServerID, store history.Store, begun bool) (_ *replica, err error) {
	r := s.vacant(n, dir, id, store)
	if r.snaps, err = openSnapshots(s.cfg.files, dir); err != nil {
		r.end()
		return nil, err
	}
	if dir == "" {
		r.logs = memoryLogs()
	} else if r.logs, err = diskLogs(logOptions{
		files: s.cfg.files, dir: dir, begun: begun, interval: s.cfg.SyncInterval, lazies: &s.lazies, segment: s.cfg.segment,
		damaged: r.fail, replaces: r.replaces, unsynced: r.notSynced, log: r.log, raftLog: s.raftLog,
	}); err != nil {
		r.end()
		return nil, err
	}
	if dir != "" && !begun {
		err = writeFile(s.cfg.files, dir, identityFile, []byte(id))
	}
	if err == nil {
		err = r.start()
	}
	if err != nil {
		r.end()
		return nil, errors.Join(err, r.logs.close())
	}
	return r, nil
}

// start runs Raft on the replica's logs and its store.
func (r *replica) start() error {
	m := newMachine(r.store)
	if r.s.cfg.Dir != "" {
		m.room = diskLogBytes
	}
	m.weighs = r.s.cfg.Weighs
	m.limits, m.outlet, m.pull, m.broken, m.crowded = r.s.cfg.Limits, r.s.cfg.Outlet(), r.pull, r.fail, r.cut
	m.settled, m.latest = r.landing, r.snaps.held
	m.strange = r.strange
	upTo, err := loadLatest(m, r.snaps)
	if err == nil {
		err = r.logs.upTo(upTo)
	}
	if err == nil && r.dir != "" && r.s.cfg.SyncInterval > 0 {
		r.held, r.heldTerm, err = r.cutStore()
	}
	if err != nil {
		return err
	}
	r.machine = m
	r.trans = newTransport(r.n, r.id, r.s.cfg.Self, r.s.bundles)
	node, err := r.newRaft()
	if err != nil {
		return errors.Join(err, r.trans.Close())
	}
	r.raft = node
	r.trans.serves(r.reach, r.overlap)
	r.running.Go(r.follow)
	r.running.Go(r.propose)
	r.running.Go(r.settle)
	r.running.Go(r.tend)
	return nil
}

// newRaft starts Raft. It panics itself over a log that it can't read, and over votes that
// it can't write.
func (r *replica) newRaft() (*raft.Raft, error) {
	votes := &steadyVotes{StableStore: r.logs.votes, ends: r.life.Done(), silence: r.trans.cut, broken: r.fail, log: r.log}
	node, err := func() (node *raft.Raft, err error) {
		defer recovered(&err)
		return raft.NewRaft(r.config(), r.machine, r.logs.entries, votes, r.snaps, r.trans)
	}()
	if votes.refused != nil {
		return nil, votes.refused
	}
	return node, err
}

func (r *replica) config() *raft.Config {
	c := raft.DefaultConfig()
	t := r.s.cfg.Timing
	c.LocalID = r.id
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = t.Heartbeat, t.Heartbeat, t.Heartbeat*4/5
	c.CommitTimeout = t.Commit
	c.MaxAppendEntries = maxAppend
	c.BatchApplyCh = true
	c.ShutdownOnRemove = false
	c.TrailingLogs = trailingLogs
	c.SnapshotInterval, c.SnapshotThreshold = 24*time.Hour, 1<<40 // this package cuts the log, by bytes
	c.NotifyCh = r.led
	c.NoSnapshotRestoreOnStart = true
	c.NoLegacyTelemetry = true
	c.Logger = r.s.raftLog.With("shard", r.n)
	return c
}

// loadLatest gives a machine the state of the latest snapshot, and returns the last log
// entry that is part of it.
func loadLatest(m *machine, snaps *snapshots) (uint64, error) {
	metas, err := snaps.List()
	if err != nil || len(metas) == 0 {
		return 0, err
	}
	_, from, err := snaps.Open(metas[0].ID)
	if err != nil {
		return 0, err
	}
	s, err := decodeSnapshot(from)
	if err != nil {
		return 0, err
	}
	if err := m.holds(s); err != nil {
		return 0, err
	}
	m.load(s)
	m.applied.Store(metas[0].Index)
	return metas[0].Index, nil
}

// close ends the replica. Its state stays.
func (r *replica) close() {
	r.halt()
	entries, err := r.unwritten()
	if cerr := r.logs.close(); cerr != nil {
		r.log.Warn("log not closed", slog.Any("error", cerr))
	}
	if err == nil && entries != nil {
		err = writeAnew(r.s.cfg.files, r.dir, r.s.cfg.segment, entries)
	}
	if err != nil {
		r.log.Error("log not written anew: what was acknowledged last may not be on the disk", slog.Any("error", err))
	}
}

// unwritten returns what is in the log of a replica that was halted, nil when it is on the
// disk.
func (r *replica) unwritten() ([]types.LogEntry, error) {
	if r.logs.lazy == nil || r.logs.lazy.syncAll() == nil {
		return nil, nil
	}
	return r.logs.all()
}

// halt ends all that runs, but keeps the logs open.
func (r *replica) halt() {
	close(r.machine.stop)
	r.end()
	r.mu.Lock()
	r.halting = true
	r.mu.Unlock()
	r.asking.Wait() // a Raft that runs answers soon, and one that has stopped maybe not at all
	down := r.raft.Shutdown()
	_ = r.trans.Close() // calls under way end, which Shutdown waits for
	if err := down.Error(); err != nil {
		r.log.Warn("raft not shut down", slog.Any("error", err))
	}
	r.stepDown()
	close(r.stop)
	r.running.Wait()
}

// wipe removes the state of a replica that was closed.
func (r *replica) wipe() error {
	return r.s.forget(r.dir, r.store)
}

// fail says that what the replica holds can't be relied on.
func (r *replica) fail(err error) {
	if r.failed.CompareAndSwap(nil, &err) {
		r.log.Error("a replica's state is not what it should be: it is made anew from the others", slog.Any("error", err))
		r.poke()
	}
}

// notSynced says that what was written to the log may never be on the disk.
func (r *replica) notSynced(err error) {
	if r.unsynced.CompareAndSwap(nil, &err) {
		r.log.Error("a replica's log could not be synced: it is written anew", slog.Any("error", err))
		r.poke()
	}
}

func (r *replica) poke() {
	select {
	case r.poked <- struct{}{}:
	default:
	}
}

// follow follows Raft's leadership, and passes it on while this replica can't use it.
func (r *replica) follow() {
	look := time.NewTicker(r.s.cfg.Timing.Tend)
	defer look.Stop()
	for {
		select {
		case leads := <-r.led:
			if leads {
				r.stepUp()
			} else {
				r.stepDown()
			}
		case <-look.C:
			if r.raft.State() == raft.Leader && r.machine.waits.Load() {
				r.passOn()
			}
		case <-r.stop:
			return
		}
	}
}

// passOn gives the leadership to another replica, as this one can't apply what is
// committed. When none can, it stays here, and goes on when this one does.
func (r *replica) passOn() {
	if err := r.transfer(r.life, r.otherVoters()); err != nil {
		r.log.Debug("can't apply what is committed, and nobody else leads", slog.Any("error", err))
		return
	}
	r.log.Warn("can't apply what is committed: another replica leads", slog.Bool("disk_full", r.machine.waits.Load()))
	r.stepDown() // Raft may wait for what is applied before it says so
}

// stepUp serves once everything that was committed before is applied.
func (r *replica) stepUp() {
	term := r.raft.CurrentTerm()
	if !r.catchUp(term) {
		r.log.Debug("leadership ended before it began")
		return
	}
	r.machine.serves.Store(true)
	r.whole.Store(false) // until it has looked
	r.mu.Lock()
	r.serving, r.said, r.term = true, true, term
	r.mu.Unlock()
	r.log.Debug("leads", slog.Uint64("term", term))
	r.s.leads(r.n, term, true)
	r.poke()
}

// catchUp returns once all that was committed before this leadership is applied: an
// empty entry behind it is. (Raft's own Barrier is never answered when Raft stops.) It
// returns false when the leadership of that term has ended: also when another one has begun
// since, for which the entry was not meant and may be refused. While it takes too long, or
// the store has no room, it tries to pass the leadership on.
func (r *replica) catchUp(term uint64) bool {
	var landed atomic.Bool
	r.mu.Lock()
	r.number++
	entry := seal(newEntry(0), ticket{r.run, r.number})
	r.flights[r.number] = &flight{done: []func(Outlet, Result){func(Outlet, Result) { landed.Store(true) }}}
	r.mu.Unlock()
	r.raft.Apply(entry, 0)
	leads := func() bool { return r.raft.State() == raft.Leader && r.raft.CurrentTerm() == term }
	over := func() bool { return landed.Load() || !leads() }
	r.within(r.s.cfg.Timing.barrier, func() bool { return over() || r.machine.waits.Load() })
	for !over() {
		r.passOn()
		r.within(r.s.cfg.Timing.Tend, over)
	}
	return leads()
}

// stepDown ends the service: what waits is refused.
func (r *replica) stepDown() {
	r.machine.serves.Store(false)
	r.mu.Lock()
	said, term := r.said, r.term
	r.serving, r.said = false, false
	waiting, flights := r.waiting, r.flights
	r.waiting, r.flights = nil, make(map[uint64]*flight)
	for _, p := range waiting {
		r.pending -= p.size()
	}
	for _, f := range flights {
		r.pending -= f.bytes
	}
	r.mu.Unlock()
	if len(waiting)+len(flights) > 0 {
		out := r.s.cfg.Outlet()
		for _, f := range flights {
			for _, done := range f.done {
				done(out, Result{Err: errUnsure})
			}
		}
		for _, p := range waiting {
			p.done(out, Result{Err: errNotLeader})
		}
		out.Flush()
	}
	if said {
		r.s.leads(r.n, term, false)
	}
}

var (
	errNotLeader = &wire.Error{Code: wire.CodeUnavailable, Detail: "the topic's shard is getting another leader: publish again"}
	errPending   = &wire.Error{Code: wire.CodeOverloaded, Detail: "too much waits to be stored on the topic's shard: publish again"}
	errChanging  = &wire.Error{Code: wire.CodeUnavailable, Detail: "this node's replica of the shard is just being made anew"}
	errUnsure    = &wire.Error{Code: wire.CodeUnavailable, Detail: "the topic's shard lost its leader: the artifact may or may not be stored, publish again"}
)

// enqueue takes a record to be stored, as an entry that is not sealed; done hears what
// comes of it.
func (r *replica) enqueue(entry []byte, done func(Outlet, Result)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case !r.serving:
		return errNotLeader
	case r.pending > pendingBytes:
		return errPending
	}
	p := proposal{entry, done}
	r.waiting = append(r.waiting, p)
	r.pending += p.size()
	select {
	case r.arrived <- struct{}{}:
	default:
	}
	return nil
}

// propose makes entries of what waits.
func (r *replica) propose() {
	for {
		select {
		case <-r.arrived:
		case <-r.stop:
			return
		}
		for entry := r.nextEntry(); entry != nil; entry = r.nextEntry() {
			r.raft.Apply(entry, 0) // its ticket, or the end of the leadership, says what came of it
		}
	}
}

// nextEntry makes an entry of what waits, up to entryBytes; nil when nothing does.
func (r *replica) nextEntry() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, size := 0, 0
	for n < len(r.waiting) && (n == 0 || ticketSize+size+r.waiting[n].size() <= entryBytes) {
		size += r.waiting[n].size()
		n++
	}
	if n == 0 {
		r.waiting = nil
		return nil
	}
	r.number++
	entry := r.waiting[0].entry // a busy publisher's frame fills one by itself
	if n > 1 {
		entry = newEntry(size)
	}
	f := &flight{done: make([]func(Outlet, Result), n), bytes: size}
	for i, p := range r.waiting[:n] {
		if n > 1 {
			entry = append(entry, p.entry[ticketSize:]...)
		}
		f.done[i] = p.done
		r.waiting[i] = proposal{}
	}
	r.waiting = r.waiting[n:]
	r.flights[r.number] = f
	return seal(entry, ticket{r.run, r.number})
}

// landing takes the results of an entry that was applied, if it is this replica's.
func (r *replica) landing(t ticket, results []Result) {
	if t.by != r.run {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.flights[t.number]
	if f == nil {
		return // given up when the leadership ended
	}
	delete(r.flights, t.number)
	f.results = results
	r.pending -= f.bytes
	r.landed = append(r.landed, f)
	select {
	case r.answers <- struct{}{}:
	default:
	}
}

// settle tells proposers what came of their records, in order.
func (r *replica) settle() {
	out := r.s.cfg.Outlet()
	for {
		select {
		case <-r.answers:
		case <-r.stop:
			r.tell(out)
			return
		}
		r.tell(out)
	}
}

func (r *replica) tell(out Outlet) {
	r.mu.Lock()
	landed := r.landed
	r.landed = nil
	r.mu.Unlock()
	for _, f := range landed {
		for i, done := range f.done {
			if i < len(f.results) {
				done(out, f.results[i])
			} else {
				done(out, Result{Err: errUnsure}) // the entry could not be read
			}
		}
	}
	out.Flush()
}

// transfer gives the leadership to one of the others, the first that has the whole
// log and can apply it, unless that is being done. What is on its way lands first. It
// does what Raft's own LeadershipTransfer does, which leaves goroutines behind for good
// when the leadership ends in the middle of it.
func (r *replica) transfer(ctx context.Context, others []raft.ServerID) (err error) {
	if !r.handing.CompareAndSwap(false, true) {
		return errHanding
	}
	defer r.handing.Store(false)
	others = slices.DeleteFunc(others, func(id raft.ServerID) bool {
		_, able := r.able(ctx, id)
		return !able
	})
	if len(others) == 0 {
		return errUnable // without refusing anybody meanwhile
	}
	term := r.raft.CurrentTerm()
	r.mu.Lock()
	served := r.serving
	r.serving = false
	r.mu.Unlock()
	defer func() {
		if err != nil && r.raft.State() == raft.Leader && r.raft.CurrentTerm() == term {
			r.mu.Lock()
			r.serving = served
			r.mu.Unlock()
		}
	}()
	r.within(r.s.cfg.Timing.Heartbeat, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.flights) == 0 && len(r.waiting) == 0
	})
	err = errBehind
	for _, id := range others {
		if last, able := r.able(ctx, id); !able || last != r.raft.LastIndex() {
			continue
		}
		now := &raft.TimeoutNowRequest{RPCHeader: r.trans.header()}
		if err = r.trans.TimeoutNow(id, server(id).Address, now, &raft.TimeoutNowResponse{}); err != nil {
			continue
		}
		if r.within(2*r.s.cfg.Timing.Heartbeat, func() bool { return r.raft.State() != raft.Leader }) {
			return nil
		}
		err = errKept
	}
	return err
}

// able reports whether another replica can serve soon after it is elected, and its last log
// entry.
func (r *replica) able(ctx context.Context, id raft.ServerID) (last uint64, able bool) {
	st, err := r.s.askState(ctx, nodeOf(id), r.n)
	return st.Last, err == nil && st.ID == id && st.able()
}

var (
	errHanding = errors.New("the leadership is just being given to another replica")
	errUnable  = errors.New("no other replica can apply what is committed")
	errBehind  = errors.New("no other replica has the whole log")
	errKept    = errors.New("the other replica was not elected")
)

// within waits for a condition, and reports whether it came in time.
func (r *replica) within(d time.Duration, ok func() bool) bool {
	deadline := time.NewTimer(d)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			return false
		case <-r.stop:
			return false
		}
	}
	return true
}

// cut shortens the log, which has grown enough. Each replica cuts its own.
func (r *replica) cut() {
	if !r.cutting.CompareAndSwap(false, true) {
		return
	}
	r.running.Go(func() {
		defer r.cutting.Store(false)
		if err := r.raft.Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) && !errors.Is(err, raft.ErrRaftShutdown) {
			r.log.Warn("log not cut", slog.Any("error", err))
		}
	})
}

// mayAsk reports whether Raft may be asked something: the replica does not end before asking
// is done.
func (r *replica) mayAsk() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.halting {
		return false
	}
	r.asking.Add(1)
	return true
}

// ask waits for what Raft answers to a request, unless the replica is just ending.
func (r *replica) ask(request func() raft.Future) error {
	if !r.mayAsk() {
		return errStopped
	}
	defer r.asking.Done()
	return request().Error()
}

// servesNow reports whether this replica leads and has all that was committed.
func (r *replica) servesNow() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.serving
}

// verify returns once it is certain that this replica leads now.
func (r *replica) verify(ctx context.Context) error {
	if !r.servesNow() {
		return errNotLeader
	}
	if r.alone() {
		return nil
	}
	if !r.mayAsk() {
		return errNotLeader
	}
	done := make(chan error, 1)
	go func() {
		defer r.asking.Done()
		r.s.bundles.hurry(r.trans) // it waits for the next heartbeats
		defer r.s.bundles.calm(r.trans)
		done <- r.raft.VerifyLeader().Error()
	}()
	select {
	case err := <-done:
		if err != nil {
			return errNotLeader
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("ask the replicas of shard %d: %w", r.n, context.Cause(ctx))
	}
}

// reach waits until there is a link to another replica's node. It gives up when this
// one no longer leads, or the other is no member any more.
func (r *replica) reach(id raft.ServerID) error {
	for {
		linking := r.s.nextLink()
		if slices.Contains(r.s.cfg.Linked(), nodeOf(id)) {
			return nil
		}
		if r.raft.State() != raft.Leader || !slices.ContainsFunc(r.members(), func(m raft.Server) bool { return m.ID == id }) {
			return errNoLink
		}
		select {
		case <-linking:
		case <-time.After(r.s.cfg.Timing.Tend):
		case <-r.life.Done():
			return errStopped
		}
	}
}

// caughtUp reports whether the replica is, or was once, near the end of what is
// committed. What that is a leader has to tell: the end of its own log is all that a
// replica knows by itself. Under load a replica is always a little behind, so it is
// enough to reach within a moment what was committed when the moment began.
func (r *replica) caughtUp() bool {
	committed, applied := max(r.trans.committed.Load(), r.raft.CommitIndex()), r.machine.applied.Load()
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.upToDate:
	case r.serving:
		r.upToDate = true
	case r.trans.committed.Load() == 0: // no leader has been heard
	case applied+nearEnough >= committed, r.goal > 0 && applied >= r.goal && now.Sub(r.aimed) < 4*r.s.cfg.Timing.Heartbeat:
		r.upToDate = true
	case applied >= r.goal:
		r.goal, r.aimed = committed, now
	}
	return r.upToDate
}

// alone reports whether the replica is the only member.
func (r *replica) alone() bool { return len(r.members()) == 1 }

// members returns the group's members as this replica knows them.
func (r *replica) members() []raft.Server {
	f := r.raft.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	return f.Configuration().Servers
}
