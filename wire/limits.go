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
	MaxGroup          = 128
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
	// MaxSubscribe bounds the frames of one Subscribe together, and what they name: a few
	// hundred thousand topics.
	MaxSubscribe = 16 << 20
	// PositionOverhead is what a position in a topic counts there beyond the topic's name:
	// about what it takes, in memory as in a frame.
	PositionOverhead = 32
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
	at, why := wordFault(id, MaxClientID)
	if id != "" && id[0] == '$' {
		at, why = 0, "'$' is reserved for the hub"
	}
	if why == "" {
		return nil
	}
	return &Error{Code: CodeInvalidClientID, Detail: fmt.Sprintf("client id %.64q: %s at byte %d", id, why, at)}
}

// CheckGroup returns an error that says what is wrong with the name of a group
// of subscriptions, nil when it is valid: 1 to 128 bytes of UTF-8 without white
// space and control characters.
func CheckGroup(name string) error {
	if at, why := wordFault(name, MaxGroup); why != "" {
		return &Error{Code: CodeInvalidRequest, Detail: fmt.Sprintf("group %.64q: %s at byte %d", name, why, at)}
	}
	return nil
}

// wordFault returns where a word of 1 to most bytes is wrong and why; no reason
// when it is right.
func wordFault(word string, most int) (int, string) {
	switch {
	case word == "":
		return 0, "nothing there"
	case len(word) > most:
		return most, fmt.Sprintf("longer than %d bytes", most)
	}
	for i, r := range word {
		switch {
		case r == utf8.RuneError:
			return i, "not UTF-8"
		case unicode.IsSpace(r):
			return i, "white space"
		case unicode.IsControl(r):
			return i, "control character"
		}
	}
	return 0, ""
}
