package disk

import (
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
)

// Store is a shard's part of a [DB].
type Store struct {
	db *DB
	id uint32

	// write is held by whoever changes something, from before it is written
	// until it can be seen below. It comes before mu.
	write   sync.Mutex
	batch   *pebble.Batch // for one change after the other
	scratch []byte        // for a key or a state
	topicID uint32        // for the next new topic; never used twice, readers may be late

	mu     sync.RWMutex // guards the fields below; never held during I/O
	topics map[string]*topic
}

var _ history.Store = (*Store)(nil)

// topic is all that memory holds of one.
type topic struct {
	id    uint32
	state // guarded by Store.mu; who holds Store.write may read without
}

// state is what is known of a topic's history.
type state struct {
	next   wire.Sequence
	first  wire.Sequence // of the first run held; next when none is
	purged wire.Sequence // what lies before can't be read, though its run may be held
	total  uint64        // bytes of the bodies that were ever kept
	base   uint64        // of which before the first run held
	newest int64         // times of appends, Unix nanoseconds; they never fall
	oldest int64
	limits history.Limits
}

func (s *state) empty() bool { return s.first == s.next }

// readable returns the first sequence that can be read, next when there is none.
func (s *state) readable() wire.Sequence {
	held := uint64(s.next - s.first)
	return max(s.purged, s.next-wire.Sequence(min(held, uint64(max(s.limits.MaxArtifacts, 0)))))
}

func (s *state) bounds() history.Bounds {
	b := history.Bounds{First: s.readable(), Next: s.next, Bytes: int64(s.total - s.base)}
	b.Artifacts = int(b.Next - b.First)
	if !s.empty() {
		b.Oldest, b.Newest = unixNano(s.oldest), unixNano(s.newest)
	}
	return b
}

func newStore(db *DB, id uint32) *Store {
	return &Store{db: db, id: id, topicID: 1, topics: make(map[string]*topic)}
}

// restore adds a topic that was found on disk.
func (s *Store) restore(name string, id uint32, st state) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.topics[name] = &topic{id: id, state: st}
	s.topicID = max(s.topicID, id+1)
}

// topic returns a topic, nil when nothing was ever appended to it, and a copy
// of its state.
func (s *Store) topic(name string) (*topic, state) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	t := s.topics[name]
	if t == nil {
		return nil, state{next: 1, first: 1}
	}
	return t, t.state
}

// publish makes a state seen.
func (s *Store) publish(name string, t *topic, st *state) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.state = *st
	s.topics[name] = t
}

// appendOverhead is about how many bytes of memory an append takes besides its
// body.
const appendOverhead = 300

// Append implements [history.Store]. The error wraps [history.ErrFull] while
// there is no room on the disk.
func (s *Store) Append(now time.Time, name string, limits history.Limits, run history.Run) error {
	s.write.Lock()
	defer s.write.Unlock()
	if run.Count <= 0 {
		return fmt.Errorf("run of %d artifacts", run.Count)
	}
	t, st := s.topic(name)
	end := run.First + wire.Sequence(run.Count)
	switch {
	case run.First < st.next:
		return nil // it is held, or was
	case end < run.First, run.First > st.next && t != nil && !st.empty():
		return &history.OrderError{First: run.First, Next: st.next}
	}
	if err := s.db.room(len(run.Body) + appendOverhead); err != nil {
		return fmt.Errorf("append to history: %w", err)
	}
	b := s.begin()
	if t == nil {
		t = &topic{id: s.topicID}
		if err := b.Set(s.topicKey(kindName, t.id), []byte(name), nil); err != nil {
			return fmt.Errorf("append to history: %w", storeError(err))
		}
	}
	changed := st.limits != limits
	st.limits = limits
	if limits.MaxArtifacts <= 0 {
		if err := s.take(b, t.id, &st, everything); err != nil {
			return fmt.Errorf("apply retention: %w", err)
		}
		st.first, st.next = end, end
	} else {
		at := now.UnixNano()
		if !run.Time.IsZero() && run.Time.Before(now) {
			at = run.Time.UnixNano()
		}
		st.newest = max(st.newest, at)
		if st.empty() {
			st.first, st.base, st.oldest = run.First, st.total, st.newest
		}
		st.next = end
		st.total += uint64(len(run.Body))
		s.putRun(b, t.id, run, &st)
	}
	if err := s.commit(b, name, t, &st); err != nil {
		return fmt.Errorf("append to history: %w", err)
	}
	s.topicID = max(s.topicID, t.id+1)
	if changed && st.over(now, exact) || st.over(now, lazy) {
		if err := s.retain(now, name, t, st); err != nil {
			return fmt.Errorf("apply retention: %w", err)
		}
	}
	return nil
}

// putRun adds a run that ends at st.next to a batch; its body is copied once.
func (s *Store) putRun(b *pebble.Batch, topic uint32, run history.Run, st *state) {
	s.scratch = appendRunHeader(s.scratch[:0], run, st.newest, st.total)
	op := b.SetDeferred(runKeyLen, len(s.scratch)+len(run.Body))
	appendRunKey(op.Key[:0], s.id, topic, st.next-1)
	n := copy(op.Value, s.scratch)
	copy(op.Value[n:], run.Body)
	_ = op.Finish() // fails for batches with an index only
}

// begin returns an empty batch. write is held.
func (s *Store) begin() *pebble.Batch {
	if s.batch == nil {
		s.batch = s.db.pebble.NewBatch()
	} else {
		s.batch.Reset()
	}
	return s.batch
}

// topicKey returns a key that is valid until scratch is used again.
func (s *Store) topicKey(kind byte, topic uint32) []byte {
	s.scratch = appendTopicKey(s.scratch[:0], kind, s.id, topic)
	return s.scratch
}

// commit writes a batch and a topic's new state with it, and makes the state
// seen. write is held.
func (s *Store) commit(b *pebble.Batch, name string, t *topic, st *state) error {
	var value [10 * 10]byte
	if err := b.Set(s.topicKey(kindState, t.id), appendState(value[:0], st), nil); err != nil {
		return storeError(err)
	}
	if err := b.Commit(pebble.NoSync); err != nil {
		return storeError(err)
	}
	s.publish(name, t, st)
	return nil
}

// Clear implements [history.Store].
func (s *Store) Clear() error {
	s.write.Lock()
	defer s.write.Unlock()
	b := s.begin()
	for _, kind := range []byte{kindName, kindState, kindRun} {
		start := appendShardKey(nil, kind, s.id)
		if err := b.DeleteRange(start, keyAfter(start), nil); err != nil {
			return fmt.Errorf("clear history: %w", storeError(err))
		}
	}
	if err := b.Commit(pebble.NoSync); err != nil {
		return fmt.Errorf("clear history: %w", storeError(err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.topics = make(map[string]*topic)
	return nil
}

// keyAfter returns the first key behind those that begin with prefix, which is
// not all 0xff.
func keyAfter(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; ; i-- {
		end[i]++
		if end[i] != 0 {
			return end[:i+1]
		}
	}
}

// Flush implements [history.Store]; it is [DB.Flush].
func (s *Store) Flush() error { return s.db.Flush() }

// Close implements [history.Store]. The store can be used again: what it needs
// is the database.
func (s *Store) Close() error {
	s.write.Lock()
	defer s.write.Unlock()
	s.scratch = nil
	if s.batch == nil {
		return nil
	}
	err := s.batch.Close()
	s.batch = nil
	return err
}
