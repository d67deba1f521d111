package wire

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Frame-level faults. The stream can't be resynchronised after one of them:
// say why and close the connection.
var (
	// ErrFrameTooLarge reports a length above the reader's limit; nothing of
	// the frame was read into memory.
	ErrFrameTooLarge = errors.New("frame too large")
	// ErrMalformed reports lengths that contradict each other, or an encoding
	// that can't be decoded.
	ErrMalformed = errors.New("malformed frame")
)

// Code says on the wire what went wrong. Codes are stable and never reused;
// from 100 on, trying again may help.
type Code uint16

// The codes. docs/reference/protocol.md says who sends which, and when.
const (
	CodeMalformed          Code = 1
	CodeUnsupportedVersion Code = 2
	CodeUnknownKind        Code = 3
	CodeFrameTooLarge      Code = 4
	CodeInvalidClientID    Code = 5
	CodeInvalidTopic       Code = 6
	CodeNoClient           Code = 7
	CodeSessionReplaced    Code = 8
	CodeArtifactTooLarge   Code = 9
	CodeRefused            Code = 10 // a topic's filter does not let it pass
	CodeInvalidFilter      Code = 11
	CodeSlowClient         Code = 12
	CodeHistoryGap         Code = 13
	CodeHandshakeTimeout   Code = 14
	CodeUnhealthy          Code = 15 // health checks went unanswered
	CodeInvalidRequest     Code = 16 // well-formed, but not possible here and now
	CodeNoHandler          Code = 17
	CodeHandlerFailed      Code = 18
	CodeRemoved            Code = 19 // unregistered by the program or person that runs the hub
	CodeNoDurable          Code = 20 // the topic has no durable subscription of that name
	CodeArtifactDiffers    Code = 21 // a backup has another artifact in its place
	CodeTLSRequired        Code = 22 // the connection is not encrypted
	CodeUnauthenticated    Code = 23 // the client did not prove who it is, or its proof has expired
	CodePermission         Code = 24 // no rule allows it
	CodeUnknownFate        Code = 25 // it was sent before and may have been delivered: it is not delivered again
	CodeUnavailable        Code = 100
	CodeDraining           Code = 101
	CodeTooManyClients     Code = 102
	CodeOverloaded         Code = 103
	CodeNoQuorum           Code = 104
	CodeOutOfOrder         Code = 105 // one published before it was not stored
	CodeStorageFull        Code = 106 // there is no room for more history: on a disk, or in what a namespace may keep
)

// Error is a refusal that travels over the wire.
type Error struct {
	Code   Code   // stable; from 100 on a retry may help
	Detail string // shown to people; holds no secrets
	// Elsewhere are client addresses of other nodes, to connect to instead; nil: none
	// are known, or it would not help.
	Elsewhere []string
}

func (e *Error) Error() string { return fmt.Sprintf("%s (code %d)", e.Detail, e.Code) }

// Temporary reports whether the same request may succeed later.
func (e *Error) Temporary() bool { return e.Code >= 100 }

// NoClientError says that no client of that id is connected anywhere in the
// hub.
type NoClientError struct {
	ID ClientID
}

func (e *NoClientError) Error() string { return fmt.Sprintf("no client %q in the hub", e.ID) }

// SessionReplacedError ends the older of two sessions that hold one client id.
type SessionReplacedError struct {
	ID ClientID
}

func (e *SessionReplacedError) Error() string {
	return fmt.Sprintf("client %q connected again elsewhere: this older session is closed", e.ID)
}

// HistoryGapError says that the subscriber can't have the artifacts From to To, both
// included: retention took them before it could, or it missed them and has no right to
// the topic's history.
type HistoryGapError struct {
	Topic    string
	From, To Sequence
}

func (e *HistoryGapError) Error() string {
	return fmt.Sprintf("topic %q: artifacts %d to %d are no longer kept, or this client may not read them", e.Topic, e.From, e.To)
}

// ArtifactTooLargeError refuses an artifact; the connection goes on. Size and
// Limit are in bytes, of content type, attributes and payload as encoded.
type ArtifactTooLargeError struct {
	Size, Limit int
}

func (e *ArtifactTooLargeError) Error() string {
	return fmt.Sprintf("artifact of %d bytes is over the limit of %d bytes", e.Size, e.Limit)
}

// SlowClientError says that a client did not read fast enough: Pending bytes
// were waiting for it where Limit are allowed.
type SlowClientError struct {
	ID             ClientID
	Pending, Limit int
}

func (e *SlowClientError) Error() string {
	return fmt.Sprintf("client %q is too slow: %d bytes are waiting for it, %d are allowed", e.ID, e.Pending, e.Limit)
}

// NoQuorumError says that a topic's history can't be appended to now: fewer than
// a majority of the replicas of its shard can be reached.
type NoQuorumError struct {
	Topic string
	Shard int
}

func (e *NoQuorumError) Error() string {
	return fmt.Sprintf("topic %q: shard %d has no leader, a majority of its replicas can't be reached: publish again later", e.Topic, e.Shard)
}

// Temporary reports that the same request may succeed later.
func (e *NoQuorumError) Temporary() bool { return true }

// ArtifactDiffersError refuses to restore an artifact: the topic has another one in its
// place.
type ArtifactDiffersError struct {
	Topic    string
	Sequence Sequence
}

func (e *ArtifactDiffersError) Error() string {
	return fmt.Sprintf("topic %q: artifact %d is another one than in the backup", e.Topic, e.Sequence)
}

// Fault is the body of Error and Goodbye frames, as JSON.
type Fault struct {
	Code   Code     `json:"code"`
	Detail string   `json:"detail"`
	Client ClientID `json:"client,omitempty"` // NoClient, SessionReplaced, SlowClient
	Topic  string   `json:"topic,omitempty"`  // HistoryGap, NoQuorum, ArtifactDiffers
	A      uint64   `json:"a,omitempty"`      // size, pending, from, shard, sequence
	B      uint64   `json:"b,omitempty"`      // limit, to

	Elsewhere []string `json:"elsewhere,omitempty"` // Overloaded, in answer to Hello

	Artifacts []int `json:"artifacts,omitempty"` // with FlagEach: which of the frame's, counted from 0, rising

	Identity string `json:"identity,omitempty"` // Permission
	Action   Action `json:"action,omitempty"`   // likewise
	Target   string `json:"target,omitempty"`   // likewise
	Tenant   string `json:"tenant,omitempty"`   // likewise
}

// FaultOf describes err for the wire. Errors that are not of this package
// become code fallback with their text.
func FaultOf(err error, fallback Code) Fault {
	f := Fault{Code: fallback, Detail: err.Error()}
	var (
		coded    *Error
		noClient *NoClientError
		replaced *SessionReplacedError
		gap      *HistoryGapError
		large    *ArtifactTooLargeError
		slow     *SlowClientError
		quorum   *NoQuorumError
		differs  *ArtifactDiffersError
		denied   *PermissionError
	)
	switch {
	case errors.As(err, &noClient):
		f.Code, f.Client = CodeNoClient, noClient.ID
	case errors.As(err, &replaced):
		f.Code, f.Client = CodeSessionReplaced, replaced.ID
	case errors.As(err, &gap):
		f.Code, f.Topic, f.A, f.B = CodeHistoryGap, gap.Topic, uint64(gap.From), uint64(gap.To)
	case errors.As(err, &large):
		f.Code, f.A, f.B = CodeArtifactTooLarge, uint64(large.Size), uint64(large.Limit) //nolint:gosec // sizes are never negative
	case errors.As(err, &slow):
		f.Code, f.Client, f.A, f.B = CodeSlowClient, slow.ID, uint64(slow.Pending), uint64(slow.Limit) //nolint:gosec // sizes are never negative
	case errors.As(err, &quorum):
		f.Code, f.Topic, f.A = CodeNoQuorum, quorum.Topic, uint64(quorum.Shard) //nolint:gosec // shards are numbered from 0
	case errors.As(err, &differs):
		f.Code, f.Topic, f.A = CodeArtifactDiffers, differs.Topic, uint64(differs.Sequence)
	case errors.As(err, &denied):
		f.Code, f.Identity, f.Action, f.Target, f.Tenant = CodePermission, denied.Identity, denied.Action, denied.Target, denied.Tenant
	case errors.As(err, &coded):
		f.Code, f.Detail, f.Elsewhere = coded.Code, coded.Detail, coded.Elsewhere
	case errors.Is(err, ErrFrameTooLarge):
		f.Code = CodeFrameTooLarge
	case errors.Is(err, ErrMalformed):
		f.Code = CodeMalformed
	}
	return f
}

// Err returns the error that the fault describes: one of this package's types
// where there is one, else an [Error].
func (f Fault) Err() error {
	switch f.Code {
	case CodeNoClient:
		return &NoClientError{ID: f.Client}
	case CodeSessionReplaced:
		return &SessionReplacedError{ID: f.Client}
	case CodeHistoryGap:
		return &HistoryGapError{Topic: f.Topic, From: Sequence(f.A), To: Sequence(f.B)}
	case CodeArtifactTooLarge:
		return &ArtifactTooLargeError{Size: clampInt(f.A), Limit: clampInt(f.B)}
	case CodeSlowClient:
		return &SlowClientError{ID: f.Client, Pending: clampInt(f.A), Limit: clampInt(f.B)}
	case CodeNoQuorum:
		return &NoQuorumError{Topic: f.Topic, Shard: clampInt(f.A)}
	case CodeArtifactDiffers:
		return &ArtifactDiffersError{Topic: f.Topic, Sequence: Sequence(f.A)}
	case CodePermission:
		return &PermissionError{Identity: f.Identity, Action: f.Action, Target: f.Target, Tenant: f.Tenant}
	default:
		return &Error{Code: f.Code, Detail: f.Detail, Elsewhere: f.Elsewhere}
	}
}

func clampInt(n uint64) int { return int(min(n, 1<<62)) }

// ParseFault decodes the body of an Error or Goodbye frame. A body that can't
// be decoded is a fault in itself and is returned as one.
func ParseFault(body []byte) Fault {
	var f Fault
	if err := json.Unmarshal(body, &f); err != nil {
		return Fault{Code: CodeMalformed, Detail: "the peer sent an error that can't be decoded"}
	}
	return f
}
