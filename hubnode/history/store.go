package history

import (
	"errors"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

// ErrCorrupt reports that what a store holds is not what was written to it. The
// store answers with it rather than with wrong bytes; what it held has to come
// from another replica.
var ErrCorrupt = errors.New("stored history is corrupt")

// ErrFull reports that there is no room to append. What is held can be read.
var ErrFull = errors.New("no room for more history")

// ErrMoved refuses what has to be stored at a place of a topic that is not, or no
// longer, its end.
var ErrMoved = &wire.Error{Code: wire.CodeUnavailable, Detail: "something was published to the topic meanwhile: look again where it ends"}

// Store keeps the histories of many topics: those of one shard. One goroutine
// at a time may change it; reading is safe at any time.
//
// What was appended can be read, and survives a crash of the process, in order:
// when a run is there after a crash, so is every run of any topic that was
// appended before it. Only Flush says that all of it will be there.
type Store interface {
	// Append adds a run at the end of a topic's history, with a copy of its
	// body, and applies limits. A run that is held or was, by its sequences, is
	// ignored: a log may be applied again. The error is an [OrderError] when the
	// run leaves a hole behind a history that is not empty; an empty one goes on
	// anywhere. A time before that of the last append counts as the same.
	Append(now time.Time, topic string, limits Limits, run Run) error
	// Purge takes what a topic holds before a sequence, at most all. Sequences go
	// on where they were.
	Purge(topic string, before wire.Sequence) error
	// Retain applies limits to every topic, and takes what has become too old.
	Retain(now time.Time, limits func(topic string) Limits) error
	// Clear takes everything, sequences included.
	Clear() error
	// Flush returns when all that was appended before will survive a crash of
	// the machine.
	Flush() error
	// Close ends the use of the store; it does not flush.
	Close() error

	// Topics visits the topics that were ever appended to since Clear, in any
	// order, until visit returns false. visit may call the store.
	Topics(visit func(topic string, b Bounds) bool) error
	// Bounds returns what a topic holds; ok is false when nothing was ever
	// appended to it.
	Bounds(topic string) (b Bounds, ok bool, err error)
	// Read is [Log.Read]: it visits runs in order, from the one that holds from,
	// or the first that can be read, until their bodies are maxBytes, one at
	// least. It returns the sequence to read on from. A Body is valid until visit
	// returns.
	Read(topic string, from wire.Sequence, maxBytes int, visit func(Run)) (next wire.Sequence, err error)
	// SequenceAt returns the first sequence that was appended at t or later and
	// can be read: the next one when there is none.
	SequenceAt(topic string, t time.Time) (wire.Sequence, error)
}
