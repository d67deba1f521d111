package disk

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// retryInterval is how long a failed write of files waits before pebble tries
// again, which it does at once.
const retryInterval = 100 * time.Millisecond

// health knows whether what is in memory can be written to disk. While it can't,
// appends are refused, so that memory stays bounded and nobody waits; pebble
// keeps what it holds, and goes on trying.
type health struct {
	log    *slog.Logger
	opened atomic.Bool

	mu     sync.Mutex // guards the fields below
	flush  error      // of the latest flush; nil when it succeeded
	waits  map[string]error
	latest error         // that there was
	failed chan struct{} // closed at the next failure
}

func newHealth(log *slog.Logger) *health {
	return &health{log: log, waits: make(map[string]error), failed: make(chan struct{})}
}

// err returns why nothing can be appended, nil when it can.
func (h *health) err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, err := range h.waits {
		return err
	}
	return h.flush
}

// nextFailure returns a channel that is closed when something can't be written.
func (h *health) nextFailure() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failed
}

func (h *health) lastErr() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.latest
}

func (h *health) failLocked(err error) {
	h.latest = err
	close(h.failed)
	h.failed = make(chan struct{})
}

// emptyTable is the text of an error, which has no name, of flushes that went
// well but had nothing to write.
const emptyTable = "pebble: empty table"

// flushed tells how a flush ended.
func (h *health) flushed(err error) {
	if err != nil && err.Error() == emptyTable {
		err = nil
	}
	if err != nil {
		err = storeError(err)
	}
	h.mu.Lock()
	before := h.flush
	h.flush = err
	if err != nil {
		h.failLocked(err)
	}
	h.mu.Unlock()
	switch {
	case err != nil && before == nil:
		h.log.Error("history can't be written to disk; nothing is appended until it can", slog.Any("error", err))
	case err == nil && before != nil:
		h.log.Info("history is written to disk again")
	}
}

// waiting tells that a file which can't be given up is being tried again.
func (h *health) waiting(file string, err error) {
	err = storeError(err)
	h.mu.Lock()
	_, again := h.waits[file]
	h.waits[file] = err
	h.failLocked(err)
	h.mu.Unlock()
	if !again {
		h.log.Error("history waits for room on the disk; nothing is appended until there is",
			slog.String("file", file), slog.Any("error", err))
	}
}

func (h *health) waited(file string) {
	h.mu.Lock()
	delete(h.waits, file)
	h.mu.Unlock()
	h.log.Info("history goes on, there is room on the disk", slog.String("file", file))
}

// fatalError is what pebble can't go on after.
type fatalError struct {
	text  string
	cause error // may be nil
}

func (e *fatalError) Error() string { return e.text }
func (e *fatalError) Unwrap() error { return e.cause }

// logger gives pebble's log lines to a slog.Logger.
type logger struct{ log *slog.Logger }

func (l logger) Infof(format string, args ...any) {
	l.log.Debug("pebble", slog.String("text", fmt.Sprintf(format, args...)))
}

func (l logger) Errorf(format string, args ...any) {
	l.log.Warn("pebble", slog.String("text", fmt.Sprintf(format, args...)))
}

// Fatalf must not return: the state of the database is unknown. The full disk
// is not among the causes, guardFS sees to that.
func (l logger) Fatalf(format string, args ...any) {
	err := &fatalError{text: fmt.Sprintf(format, args...)}
	for _, a := range args {
		if cause, ok := a.(error); ok {
			err.cause = cause
		}
	}
	l.log.Error("history database can't go on", slog.Any("error", err))
	panic(err)
}

var _ pebble.Logger = logger{}
