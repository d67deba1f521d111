package hub

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"syscall"

	"github.com/switchboardhub/switchboard/wire"
)

var (
	// ErrLeft is the reason of a client that said goodbye.
	ErrLeft = errors.New("the client said goodbye")
	// ErrDisconnected is in the reason of a client whose connection ended
	// without a goodbye: the other side closed or reset it, or is gone.
	ErrDisconnected = errors.New("the connection has ended")
)

// ConnectionError is the reason of a client whose connection can't be read or
// written. It is [ErrDisconnected] when the connection has ended, which happens
// to the best; other faults are those of the connection itself.
type ConnectionError struct {
	Op  string // "read" or "write"
	Err error  // as the connection returned it
}

func (e *ConnectionError) Error() string {
	if e.Err == io.EOF { //nolint:errorlint // only the bare one says so little
		return e.Op + ": " + ErrDisconnected.Error()
	}
	return fmt.Sprintf("%s: %v", e.Op, e.Err)
}

func (e *ConnectionError) Unwrap() error { return e.Err }

// Is reports whether target is [ErrDisconnected] and the connection has ended.
func (e *ConnectionError) Is(target error) bool {
	return target == ErrDisconnected && isEnd(e.Err)
}

// isEnd reports whether an error of a connection says that it has ended.
func isEnd(err error) bool {
	for _, end := range []error{
		io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed,
		syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE,
		syscall.ETIMEDOUT, syscall.EHOSTUNREACH, syscall.ENETUNREACH, // keep-alives and retransmissions that nobody answered
	} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

// departure is the kind of a reason to leave.
type departure int

const (
	departedGoodbye departure = iota
	departedDisconnected
	departedConnectionFault
	departedBadInput
	departedSlow
	departedUnhealthy
	departedReplaced
	departedRemoved
	departedStopped
	departedResumed
	departedUnauthenticated
	departedShed
	departures // how many kinds there are
)

// departureNames are the keys of Metrics.ClientsLeft.
var departureNames = [departures]string{
	departedGoodbye:         "goodbye",
	departedDisconnected:    "disconnected",
	departedConnectionFault: "connection_fault",
	departedBadInput:        "bad_input",
	departedSlow:            "slow",
	departedUnhealthy:       "unhealthy",
	departedReplaced:        "replaced",
	departedRemoved:         "removed",
	departedStopped:         "stopped",
	departedResumed:         "resumed",
	departedUnauthenticated: "unauthenticated",
	departedShed:            "shed",
}

// leaveReasons are what other nodes hear.
var leaveReasons = [departures]wire.LeaveReason{
	departedGoodbye:         wire.LeaveGoodbye,
	departedDisconnected:    wire.LeaveDisconnected,
	departedConnectionFault: wire.LeaveConnectionFault,
	departedBadInput:        wire.LeaveBadInput,
	departedSlow:            wire.LeaveSlow,
	departedUnhealthy:       wire.LeaveUnhealthy,
	departedReplaced:        wire.LeaveReplaced,
	departedRemoved:         wire.LeaveRemoved,
	departedStopped:         wire.LeaveStopped,
	departedResumed:         wire.LeaveReplaced,
	departedUnauthenticated: wire.LeaveRemoved,
	departedShed:            wire.LeaveSlow,
}

func departureOf(reason error) departure {
	var (
		coded    *wire.Error
		replaced *SessionReplacedError
		slow     *SlowClientError
		denied   *wire.PermissionError
	)
	switch {
	case errors.Is(reason, ErrLeft):
		return departedGoodbye
	case errors.As(reason, &replaced):
		return departedReplaced
	case errors.As(reason, &slow):
		return departedSlow
	case errors.As(reason, &denied):
		return departedRemoved
	case errors.Is(reason, ErrStopped):
		return departedStopped
	case errors.Is(reason, errResumed):
		return departedResumed
	case errors.Is(reason, wire.ErrMalformed), errors.Is(reason, wire.ErrFrameTooLarge):
		return departedBadInput
	case errors.As(reason, &coded):
		switch coded.Code {
		case wire.CodeUnhealthy:
			return departedUnhealthy
		case wire.CodeRemoved, wire.CodeTLSRequired:
			return departedRemoved
		case wire.CodeUnauthenticated:
			return departedUnauthenticated
		case wire.CodeOverloaded:
			return departedShed
		default:
			return departedBadInput
		}
	case errors.Is(reason, ErrDisconnected):
		return departedDisconnected
	default:
		return departedConnectionFault
	}
}

// unreachable reports whether a Goodbye would reach nobody, or too late.
func (d departure) unreachable() bool {
	return d == departedGoodbye || d == departedDisconnected || d == departedConnectionFault || d == departedResumed ||
		d == departedShed // what waits before it has to go now
}

// mayReturn reports whether the client may come back to its session.
func (d departure) mayReturn() bool {
	return d == departedDisconnected || d == departedConnectionFault || d == departedUnhealthy || d == departedResumed ||
		d == departedUnauthenticated || // with a new token
		d == departedShed // here later, or on another node
}

// departureCounts are how many clients left for each kind of reason.
type departureCounts [departures]atomic.Uint64

func (n *departureCounts) byName() map[string]uint64 {
	counts := make(map[string]uint64, departures)
	for d, name := range departureNames {
		counts[name] = n[d].Load()
	}
	return counts
}
