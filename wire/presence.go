package wire

import "encoding/json"

// TopicPresence is the topic on which each node tells its own subscribers who
// joined, left and moved, in any part of the hub. Its artifacts are
// [PresenceUpdate] values as JSON.
const TopicPresence = "$presence"

// LeaveReason says why a client is no longer there. Its numbers travel between
// nodes and its names to clients: never reuse one.
type LeaveReason uint8

// The reasons.
const (
	LeaveUnknown         LeaveReason = iota // the node that tells it has only found the client missing
	LeaveGoodbye                            // it said goodbye
	LeaveDisconnected                       // its connection ended without a goodbye
	LeaveConnectionFault                    // its connection could not be read or written
	LeaveBadInput                           // it sent what can't be read
	LeaveSlow                               // it did not read
	LeaveUnhealthy                          // it was silent
	LeaveReplaced                           // its id connected again
	LeaveRemoved                            // whoever runs the hub removed it
	LeaveStopped                            // its node stopped, and it had not moved until then
	LeaveNodeLeft                           // its node left the hub
	LeaveNodeDied                           // its node is gone without a farewell
)

var leaveNames = [...]string{
	LeaveUnknown:         "unknown",
	LeaveGoodbye:         "goodbye",
	LeaveDisconnected:    "disconnected",
	LeaveConnectionFault: "connection_fault",
	LeaveBadInput:        "bad_input",
	LeaveSlow:            "slow",
	LeaveUnhealthy:       "unhealthy",
	LeaveReplaced:        "replaced",
	LeaveRemoved:         "removed",
	LeaveStopped:         "stopped",
	LeaveNodeLeft:        "node_left",
	LeaveNodeDied:        "node_died",
}

// String returns the reason's name; that of a later version's is "unknown".
func (r LeaveReason) String() string {
	if int(r) >= len(leaveNames) {
		r = LeaveUnknown
	}
	return leaveNames[r]
}

// MarshalText returns the reason's name.
func (r LeaveReason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads a reason's name; one of a later version is LeaveUnknown.
func (r *LeaveReason) UnmarshalText(text []byte) error {
	*r = LeaveUnknown
	for i, name := range leaveNames {
		if name == string(text) {
			*r = LeaveReason(i)
		}
	}
	return nil
}

// PresenceKind says what became different about a client.
type PresenceKind string

// The kinds.
const (
	PresenceJoined PresenceKind = "joined"
	PresenceLeft   PresenceKind = "left"
	PresenceMoved  PresenceKind = "moved"
)

// PresentClient is a client that is there.
type PresentClient struct {
	ID    ClientID `json:"id"`
	Node  string   `json:"node"`
	Epoch uint64   `json:"epoch"` // of its session
}

// PresenceEvent is a client that joined, left or moved. A client that begins a
// new session before its leave was told has moved: to another node, or to the
// one where it was.
type PresenceEvent struct {
	Kind   PresenceKind `json:"kind"`
	Client ClientID     `json:"client"`
	Node   string       `json:"node"`           // where it is, or of one that left: was
	From   string       `json:"from,omitempty"` // of one that moved: where it was
	Epoch  uint64       `json:"epoch"`          // of its session, the last one when it left
	Reason LeaveReason  `json:"reason,omitzero"`
}

// PresenceRevision says how far one node's view of the hub has come. Counts of
// different nodes, or incarnations of one node, have nothing to do with each
// other.
type PresenceRevision struct {
	Node        string `json:"node"`
	Incarnation string `json:"incarnation"`
	Count       uint64 `json:"revision"` // rises by one with each event
}

// PresenceUpdate are events in order; the last one made the revision.
type PresenceUpdate struct {
	PresenceRevision

	Events []PresenceEvent `json:"events"`
}

// PresencePage is the answer to "$hub.presence": the clients that follow the
// one asked for, in the order of their ids, as of the revision.
type PresencePage struct {
	PresenceRevision

	Clients []PresentClient `json:"clients"`
	Next    ClientID        `json:"next,omitempty"` // ask for what follows it; empty: that was all
}

// PageRequest asks for a page of a list that the hub gives.
type PageRequest struct {
	After ClientID `json:"after,omitempty"` // empty: from the start
}

// ParsePageRequest reads the payload of a question; an empty one asks for the
// first page. The error is for whoever asked.
func ParsePageRequest(payload []byte) (PageRequest, error) {
	var q PageRequest
	if len(payload) == 0 {
		return q, nil
	}
	if err := json.Unmarshal(payload, &q); err != nil {
		return PageRequest{}, &Error{Code: CodeInvalidRequest, Detail: "the question's payload is not a request for a page"}
	}
	return q, nil
}
