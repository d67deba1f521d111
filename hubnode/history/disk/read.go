package disk

import (
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
)

// Topics implements [history.Store].
func (s *Store) Topics(visit func(topic string, b history.Bounds) bool) error {
	for _, name := range s.names() {
		t, st := s.topic(name)
		if t == nil {
			continue // cleared meanwhile
		}
		if !visit(name, st.bounds()) {
			return nil
		}
	}
	return nil
}

// Bounds implements [history.Store]. It does no I/O.
func (s *Store) Bounds(topic string) (b history.Bounds, ok bool, err error) {
	t, st := s.topic(topic)
	return st.bounds(), t != nil, nil
}

// Read implements [history.Store].
func (s *Store) Read(topic string, from wire.Sequence, maxBytes int, visit func(history.Run)) (wire.Sequence, error) {
	next := from
	err := s.look(topic, func(t *topicView) error {
		next = max(from, t.readable())
		if t.id == 0 || next >= t.next {
			return nil
		}
		it, err := s.iter(t.id, next, t.next)
		if err != nil {
			return err
		}
		defer it.close()
		var r stored
		if err := it.seek(next, &r); err != nil {
			return err
		}
		for {
			visit(r.run)
			maxBytes -= len(r.run.Body)
			if next = r.end(); next == t.next || maxBytes < 0 {
				return nil
			}
			if err := it.next(next, &r); err != nil {
				return err
			}
			if len(r.run.Body) > maxBytes {
				return nil
			}
		}
	})
	if err != nil {
		return next, fmt.Errorf("read history: %w", err)
	}
	return next, nil
}

// SequenceAt implements [history.Store].
func (s *Store) SequenceAt(topic string, at time.Time) (wire.Sequence, error) {
	var found wire.Sequence
	err := s.look(topic, func(t *topicView) error {
		found = t.next
		if t.empty() || unixNano(t.newest).Before(at) {
			return nil
		}
		if !unixNano(t.oldest).Before(at) {
			found = t.readable()
			return nil
		}
		it, err := s.iter(t.id, t.first, t.next)
		if err != nil {
			return err
		}
		defer it.close()
		var r stored
		for low := t.first; low < found; {
			if err := it.seek(low+(found-low)/2, &r); err != nil {
				return err
			}
			if r.run.Time.Before(at) {
				low = r.end()
			} else {
				found = r.run.First
			}
		}
		found = max(found, t.readable())
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("search history: %w", err)
	}
	return found, nil
}

func unixNano(at int64) time.Time { return time.Unix(0, at).UTC() }

// topicView is a topic as it was at a moment; its id is 0 when there was none.
type topicView struct {
	id uint32
	state
}

// look calls read with a topic's state. Retention may take runs between that
// and the look at the disk; read then finds them missing, at its start only as
// iterators don't see later changes, and is called again.
func (s *Store) look(name string, read func(*topicView) error) error {
	for waited := false; ; {
		v := s.view(name)
		err := read(&v)
		m, ok := err.(*missingError) //nolint:errorlint // it is never wrapped
		if !ok {
			return err
		}
		if s.view(name) != v {
			waited = false
			continue
		}
		if waited {
			return corrupt("topic %q: %w", name, m)
		}
		s.write.Lock() // until what is on disk is seen in the state
		waited = true
		s.write.Unlock()
	}
}

func (s *Store) view(name string) topicView {
	t, st := s.topic(name)
	if t == nil {
		return topicView{state: st}
	}
	return topicView{id: t.id, state: st}
}

// missingError says that a run which should be held is not there.
type missingError struct{ sequence wire.Sequence }

func (e *missingError) Error() string { return fmt.Sprintf("sequence %d is missing", e.sequence) }

// iter reads a topic's runs from disk, as they are when it is made.
type iter struct {
	pebble *pebble.Iterator
	key    []byte // of a run
}

// iter returns an iterator over the runs that hold the sequences from first to
// next.
func (s *Store) iter(topic uint32, first, next wire.Sequence) (*iter, error) {
	key := appendRunKey(make([]byte, 0, 2*runKeyLen), s.id, topic, first)
	upper := appendRunKey(key[runKeyLen:], s.id, topic, next)
	it, err := s.db.pebble.NewIter(&pebble.IterOptions{LowerBound: key, UpperBound: upper})
	if err != nil {
		return nil, storeError(err)
	}
	return &iter{pebble: it, key: key}, nil
}

// seek reads the run that holds a sequence. The error is a [missingError] when
// it isn't there.
func (i *iter) seek(sequence wire.Sequence, r *stored) error {
	i.key = appendSequence(i.key[:topicKeyLen], sequence)
	if i.pebble.SeekGE(i.key) {
		if err := i.read(r); err != nil {
			return err
		}
		if r.run.First <= sequence {
			return nil
		}
	} else if err := i.pebble.Error(); err != nil {
		return storeError(err)
	}
	return &missingError{sequence}
}

// next reads the run after the one read last, which has to start at a sequence.
func (i *iter) next(sequence wire.Sequence, r *stored) error {
	if i.pebble.Next() {
		if err := i.read(r); err != nil {
			return err
		}
		if r.run.First == sequence {
			return nil
		}
	} else if err := i.pebble.Error(); err != nil {
		return storeError(err)
	}
	return corrupt("%x: %w", i.key, &missingError{sequence})
}

func (i *iter) read(r *stored) error {
	value, err := i.value()
	if err != nil {
		return err
	}
	if err := parseRun(i.pebble.Key(), value, r); err != nil {
		return corrupt("%x: %w", i.pebble.Key(), err)
	}
	return nil
}

// value returns what the iterator is at. Pebble panics when it lies apart, in a file
// that is not there.
func (i *iter) value() (value []byte, err error) {
	defer func() {
		if why := recover(); why != nil {
			err = corrupt("%v", why)
		}
	}()
	if value, err = i.pebble.ValueAndErr(); err != nil {
		return nil, storeError(err)
	}
	return value, nil
}

// close ends the use of an iterator; an error was told when it occurred.
func (i *iter) close() { _ = i.pebble.Close() }
