package history

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

// Memory is a [Store] whose content ends with the process.
type Memory struct {
	logs  sync.Map     // topic to *Log
	bytes atomic.Int64 // of the bodies in all of them
}

// NewMemory returns an empty store.
func NewMemory() *Memory { return &Memory{} }

// log returns a topic's log, nil when there is none.
func (m *Memory) log(topic string) *Log {
	v, ok := m.logs.Load(topic)
	if !ok {
		return nil
	}
	l, _ := v.(*Log)
	return l
}

// Append implements [Store].
func (m *Memory) Append(now time.Time, topic string, limits Limits, run Run) error {
	l := m.log(topic)
	if l == nil {
		l = newLog(limits, run.First, &m.bytes)
		m.logs.Store(topic, l)
	}
	err := l.appendRun(now, limits, run)
	if o, ok := errors.AsType[*OrderError](err); ok && o.First < o.Next {
		return nil // it is held, or was
	}
	return err
}

// Purge implements [Store].
func (m *Memory) Purge(topic string, before wire.Sequence) error {
	if l := m.log(topic); l != nil {
		l.purge(before)
	}
	return nil
}

// Retain implements [Store].
func (m *Memory) Retain(now time.Time, limits func(topic string) Limits) error {
	m.logs.Range(func(k, v any) bool {
		topic, _ := k.(string)
		l, _ := v.(*Log)
		l.SetLimits(now, limits(topic))
		return true
	})
	return nil
}

// Clear implements [Store].
func (m *Memory) Clear() error {
	m.logs.Range(func(k, v any) bool {
		m.logs.Delete(k)
		l, _ := v.(*Log)
		l.clear()
		return true
	})
	return nil
}

// Bytes returns how many bytes of bodies the store holds.
func (m *Memory) Bytes() int64 { return m.bytes.Load() }

// Flush implements [Store]: there is nothing to do.
func (m *Memory) Flush() error { return nil }

// Close implements [Store]: there is nothing to do.
func (m *Memory) Close() error { return nil }

// Topics implements [Store].
func (m *Memory) Topics(visit func(topic string, b Bounds) bool) error {
	m.logs.Range(func(k, v any) bool {
		topic, _ := k.(string)
		l, _ := v.(*Log)
		return visit(topic, l.Bounds())
	})
	return nil
}

// Bounds implements [Store].
func (m *Memory) Bounds(topic string) (Bounds, bool, error) {
	l := m.log(topic)
	if l == nil {
		return Bounds{First: 1, Next: 1}, false, nil
	}
	return l.Bounds(), true, nil
}

// Read implements [Store]. Bodies stay valid for good.
func (m *Memory) Read(topic string, from wire.Sequence, maxBytes int, visit func(Run)) (wire.Sequence, error) {
	l := m.log(topic)
	if l == nil {
		return max(from, 1), nil
	}
	return l.Read(from, maxBytes, visit), nil
}

// SequenceAt implements [Store].
func (m *Memory) SequenceAt(topic string, t time.Time) (wire.Sequence, error) {
	l := m.log(topic)
	if l == nil {
		return 1, nil
	}
	return l.SequenceAt(t), nil
}
