package rule

import (
	"strings"
	"unicode/utf8"
)

// star stands for any run of characters in a glob, the empty one included.
const star = '*'

// MatchID reports whether a glob matches a client id: the same text, but for "*"
// in the glob, which stands for any run of characters, as none. It allocates
// nothing, and takes no longer than the product of their lengths.
func MatchID(glob, id string) bool {
	var back, from int // where to go on after the last star when all else fails
	starred := false
	g, i := 0, 0
	for i < len(id) {
		switch {
		case g < len(glob) && glob[g] == star:
			starred, back, from = true, g+1, i
			g++
		case g < len(glob) && glob[g] == id[i]:
			g, i = g+1, i+1
		case starred:
			from++ // the star takes a byte more
			g, i = back, from
		default:
			return false
		}
	}
	return strings.Trim(glob[g:], string(star)) == ""
}

// CoversID reports whether wide matches every client id that narrow matches.
func CoversID(wide, narrow string) bool {
	// A star in narrow may be any text, even one that wide does not have: only a
	// star of wide takes it. Which is what matching it as a character says.
	return MatchID(wide, narrow)
}

// plainRune reports whether a character may be in names at all.
func plainRune(r rune) bool { return r != utf8.RuneError && !isSpaceOrControl(r) }
