package history

import "sync"

// Store holds the logs of topics. The zero value is empty and ready; it is
// safe for concurrent use, and finding a log takes no lock.
type Store struct {
	logs sync.Map // topic, a string, to *Log
}

// Log returns the topic's log, ok false when it has none.
func (s *Store) Log(topic string) (l *Log, ok bool) {
	held, ok := s.logs.Load(topic)
	if !ok {
		return nil, false
	}
	return held.(*Log), true
}

// Open returns the topic's log, and makes it, empty and with these limits, when
// there is none. A log that is there keeps its limits.
func (s *Store) Open(topic string, limits Limits) *Log {
	if l, ok := s.Log(topic); ok {
		return l
	}
	held, _ := s.logs.LoadOrStore(topic, NewLog(limits, 1))
	return held.(*Log)
}

// Delete forgets the topic's log. Whoever holds it can go on reading. A log
// opened for the topic later starts over at sequence 1.
func (s *Store) Delete(topic string) { s.logs.Delete(topic) }

// Each visits every topic in no order until visit returns false. What is
// opened or deleted meanwhile may be visited or not.
func (s *Store) Each(visit func(topic string, l *Log) bool) {
	s.logs.Range(func(topic, held any) bool {
		return visit(topic.(string), held.(*Log))
	})
}

// Totals returns how many artifacts of all topics can be read, and how many
// bytes of bodies are held. It looks at each log: call it for metrics, not for
// messages.
func (s *Store) Totals() (artifacts int, bytes int64) {
	s.Each(func(_ string, l *Log) bool {
		b := l.Bounds()
		artifacts += b.Artifacts
		bytes += b.Bytes
		return true
	})
	return artifacts, bytes
}
