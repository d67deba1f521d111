package client

import (
	"errors"
	"fmt"
	"strings"

	"github.com/switchboardhub/switchboard/wire"
)

// The errors that a hub answers with, for errors.As.
type (
	// NoClientError says that nobody in the hub has the id sent to.
	NoClientError = wire.NoClientError
	// SessionReplacedError ends a client whose id connected elsewhere.
	SessionReplacedError = wire.SessionReplacedError
	// HistoryGapError tells a subscription what retention took, or what it has missed
	// and has no right to read from history.
	HistoryGapError = wire.HistoryGapError
	// ArtifactTooLargeError refuses an artifact above the hub's limit.
	ArtifactTooLargeError = wire.ArtifactTooLargeError
	// SlowClientError says that this client did not read fast enough and was
	// disconnected; it connects again.
	SlowClientError = wire.SlowClientError
	// NoQuorumError says that a topic's artifacts can't be stored, or its end not
	// known, while a majority of its replicas is away.
	NoQuorumError = wire.NoQuorumError
	// ArtifactDiffersError refuses to restore an artifact in whose place there is
	// another one.
	ArtifactDiffersError = wire.ArtifactDiffersError
	// Error is any other refusal, with a stable code.
	Error = wire.Error
)

// ErrClosed is returned by the methods of a client after Close.
var ErrClosed = errors.New("client is closed")

// errStopped ends a wait that was given up.
var errStopped = errors.New("time is up")

// errLinkLost settles what makes no sense on another connection.
var errLinkLost = errors.New("connection lost")

// ConnectionLostError says that the connection went away after an artifact was
// sent and before the answer came: it may or may not have been delivered.
type ConnectionLostError struct {
	Target wire.ClientID // the client, or the topic without history, that it was for
	Node   string        // the node whose connection was lost
}

func (e *ConnectionLostError) Error() string {
	return fmt.Sprintf("connection to node %q was lost: the artifact for %q may or may not have been delivered", e.Node, e.Target)
}

// DroppedError goes to OnError when this client was too slow for live artifacts: its
// node, whose policy is to drop, dropped some that were for it, or the client did, when
// it had to read on for the sake of an answer and there was no room for them.
type DroppedError struct {
	Artifacts uint64 // 0: nobody knows how many
	// Queue says whose queue in this client was full: a subscription's pattern, or the
	// client's own id for what is sent to it. Empty: the node dropped them.
	Queue string
}

func (e *DroppedError) Error() string {
	switch {
	case e.Queue == "":
		return fmt.Sprintf("too slow: the node dropped %d artifacts for this client", e.Artifacts)
	case e.Artifacts == 0:
		return fmt.Sprintf("too slow: live artifacts for the handler of %q are left out until half of its queue is free", e.Queue)
	}
	return fmt.Sprintf("too slow: %d artifacts for the handler of %q were dropped", e.Artifacts, e.Queue)
}

// UnreachableError says that no address led to a hub. Unwrap gives the error of
// each attempt, in the order in which they failed.
type UnreachableError struct {
	Attempts []Attempt
}

// Attempt is one try to connect.
type Attempt struct {
	Address string
	Err     error
}

func (e *UnreachableError) Error() string {
	parts := make([]string, len(e.Attempts))
	for i, a := range e.Attempts {
		parts[i] = a.Address + ": " + a.Err.Error()
	}
	return "cannot reach a hub at " + strings.Join(parts, "; ")
}

// Unwrap returns the attempts' errors.
func (e *UnreachableError) Unwrap() []error {
	errs := make([]error, len(e.Attempts))
	for i, a := range e.Attempts {
		errs[i] = a.Err
	}
	return errs
}

// temporary reports whether the same request may succeed later.
func temporary(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}

// passing reports whether what was refused may soon be possible, so that a publish
// waits for it. What is full may stay so for hours, and whoever publishes had
// better know.
func passing(err error) bool {
	coded, ok := errors.AsType[*Error](err)
	return temporary(err) && (!ok || coded.Code != wire.CodeStorageFull)
}
