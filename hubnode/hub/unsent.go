package hub

import (
	"errors"
	"fmt"
	"sync"
)

// ErrStalled is in the error of Stop when it did not wait for clients that took
// nothing for five seconds.
var ErrStalled = errors.New("clients took nothing for too long")

// StopError says what a stopping hub dropped. It wraps why: the cause of the
// end of Stop's context, or [ErrStalled].
type StopError struct {
	Cut     int   // clients whose connection was closed before they took all, if only their Goodbye
	Clients int   // of those, the ones that artifacts or answers were dropped for
	Bytes   int64 // of these, dropped; all of a write that was cut counts
	Err     error
}

func (e *StopError) Error() string {
	if e.Clients == 0 {
		return fmt.Sprintf("stopped before %d clients took their goodbye: %v", e.Cut, e.Err)
	}
	return fmt.Sprintf("stopped before %d clients took all that was queued for them, %d bytes were dropped: %v", e.Clients, e.Bytes, e.Err)
}

func (e *StopError) Unwrap() error { return e.Err }

// unsent is what a stopping hub's clients did not take.
type unsent struct {
	mu      sync.Mutex // guards the fields below
	hurried bool
	cut     int
	clients int
	bytes   int64
}

// add counts a client, besides its Goodbye; hurried says that it might have
// taken more, given time.
func (u *unsent) add(bytes int, hurried bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.cut++
	u.hurried = u.hurried || hurried
	if bytes > 0 {
		u.clients++
		u.bytes += int64(bytes)
	}
}

// err returns what Stop returns, which ended early because of cause unless that
// is nil.
func (u *unsent) err(cause error) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.hurried {
		if u.clients == 0 {
			return nil // a goodbye that nobody wants is no loss
		}
		cause = ErrStalled
	}
	return &StopError{Cut: u.cut, Clients: u.clients, Bytes: u.bytes, Err: cause}
}
