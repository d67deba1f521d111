package shard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
)

const (
	// One log entry takes what waits together, up to about as much.
	entryBytes = 64 << 10
	// What waits to be stored, or is on its way to a majority, is bounded.
	pendingBytes = 64 << 20
	// logBytes is how much is applied before the log is cut.
	logBytes = 8 << 20
	// trailingLogs stay in the log for followers that are a little behind; who
	// is further behind fetches from the leader's store.
	trailingLogs = 128
	maxAppend    = 64
	// flightMax bounds the log entries on their way.
	flightMax = 256
	// barrierTime bounds how long a new leader takes to apply what is committed.
	barrierTime = 30 * time.Second
)

// replica is this node's member of one shard's Raft group.
type replica struct {
	s   *Shards
	n   int
	id  raft.ServerID
	dir string // empty: in memory
	log *slog.Logger

	raft     *raft.Raft
	machine  *machine
	trans    *transport
	logs     *logs
	snaps    *snapshots
	store    history.Store
	led      chan bool // from Raft: it leads, it no longer does
	running  sync.WaitGroup
	stop     chan struct{}
	life     context.Context //nolint:containedctx // until stop, for questions to other nodes
	end      context.CancelFunc
	failed   atomic.Pointer[error] // why it has to be made anew
	poked    chan struct{}         // holds one: look at the members
	forsaken atomic.Bool           // it has to go on as the only member
	cutting  atomic.Bool           // the log is being cut
	arrived  chan struct{}         // holds one when proposals wait

	leaderless time.Time // of the tending goroutine: since when no leader is known
	settled    time.Time // of the tending goroutine: since when nothing is to be done

	mu      sync.Mutex // guards the fields below
	serving bool       // it leads and has applied all that was committed before
	term    uint64     // of its leadership
	waiting []proposal
	pending int // bytes of waiting proposals and of entries on their way
}

// proposal is a record that waits for its entry.
type proposal struct {
	record []byte
	done   func(Outlet, Result)
}

// flight is an entry on its way to a majority.
type flight struct {
	future raft.ApplyFuture
	done   []func(Outlet, Result)
	bytes  int
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
// takes its place.
func (s *Shards) newReplica(n int) (*replica, error) {
	dir := s.directory(n)
	store, err := s.cfg.Store(n)
	if err != nil {
		return nil, err
	}
	if dir != "" {
		if id, err := readIdentity(dir); err == nil && id != "" {
			r, err := s.openReplica(n, dir, raft.ServerID(id), store)
			if err == nil {
				return r, nil
			}
			s.cfg.Log.Error("this node's replica of a shard is lost: it is made anew from the others", slog.Int("shard", n), slog.Any("error", err))
		}
		if err := os.RemoveAll(dir); err != nil {
			return nil, err
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	if err := store.Clear(); err != nil {
		return nil, err
	}
	id := s.newID()
	if dir != "" {
		if err := errors.Join(store.Flush(), writeFile(dir, identityFile, []byte(id))); err != nil {
			return nil, err
		}
	}
	return s.openReplica(n, dir, id, store)
}

// vacant returns a replica that has neither logs nor a Raft yet.
func (s *Shards) vacant(n int, dir string, id raft.ServerID, store history.Store) *replica {
	life, end := context.WithCancel(s.life)
	return &replica{
		s: s, life: life, end: end, n: n, id: id, dir: dir, store: store,
		log: s.cfg.Log.With(slog.Int("shard", n)),
		led: make(chan bool, 16), stop: make(chan struct{}), poked: make(chan struct{}, 1), arrived: make(chan struct{}, 1),
	}
}

// openReplica starts a replica on its state.
func (s *Shards) openReplica(n int, dir string, id raft.ServerID, store history.Store) (_ *replica, err error) {
	r := s.vacant(n, dir, id, store)
	if r.snaps, err = openSnapshots(dir); err != nil {
		r.end()
		return nil, err
	}
	if dir == "" {
		r.logs = memoryLogs()
	} else if r.logs, err = diskLogs(dir, s.cfg.SyncInterval, r.log, s.raftLog); err != nil {
		r.end()
		return nil, err
	}
	if err := r.start(); err != nil {
		r.end()
		return nil, errors.Join(err, r.logs.close())
	}
	return r, nil
}

// start runs Raft on the replica's logs and its store.
func (r *replica) start() error {
	m := newMachine(r.store)
	m.limits, m.outlet, m.pull, m.broken, m.crowded = r.s.cfg.Limits, r.s.cfg.Outlet(), r.pull, r.fail, r.cut
	if err := loadLatest(m, r.snaps); err != nil {
		return err
	}
	r.machine = m
	r.trans = newTransport(r.n, r.id, r.s.cfg.Self, r.s.cfg.Carrier)
	node, err := raft.NewRaft(r.config(), m, r.logs.entries, r.logs.votes, r.snaps, r.trans)
	if err != nil {
		return errors.Join(err, r.trans.Close())
	}
	r.raft = node
	flights := make(chan flight, flightMax)
	r.running.Go(r.follow)
	r.running.Go(func() { r.propose(flights) })
	r.running.Go(func() { r.settle(flights) })
	r.running.Go(r.tend)
	return nil
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

// loadLatest gives a machine the state of the latest snapshot.
func loadLatest(m *machine, snaps *snapshots) error {
	metas, err := snaps.List()
	if err != nil || len(metas) == 0 {
		return err
	}
	_, from, err := snaps.Open(metas[0].ID)
	if err != nil {
		return err
	}
	s, err := decodeSnapshot(from)
	if err != nil {
		return err
	}
	m.load(s)
	return nil
}

// close ends the replica. Its state stays.
func (r *replica) close() {
	r.halt()
	if err := r.logs.close(); err != nil {
		r.log.Warn("log not closed", slog.Any("error", err))
	}
}

// halt ends all that runs, but keeps the logs open.
func (r *replica) halt() {
	close(r.machine.stop)
	down := r.raft.Shutdown()
	_ = r.trans.Close() // calls under way end, which Shutdown waits for
	if err := down.Error(); err != nil {
		r.log.Warn("raft not shut down", slog.Any("error", err))
	}
	r.stepDown()
	close(r.stop)
	r.end()
	r.running.Wait()
}

// wipe removes the state of a replica that was closed.
func (r *replica) wipe() error {
	err := r.store.Clear()
	if r.dir != "" {
		err = errors.Join(err, os.RemoveAll(r.dir))
	}
	return err
}

// fail says that what the replica holds can't be relied on.
func (r *replica) fail(err error) {
	if r.failed.CompareAndSwap(nil, &err) {
		r.log.Error("a replica's state is not what it should be: it is made anew from the others", slog.Any("error", err))
		r.poke()
	}
}

func (r *replica) poke() {
	select {
	case r.poked <- struct{}{}:
	default:
	}
}

// follow follows Raft's leadership.
func (r *replica) follow() {
	for {
		select {
		case leads := <-r.led:
			if leads {
				r.stepUp()
			} else {
				r.stepDown()
			}
		case <-r.stop:
			return
		}
	}
}

// stepUp serves once everything that was committed before is applied.
func (r *replica) stepUp() {
	term := r.raft.CurrentTerm()
	if err := r.raft.Barrier(barrierTime).Error(); err != nil {
		r.log.Debug("leadership ended before it began", slog.Any("error", err))
		return
	}
	r.machine.serves.Store(true)
	r.mu.Lock()
	r.serving, r.term = true, term
	r.mu.Unlock()
	r.log.Debug("leads", slog.Uint64("term", term))
	r.s.leads(r.n, term, true)
	r.poke()
}

// stepDown ends the service: what waits is refused.
func (r *replica) stepDown() {
	r.machine.serves.Store(false)
	r.mu.Lock()
	served, term := r.serving, r.term
	r.serving = false
	waiting := r.waiting
	r.waiting = nil
	for _, p := range waiting {
		r.pending -= len(p.record)
	}
	r.mu.Unlock()
	if len(waiting) > 0 {
		out := r.s.cfg.Outlet()
		for _, p := range waiting {
			p.done(out, Result{Err: errNotLeader})
		}
		out.Flush()
	}
	if served {
		r.s.leads(r.n, term, false)
	}
}

var (
	errNotLeader = &wire.Error{Code: wire.CodeUnavailable, Detail: "the topic's shard is getting another leader: publish again"}
	errPending   = &wire.Error{Code: wire.CodeOverloaded, Detail: "too much waits to be stored on the topic's shard: publish again"}
	errChanging  = &wire.Error{Code: wire.CodeUnavailable, Detail: "this node's replica of the shard is just being made anew"}
	errUnsure    = &wire.Error{Code: wire.CodeUnavailable, Detail: "the topic's shard lost its leader: the artifact may or may not be stored, publish again"}
)

// enqueue takes a record to be stored; done hears what comes of it.
func (r *replica) enqueue(record []byte, done func(Outlet, Result)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case !r.serving:
		return errNotLeader
	case r.pending > pendingBytes:
		return errPending
	}
	r.waiting = append(r.waiting, proposal{record, done})
	r.pending += len(record)
	select {
	case r.arrived <- struct{}{}:
	default:
	}
	return nil
}

// propose makes entries of what waits.
func (r *replica) propose(flights chan<- flight) {
	defer close(flights)
	for {
		select {
		case <-r.arrived:
		case <-r.stop:
			return
		}
		for {
			entry, done := r.nextEntry()
			if len(done) == 0 {
				break
			}
			flights <- flight{future: r.raft.Apply(entry, 0), done: done, bytes: len(entry)}
		}
	}
}

// nextEntry takes what waits together, up to entryBytes.
func (r *replica) nextEntry() (entry []byte, done []func(Outlet, Result)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, size := 0, 0
	for n < len(r.waiting) && (n == 0 || size+len(r.waiting[n].record) <= entryBytes) {
		size += len(r.waiting[n].record)
		n++
	}
	taken := r.waiting[:n]
	r.waiting = r.waiting[n:]
	if len(r.waiting) == 0 {
		r.waiting = nil
	}
	if n == 1 {
		return taken[0].record, []func(Outlet, Result){taken[0].done}
	}
	entry = make([]byte, 0, size)
	for _, p := range taken {
		entry = append(entry, p.record...)
		done = append(done, p.done)
	}
	return entry, done
}

// settle tells proposers what came of their records, in order.
func (r *replica) settle(flights <-chan flight) {
	out := r.s.cfg.Outlet()
	for f := range flights {
		err := f.future.Error()
		results, _ := f.future.Response().([]Result)
		for i, done := range f.done {
			switch {
			case err == nil && i < len(results):
				done(out, results[i])
			case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
				done(out, Result{Err: errNotLeader})
			default:
				done(out, Result{Err: errUnsure})
			}
		}
		r.mu.Lock()
		r.pending -= f.bytes
		r.mu.Unlock()
		if len(flights) == 0 {
			out.Flush()
		}
	}
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

// serves reports whether this replica leads and has all that was committed.
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
	done := make(chan error, 1)
	future := r.raft.VerifyLeader()
	r.running.Go(func() { done <- future.Error() })
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
