package topic

import "strings"

// Match reports whether a pattern matches a name. Both must be valid: what
// others match is not defined. It allocates nothing.
func Match(pattern, name string) bool {
	for {
		want, wantRest, wantMore := strings.Cut(pattern, string(separator))
		if want == rest {
			return true // at least one token of name is left
		}
		have, haveRest, haveMore := strings.Cut(name, string(separator))
		if want != have && want != one {
			return false
		}
		if !wantMore || !haveMore {
			return wantMore == haveMore
		}
		pattern, name = wantRest, haveRest
	}
}
