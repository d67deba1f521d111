package shard

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/switchboardhub/switchboard/hubnode/durable"
	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
)

// Outlet takes what a shard has stored. Its methods are called on one goroutine.
type Outlet interface {
	// Deliver brings a stored frame to those who listen. The frame never
	// changes.
	Deliver(topic string, f wire.Frame, first wire.Sequence)
	// Flush sees to the writing of what was delivered.
	Flush()
}

// Result is what came of one record.
type Result struct {
	First wire.Sequence  // of the artifacts stored; 0: they were stored before, it is not known where
	Grant *durable.Grant // of a member's request
	Err   error
	// Grown is by how many bytes the topic holds more than before, less when negative:
	// what is kept for it went at the same time. It is told while Config.Weighs says so.
	Grown int64
}

// errTooSoon refuses a frame that overtook one before it.
var errTooSoon = &wire.Error{Code: wire.CodeOutOfOrder, Detail: "an artifact that was published before this one has not been stored yet: publish both again, in order"}

// machine is the state machine of one replica. Raft calls it on one goroutine.
type machine struct {
	store   history.Store
	limits  func(topic string) history.Limits
	weighs  func() bool // may be nil, for never
	outlet  Outlet
	serves  atomic.Bool // it leads: what is stored is delivered
	applied atomic.Uint64
	grown   atomic.Int64           // bytes applied since the last snapshot
	waits   atomic.Bool            // the store has no room: until it has, nothing is applied
	failed  bool                   // the store lacks something
	pull    func(*snapshot) error  // brings the store to where a snapshot is
	stop    chan struct{}          // closed when the replica ends
	broken  func(error)            // what the store holds can't be relied on
	room    int64                  // as many crowd the log
	crowded func()                 // the log has grown enough to be cut
	settled func(ticket, []Result) // an entry was applied; may be nil
	latest  func() uint64          // the last log entry that the latest snapshot holds; may be nil
	strange func(*snapshot) error  // why another replica's snapshot can't be taken over, as what is held is not on the way to it; may be nil
	reigns  reigns                 // what was applied, by terms

	publishers *publishers
	durables   *durable.Set

	mu     sync.RWMutex // guards the map; the states' fields are the machine's own but for next
	topics map[string]*topicState
}

// topicState is what all replicas agree on about a topic.
type topicState struct {
	next atomic.Uint64 // the sequence of the next artifact
}

func newMachine(store history.Store) *machine {
	return &machine{store: store, room: logBytes, publishers: newPublishers(), durables: durable.NewSet(), topics: make(map[string]*topicState), stop: make(chan struct{})}
}

// next returns the sequence that a topic's next artifact gets.
func (m *machine) next(topic string) wire.Sequence {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if t := m.topics[topic]; t != nil {
		return wire.Sequence(t.next.Load())
	}
	return 1
}

// names returns the topics that were ever published to.
func (m *machine) names() []string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	names := make([]string, 0, len(m.topics))
	for name := range m.topics {
		names = append(names, name)
	}
	return names
}

func (m *machine) topic(name []byte) *topicState {
	m.mu.RLock()
	t := m.topics[string(name)]
	m.mu.RUnlock()
	if t == nil {
		t = &topicState{}
		t.next.Store(1)
		m.mu.Lock()
		m.topics[string(name)] = t
		m.mu.Unlock()
	}
	return t
}

// ApplyBatch implements raft.BatchingFSM.
func (m *machine) ApplyBatch(logs []*raft.Log) []any {
	for _, l := range logs {
		if l.Type == raft.LogCommand {
			m.apply(l)
		}
	}
	m.outlet.Flush()
	return make([]any, len(logs)) // proposers hear by their tickets: Raft forgets some futures when it stops
}

// Apply implements raft.FSM.
func (m *machine) Apply(l *raft.Log) any {
	m.apply(l)
	m.outlet.Flush()
	return nil
}

func (m *machine) apply(l *raft.Log) {
	var results []Result
	t, records, err := cutTicket(l.Data)
	if err == nil {
		err = eachRecord(records, func(r record) {
			results = append(results, m.applyRecord(r))
		})
	}
	if err != nil {
		m.fail(fmt.Errorf("log entry %d: %w", l.Index, err))
	}
	m.reigns = m.reigns.with(l.Index, l.Term)
	m.applied.Store(l.Index)
	if m.grown.Add(int64(len(l.Data))) >= m.room && m.crowded != nil {
		m.crowded()
	}
	if m.settled != nil {
		m.settled(t, results)
	}
}

func (m *machine) applyRecord(r record) Result {
	switch r.op {
	case opAppend:
		return m.append(r)
	case opPurge:
		before := min(r.before, m.next(r.topic))
		grown := m.weigh(r.topic)
		if err := m.persist(func() error { return m.store.Purge(r.topic, before) }); err != nil {
			return Result{Err: err}
		}
		return Result{First: before, Grown: grown()}
	case opBegin:
		t := m.topic([]byte(r.topic))
		if next := t.next.Load(); next != 1 {
			return Result{First: wire.Sequence(next), Err: history.ErrMoved}
		}
		first := max(r.before, 1)
		if err := m.persist(func() error { return skip(m.store, r.topic, first) }); err != nil {
			return Result{Err: err}
		}
		t.next.Store(uint64(first))
		return Result{First: r.before}
	case opFetch:
		key := r.fetch.Key
		grant, err := m.durables.Do(key, r.time, m.next(key.Topic), r.fetch.Request)
		return Result{Grant: &grant, Err: err}
	}
	return Result{}
}

func (m *machine) append(r record) Result {
	f := r.frame
	name := string(f.Target())
	if r.by.ID != 0 {
		switch v, first := m.publishers.judge(name, r.by); v {
		case repeated:
			return Result{First: first}
		case tooSoon:
			return Result{Err: errTooSoon}
		case storeIt:
		}
	}
	t := m.topic(f.Target())
	first := wire.Sequence(t.next.Load())
	if r.by.At != 0 && r.by.At != first {
		return Result{Err: history.ErrMoved}
	}
	run := history.Run{First: first, Count: f.Count(), From: string(f.From()), Time: r.time, Body: f.Body()}
	grown := m.weigh(name)
	err := m.persist(func() error { return m.store.Append(time.Now(), name, m.limits(name), run) })
	t.next.Store(uint64(first) + uint64(f.Count()))
	if r.by.ID != 0 {
		m.publishers.stored(name, r.by, first, r.time)
	}
	if err != nil {
		return Result{Err: err}
	}
	m.durables.Grew(name)
	if m.serves.Load() {
		m.outlet.Deliver(name, f, first)
	}
	return Result{First: first, Grown: grown()}
}

// weigh returns a function that says how many bytes a topic holds more by then: 0 when
// nobody wants to know.
func (m *machine) weigh(topic string) (grown func() int64) {
	if m.weighs == nil || !m.serves.Load() || !m.weighs() {
		return func() int64 { return 0 }
	}
	before, _, _ := m.store.Bounds(topic) // who can't tell can't be changed either, and says so
	return func() int64 {
		after, _, _ := m.store.Bounds(topic)
		return after.Bytes - before.Bytes
	}
}

// retryFull is how often a store without room is tried again.
const retryFull = time.Second

// persist changes the store. What all replicas agreed on can't be refused: while
// there is no room it waits, until the replica ends, and so it does while something else
// is in the way that passes. Whatever else goes wrong ends the replica: it is made anew
// from another one.
func (m *machine) persist(change func() error) error {
	waits := false
	defer func() {
		if waits {
			m.waits.Store(false)
		}
	}()
	for {
		err := change()
		if err == nil {
			return nil
		}
		if !errors.Is(err, history.ErrFull) && !passing(err) {
			m.fail(err)
			return err
		}
		waits = true
		m.waits.Store(true)
		select {
		case <-time.After(retryFull):
		case <-m.stop:
			m.failed = true
			return err
		}
	}
}

// skip makes a topic, of which nothing is held then, go on at a sequence, unless it is
// there or further.
func skip(store history.Store, topic string, next wire.Sequence) error {
	b, _, err := store.Bounds(topic)
	if err != nil || b.Next >= next {
		return err
	}
	if err := store.Purge(topic, b.Next); err != nil {
		return err
	}
	return store.Append(time.Now(), topic, history.Limits{}, history.Run{First: next - 1, Count: 1})
}

func (m *machine) fail(err error) {
	m.failed = true
	if m.broken != nil {
		m.broken(err)
	}
}

// snapshot is what a replica has beyond its store. With what the store holds of
// artifacts before the topics' next sequences it is the whole state.
type snapshot struct {
	Topics     map[string]wire.Sequence // the next ones
	Publishers []publisher
	Durables   []durable.Saved
	Reigns     reigns // what the log had; a replica of the version before does not say it
}

// Snapshot implements raft.FSM. It copies what is beyond the store: that holds
// at least what belongs to the snapshot, and ignores what it is given again.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	if m.failed {
		return nil, errLacks
	}
	s := snapshot{Topics: make(map[string]wire.Sequence, len(m.topics)), Publishers: m.publishers.list(), Durables: m.durables.List(), Reigns: m.reigns}
	for name, t := range m.topics {
		s.Topics[name] = wire.Sequence(t.next.Load())
	}
	m.grown.Store(0)
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(s); err != nil {
		return nil, err
	}
	return &captured{state: b.Bytes(), store: m.store}, nil
}

var errLacks = errors.New("the store lacks what could not be appended")

// holds returns an error when the store lacks what belongs to a snapshot that it held all
// of. Damage may have hidden the end of what it has.
func (m *machine) holds(s *snapshot) error {
	for topic, next := range s.Topics {
		b, _, err := m.store.Bounds(topic)
		if err != nil {
			return err
		}
		if b.Next < next {
			return fmt.Errorf("%w: topic %s ends before sequence %d in the store, in the snapshot before %d", history.ErrCorrupt, topic, b.Next, next)
		}
	}
	return nil
}

// Restore implements raft.FSM: it takes over a snapshot of another replica, and
// fetches what the store lacks.
func (m *machine) Restore(from io.ReadCloser) error {
	defer func() { _ = from.Close() }() // it was only read
	s, err := decodeSnapshot(from)
	if err != nil {
		return err
	}
	if m.strange != nil {
		if err := m.strange(s); err != nil {
			m.fail(err)
			return err
		}
	}
	if err := m.pull(s); err != nil {
		return err
	}
	m.failed = false
	m.load(s)
	if m.latest != nil {
		m.applied.Store(max(m.applied.Load(), m.latest()))
	}
	return nil
}

// load puts a snapshot's state in place of what there is.
func (m *machine) load(s *snapshot) {
	m.publishers.restore(s.Publishers)
	m.durables.Restore(s.Durables)
	m.reigns = s.Reigns
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.topics)
	for name, next := range s.Topics {
		t := &topicState{}
		t.next.Store(uint64(next))
		m.topics[name] = t
	}
}

func decodeSnapshot(r io.Reader) (*snapshot, error) {
	var s snapshot
	if err := gob.NewDecoder(r).Decode(&s); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	return &s, nil
}

// captured is a snapshot on its way to the log's store.
type captured struct {
	state []byte
	store history.Store
}

// Persist implements raft.FSMSnapshot. What the log forgets after it has to be
// on disk.
func (c *captured) Persist(to raft.SnapshotSink) error {
	if err := c.store.Flush(); err != nil {
		return errors.Join(err, to.Cancel())
	}
	if s, ok := to.(*sink); ok {
		s.own = true
	}
	if _, err := to.Write(c.state); err != nil {
		return errors.Join(err, to.Cancel())
	}
	return to.Close()
}

// Release implements raft.FSMSnapshot.
func (c *captured) Release() {}
