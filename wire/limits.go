package wire

import (
	"fmt"
	"unicode"
	"unicode/utf8"
)

// Version is the protocol version that this package speaks. A peer offers a
// range in [Hello]; the node picks the highest both know.
const Version = 1

// Sizes and limits, in bytes unless the name says otherwise.
const (
	HeaderSize = 24 // a frame's fixed part, its length field included

	MaxClientID       = 128
	MaxTopic          = 255
	MaxContentType    = 255
	MaxAttributes     = 64 // per artifact
	MaxAttributeKey   = 255
	MaxAttributeValue = 4096
	MaxCount          = 1<<16 - 1 // artifacts in one frame

	// DefaultMaxArtifact bounds an artifact's encoded content type,
	// attributes and payload together when a node announces nothing else.
	DefaultMaxArtifact = 1 << 20
	// RunSize is what a sender packs at most into one frame when it batches;
	// a single artifact may be larger, up to the node's limit.
	RunSize = 64 << 10
	// frameSlack is what a frame may hold beyond one artifact of the largest
	// size: header, route, id, time and lengths.
	frameSlack = 1 << 10
	// MaxHandshakeFrame bounds the frames of the handshake, before a limit is
	// agreed.
	MaxHandshakeFrame = 16 << 10
)

// MaxFrame returns the largest frame, in bytes with its length field, that may
// be sent where artifacts are limited to maxArtifact bytes.
func MaxFrame(maxArtifact int) int {
	return max(maxArtifact, RunSize) + frameSlack
}

// CheckClientID returns an error that says what is wrong with id, nil when it
// is valid: 1 to 128 bytes of UTF-8 without white space and control
// characters, not starting with '$', which is for the hub itself.
func CheckClientID(id ClientID) error {
	bad := func(at int, why string) error {
		return &Error{Code: CodeInvalidClientID, Detail: fmt.Sprintf("client id %.64q: %s at byte %d", id, why, at)}
	}
	switch {
	case id == "":
		return &Error{Code: CodeInvalidClientID, Detail: "client id is empty"}
	case len(id) > MaxClientID:
		return bad(MaxClientID, fmt.Sprintf("longer than %d bytes", MaxClientID))
	case id[0] == '$':
		return bad(0, "'$' is reserved for the hub")
	}
	for i, r := range id {
		switch {
		case r == utf8.RuneError:
			return bad(i, "not UTF-8")
		case unicode.IsSpace(r):
			return bad(i, "white space")
		case unicode.IsControl(r):
			return bad(i, "control character")
		}
	}
	return nil
}
