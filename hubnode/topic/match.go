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

// Overlap reports whether some name can match both patterns, which must be
// valid. It does not ask whether such a name would be too long.
func Overlap(a, b string) bool {
	for {
		tokenA, restA, moreA := strings.Cut(a, string(separator))
		tokenB, restB, moreB := strings.Cut(b, string(separator))
		if tokenA == rest || tokenB == rest {
			return true // the other one has at least one token left
		}
		if tokenA != tokenB && tokenA != one && tokenB != one {
			return false
		}
		if !moreA || !moreB {
			return moreA == moreB
		}
		a, b = restA, restB
	}
}
