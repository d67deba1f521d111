// Package seldom keeps a log readable when somebody repeats a mistake.
package seldom

import (
	"sync"
	"time"
)

const (
	// Every is how often one source is logged.
	Every = time.Minute
	// sourcesMax bounds the sources that are told apart; all beyond them are one.
	sourcesMax = 1000
)

// Log says which events to log: of each source one a minute. The zero value is
// ready, and safe for concurrent use.
type Log struct {
	mu      sync.Mutex // guards sources
	sources map[string]*source
}

type source struct {
	next   time.Time // when it is logged again
	silent int       // events since it was logged
}

// Due reports whether an event of a source is to be logged now, and how many of it
// were not since the one that was.
func (l *Log) Due(from string, now time.Time) (due bool, silent int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sources[from]
	if s == nil {
		if len(l.sources) >= sourcesMax {
			l.forget(now)
		}
		if len(l.sources) >= sourcesMax {
			from = ""
		}
		if s = l.sources[from]; s == nil {
			if l.sources == nil {
				l.sources = make(map[string]*source)
			}
			s = &source{}
			l.sources[from] = s
		}
	}
	if now.Before(s.next) {
		s.silent++
		return false, 0
	}
	silent = s.silent
	s.next, s.silent = now.Add(Every), 0
	return true, silent
}

// forget drops the sources that have been quiet since they were logged.
func (l *Log) forget(now time.Time) {
	for from, s := range l.sources {
		if !now.Before(s.next) {
			delete(l.sources, from)
		}
	}
}
