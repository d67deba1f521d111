package topic

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/switchboardhub/switchboard/wire"
)

// Limits of names and patterns alike.
const (
	MaxBytes  = wire.MaxTopic
	MaxTokens = 32 // bounds the work of matching one name
)

// ReservedPrefix starts the names that only the hub itself publishes to.
const ReservedPrefix = "$"

// The tokens that make a pattern of a name.
const (
	separator = '.'
	one       = "*" // exactly one token
	rest      = ">" // one or more tokens; the last of its pattern
)

// A SyntaxError says what is wrong with a name or a pattern, and where.
type SyntaxError struct {
	Input    string
	Position int // of the fault, in bytes from the start of Input
	Reason   string
}

// Error quotes the start of the input: it came from a client and may be long.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("topic %.80q: %s at position %d", e.Input, e.Reason, e.Position)
}

// CheckName returns a [*SyntaxError] unless s is a valid name: 1 to [MaxBytes]
// bytes of UTF-8, at most [MaxTokens] tokens, none of them empty, without
// white space, control characters and wildcards. Reserved names are valid; see
// [CheckPublish].
func CheckName(s string) error { return check(s, false) }

// CheckPattern returns a [*SyntaxError] unless s is a valid pattern: what
// [CheckName] accepts, or the same with whole tokens replaced by wildcards.
func CheckPattern(s string) error { return check(s, true) }

// CheckPublish is [CheckName] for a client that wants to publish: it refuses
// the names that are reserved for the hub too.
func CheckPublish(s string) error {
	if err := CheckName(s); err != nil {
		return err
	}
	if IsReserved(s) {
		return &SyntaxError{Input: s, Position: 0, Reason: `"` + ReservedPrefix + `" is reserved for the hub`}
	}
	return nil
}

// IsReserved reports whether only the hub itself may publish to a name.
func IsReserved(name string) bool { return strings.HasPrefix(name, ReservedPrefix) }

// IsLiteral reports whether a valid pattern matches one name only: itself.
func IsLiteral(pattern string) bool { return !strings.ContainsAny(pattern, one+rest) }

func check(s string, wildcards bool) error {
	fault := func(position int, reason string) error {
		return &SyntaxError{Input: s, Position: position, Reason: reason}
	}
	if len(s) > MaxBytes {
		return fault(MaxBytes, fmt.Sprintf("longer than %d bytes", MaxBytes))
	}
	start := 0 // of the current token
	for tokens := 1; ; tokens++ {
		if tokens > MaxTokens {
			return fault(start, fmt.Sprintf("more than %d tokens", MaxTokens))
		}
		token, _, more := strings.Cut(s[start:], string(separator))
		if at, reason := tokenFault(token, wildcards); reason != "" {
			return fault(start+at, reason)
		}
		if !more {
			return nil
		}
		if wildcards && token == rest {
			return fault(start, `">" is not the last token`)
		}
		start += len(token) + 1
	}
}

// tokenFault returns where a token is wrong and why; no reason when it is
// right.
func tokenFault(token string, wildcards bool) (int, string) {
	switch token {
	case "":
		return 0, "empty token"
	case one, rest:
		if wildcards {
			return 0, ""
		}
	}
	for i, r := range token {
		switch {
		case r == utf8.RuneError:
			// U+FFFD itself is refused with what is not UTF-8: it is what
			// other programs make of it.
			return i, "not UTF-8"
		case unicode.IsSpace(r):
			return i, "white space"
		case unicode.IsControl(r):
			return i, "control character"
		case r == '*' || r == '>':
			if wildcards {
				return i, fmt.Sprintf("wildcard %q is only part of a token", r)
			}
			return i, fmt.Sprintf("wildcard %q in a name", r)
		}
	}
	return 0, ""
}
