package wire

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"sync"
	"time"
)

// ClientID names a client; it is unique in a hub. It is an alias, so that
// callers may keep ids in plain strings. [CheckClientID] says what is valid.
type ClientID = string

// Sequence numbers the artifacts of one topic that keeps history: the first is
// 1, each next one is higher by 1. Zero means "not in a history".
type Sequence uint64

// ID names one artifact. The ids one publisher gives to artifacts that it
// makes one after another differ by one, which lets a run omit them.
type ID [16]byte

// String returns the id as 32 lower-case hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether the id was never set.
func (id ID) IsZero() bool { return id == ID{} }

// Next returns the id after id: its last eight bytes, as a big-endian number,
// plus one.
func (id ID) Next() ID {
	binary.BigEndian.PutUint64(id[8:], binary.BigEndian.Uint64(id[8:])+1)
	return id
}

// IDs makes artifact ids: a random prefix for the source and a number that
// starts at random and rises by one. The zero value is ready; it is safe for
// concurrent use.
type IDs struct {
	mu   sync.Mutex // guards next
	next ID
}

// Next returns an id that this source never returned before.
func (s *IDs) Next() ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next.IsZero() {
		_, _ = rand.Read(s.next[:]) // never fails: crypto/rand.Read crashes the program instead
	}
	id := s.next
	s.next = id.Next()
	return id
}

// Artifact is one message. Exactly one of To and Topic is set once it is on
// its way.
type Artifact struct {
	// ID names the artifact. Zero: given by whoever puts it on the wire.
	ID ID
	// From is the client that sent it; a node sets or checks it. Empty when
	// an embedding program routed it without saying.
	From ClientID
	// To is the client that it is for, when it is sent directly.
	To ClientID
	// Topic is where it is published, when it is not sent directly.
	Topic string
	// Sequence is its place in the topic's history; zero on a live topic.
	Sequence Sequence
	// Time is when it was made, to the nanosecond, by its sender's clock.
	// Zero: set to now by whoever puts it on the wire.
	Time time.Time
	// ContentType is a media type such as "application/json"; may be empty.
	// At most MaxContentType bytes.
	ContentType string
	// Attributes are the sender's labels; see MaxAttributes and the like for
	// the limits. May be nil.
	Attributes map[string]string
	// Payload is opaque to the hub; may be empty. A handler owns the payload
	// of the artifact that it is given.
	Payload []byte
}
