package disk

import (
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
)

// slack is by how much a topic may be over its limits before runs are taken
// from disk: a limit divided by it. Each time costs some seeks and a deletion,
// which pebble has to remember; with slack that is once for many appends.
type slack int64

const (
	exact slack = 0
	lazy  slack = 16
)

// minSlack is how many artifacts more than MaxArtifacts may be held, but not
// more than MaxArtifacts: small topics would otherwise delete at each append.
const minSlack = 16

func (s slack) of(limit int64) int64 {
	if s == exact {
		return 0
	}
	return limit / int64(s)
}

// over reports whether retention has something to do. It may say so when it
// turns out that it has not: that depends on the size of the first run.
func (s *state) over(now time.Time, by slack) bool {
	if s.empty() {
		return false
	}
	l := &s.limits
	if l.MaxArtifacts <= 0 {
		return true
	}
	surplus := by.of(int64(l.MaxArtifacts))
	if by != exact {
		surplus = max(surplus, min(minSlack, int64(l.MaxArtifacts)))
	}
	if uint64(s.next-s.first) > uint64(int64(l.MaxArtifacts)+surplus) {
		return true
	}
	if l.MaxBytes > 0 && s.total-s.base > uint64(l.MaxBytes+by.of(l.MaxBytes)) {
		return true
	}
	if l.MaxAge <= 0 {
		return false
	}
	age := now.UnixNano() - int64(l.MaxAge)
	return s.newest < age || s.oldest < age-by.of(int64(l.MaxAge))
}

// aged reports whether the first run is too old.
func (s *state) aged(now time.Time) bool {
	return !s.empty() && s.limits.MaxAge > 0 && s.oldest < now.UnixNano()-int64(s.limits.MaxAge)
}

// cut says which runs go: those at the front for which it is true.
type cut func(*stored) bool

func everything(*stored) bool { return true }

// limit returns the cut that a topic's limits make.
func (s *state) limit(now time.Time) cut {
	l := s.limits
	if l.MaxArtifacts <= 0 {
		return everything
	}
	floor := wire.Sequence(0)
	if n := wire.Sequence(l.MaxArtifacts); s.next > n {
		floor = s.next - n
	}
	next, total := s.next, s.total
	return func(r *stored) bool {
		switch {
		case l.MaxAge > 0 && r.at < now.UnixNano()-int64(l.MaxAge):
			return true
		case r.end() == next:
			return false // the newest stays, unless it is too old
		}
		return r.end() <= floor || l.MaxBytes > 0 && total-r.before > uint64(l.MaxBytes)
	}
}

// retain takes the runs that are over a topic's limits. write is held.
func (s *Store) retain(now time.Time, name string, t *topic, st state) error {
	b := s.begin()
	if err := s.take(b, t.id, &st, st.limit(now)); err != nil {
		return err
	}
	return s.commit(b, name, t, &st)
}

// maxSingle is how many runs are deleted one by one. Above that the end of what
// goes is searched, and one deletion covers it: it costs readers more than a
// few small ones, as long as pebble has not applied it.
const maxSingle = 32

// take deletes the runs at the front that are cut off, and changes the state to
// what is left.
func (s *Store) take(b *pebble.Batch, topic uint32, st *state, cut cut) error {
	if st.empty() {
		return nil
	}
	it, err := s.iter(topic, st.first, st.next)
	if err != nil {
		return err
	}
	defer it.close()
	err = s.takeWith(it, b, topic, st, cut)
	if m, ok := errors.AsType[*missingError](err); ok {
		return corrupt("topic %d: %w", topic, m)
	}
	return err
}

func (s *Store) takeWith(it *iter, b *pebble.Batch, topic uint32, st *state, cut cut) error {
	var r stored
	if err := it.seek(st.first, &r); err != nil {
		return err
	}
	at := st.first // the runs before it are cut off
	for range maxSingle {
		if !cut(&r) {
			st.first, st.base, st.oldest = r.run.First, r.before, r.at
			return nil
		}
		at = r.end()
		s.scratch = appendRunKey(s.scratch[:0], s.id, topic, at-1)
		if err := b.Delete(s.scratch, nil); err != nil {
			return storeError(err)
		}
		if at == st.next {
			st.first, st.base, st.oldest = st.next, st.total, st.newest
			return nil
		}
		if err := it.next(at, &r); err != nil {
			return err
		}
	}
	start := at
	left := stored{run: history.Run{First: st.next}, before: st.total, at: st.newest} // the first that stays
	for at < left.run.First {
		if err := it.seek(at+(left.run.First-at)/2, &r); err != nil {
			return err
		}
		if cut(&r) {
			at = r.end()
		} else {
			left = r
		}
	}
	st.first, st.base, st.oldest = left.run.First, left.before, left.at
	if start == at {
		return nil
	}
	from, to := appendRunKey(nil, s.id, topic, start), appendRunKey(nil, s.id, topic, at)
	if err := b.DeleteRange(from, to, nil); err != nil {
		return storeError(err)
	}
	return nil
}

// Purge implements [history.Store].
func (s *Store) Purge(name string, before wire.Sequence) error {
	s.write.Lock()
	defer s.write.Unlock()
	t, st := s.topic(name)
	before = min(before, st.next)
	if t == nil || before <= max(st.purged, st.first) {
		return nil
	}
	st.purged = before
	b := s.begin()
	if err := s.take(b, t.id, &st, func(r *stored) bool { return r.end() <= before }); err != nil {
		return fmt.Errorf("purge history: %w", err)
	}
	if err := s.commit(b, name, t, &st); err != nil {
		return fmt.Errorf("purge history: %w", err)
	}
	return nil
}

// Cut takes what a topic holds from a sequence on, as if it had not been appended. Nobody
// reads meanwhile. The error wraps [history.ErrCorrupt] when no run begins there.
func (s *Store) Cut(name string, from wire.Sequence) error {
	s.write.Lock()
	defer s.write.Unlock()
	t, st := s.topic(name)
	if t == nil || st.next <= from {
		return nil
	}
	b := s.begin()
	if err := b.DeleteRange(appendRunKey(nil, s.id, t.id, from), appendRunKey(nil, s.id, t.id, st.next), nil); err != nil {
		return fmt.Errorf("cut history: %w", storeError(err))
	}
	if from <= st.first {
		st.first, st.base, st.oldest = from, st.total, st.newest
	} else if err := s.endAt(t.id, &st, from); err != nil {
		return fmt.Errorf("cut history: %w", err)
	}
	st.next, st.purged = from, min(st.purged, from)
	if err := s.commit(b, name, t, &st); err != nil {
		return fmt.Errorf("cut history: %w", err)
	}
	return nil
}

// endAt changes what a state says of the newest run to what is true of the one before a
// sequence.
func (s *Store) endAt(topic uint32, st *state, end wire.Sequence) error {
	it, err := s.iter(topic, st.first, st.next)
	if err != nil {
		return err
	}
	defer it.close()
	var r stored
	if err := it.seek(end-1, &r); err != nil {
		if m, ok := errors.AsType[*missingError](err); ok {
			return corrupt("topic %d: %w", topic, m)
		}
		return err
	}
	if r.end() != end {
		return corrupt("topic %d: the run that holds sequence %d goes on", topic, end-1)
	}
	st.total, st.newest = r.before+uint64(len(r.run.Body)), r.at
	return nil
}

// Retain implements [history.Store]. It takes all that is over a limit that
// changed, and all that is too old; what else is over a limit may stay for a
// while.
func (s *Store) Retain(now time.Time, limits func(topic string) history.Limits) error {
	for _, name := range s.names() {
		if err := s.retainTopic(now, name, limits(name)); err != nil {
			return fmt.Errorf("apply retention: %w", err)
		}
	}
	return nil
}

func (s *Store) retainTopic(now time.Time, name string, limits history.Limits) error {
	s.write.Lock()
	defer s.write.Unlock()
	t, st := s.topic(name)
	if t == nil {
		return nil // cleared meanwhile
	}
	changed := st.limits != limits
	st.limits = limits
	if changed && st.over(now, exact) || st.over(now, lazy) || st.aged(now) {
		return s.retain(now, name, t, st)
	}
	if changed {
		return s.commit(s.begin(), name, t, &st)
	}
	return nil
}

func (s *Store) names() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	names := make([]string, 0, len(s.topics))
	for name := range s.topics {
		names = append(names, name)
	}
	return names
}
