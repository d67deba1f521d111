package disk

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// retryInterval is how long a failed write of files waits before pebble tries
// again, which it does at once.
const retryInterval = 100 * time.Millisecond

// health knows whether what is in memory can be written to disk. While it can't,
// appends are refused, so that memory stays bounded and nobody waits; pebble
// keeps what it holds, and goes on trying.
type health struct {
	log       *slog.Logger
	scheduled atomic.Bool // pebble's scheduler of compactions runs
	opened    atomic.Bool

	mu      sync.Mutex // guards the fields below
	flush   error      // of the latest flush; nil when it succeeded
	compact error      // of the latest compaction, when the disk was full then
	tried   time.Time  // when that was
	waits   map[string]error
	said    map[string]time.Time // when background errors were logged, few of them
	changed chan struct{}        // closed when one of them is set, and replaced
}

func newHealth(log *slog.Logger) *health {
	return &health{log: log, waits: make(map[string]error), said: make(map[string]time.Time), changed: make(chan struct{})}
}

// unwritten returns why what is in memory can't be written, nil when it can, and
// a channel that is closed when that may have changed.
func (h *health) unwritten() (<-chan struct{}, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.changed, h.unwrittenLocked()
}

func (h *health) unwrittenLocked() error {
	for _, err := range h.waits {
		return err
	}
	return h.flush
}

// forgetAfter is when a compaction that failed counts no more. Pebble tries
// again every retryInterval, but when it finds it needless meanwhile.
const forgetAfter = 2 * time.Second

// refusal returns why nothing can be appended, nil when it can. The last of the
// room is for compactions: without them retention frees none.
func (h *health) refusal() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.unwrittenLocked(); err != nil {
		return err
	}
	if h.compact != nil && time.Since(h.tried) < forgetAfter {
		return h.compact
	}
	return nil
}

// waitsForRoom reports whether pebble is held up within a write.
func (h *health) waitsForRoom() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.waits) > 0
}

func (h *health) changedLocked() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// compacted tells how a compaction ended.
func (h *health) compacted(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.compact = nil
	if err != nil && vfs.IsNoSpaceError(err) {
		h.compact, h.tried = storeError(err), time.Now()
	}
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
	h.changedLocked()
	h.mu.Unlock()
	switch {
	case err != nil && before == nil:
		h.log.Error("history can't be written to disk; nothing is appended until it can", slog.Any("error", err))
	case err == nil && before != nil:
		h.log.Info("history is written to disk again")
	}
}

// repeatAfter is when a background error is logged again that goes on.
const repeatAfter = time.Minute

// background tells of an error of what pebble does by itself, which it may try
// again many times a second.
func (h *health) background(err error) {
	text := err.Error()
	kind := text
	if vfs.IsNoSpaceError(err) {
		kind = "full" // the text names another file each time
	}
	h.mu.Lock()
	again := time.Since(h.said[kind]) < repeatAfter
	if !again {
		if len(h.said) > 100 {
			clear(h.said)
		}
		h.said[kind] = time.Now()
	}
	h.mu.Unlock()
	if !again {
		h.log.Warn("history database has trouble", slog.String("error", text))
	}
}

// corrupted tells of a file that isn't what was written. It takes its time:
// pebble, which looks for statistics in each file, looks again at once.
func (h *health) corrupted(i pebble.DataCorruptionInfo) {
	h.background(i.Details)
	time.Sleep(retryInterval / 10)
}

// waiting tells that a file which can't be given up is being tried again.
func (h *health) waiting(file string, err error) {
	err = storeError(err)
	h.mu.Lock()
	_, again := h.waits[file]
	h.waits[file] = err
	h.changedLocked()
	h.mu.Unlock()
	if !again {
		h.log.Error("history waits for room on the disk; nothing is appended until there is",
			slog.String("file", file), slog.Any("error", err))
	}
}

func (h *health) waited(file string) {
	h.mu.Lock()
	delete(h.waits, file)
	h.changedLocked()
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
