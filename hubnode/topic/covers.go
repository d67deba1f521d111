package topic

import "strings"

// Covers reports whether wide matches every name that narrow matches. Both must
// be valid patterns; a name is one that matches itself only. It allocates nothing.
//
// It does not ask whether a name would be too long: a narrow pattern that has so
// many tokens that its ">" can stand for one only is taken for any other.
func Covers(wide, narrow string) bool {
	for {
		want, wantRest, wantMore := strings.Cut(wide, string(separator))
		if want == rest {
			return true // narrow has at least one token left
		}
		have, haveRest, haveMore := strings.Cut(narrow, string(separator))
		switch {
		case have == rest:
			return false // it matches longer names than any without ">"
		case want == one: // whatever one token is
		case have != want:
			return false
		}
		if !wantMore || !haveMore {
			return wantMore == haveMore
		}
		wide, narrow = wantRest, haveRest
	}
}
