package topic

import "strings"

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

// Overlap calls visit with every value under a pattern that overlaps the given
// one, which must be valid, in no particular order: a value that is under two
// such patterns comes twice. visit must not change the index.
//
// It walks the trie with the pattern as [Index.Match] does with a name, so that
// a literal token costs a step or two, however many patterns there are. Only
// below a wildcard of the pattern does it look at all that is there, and most of
// that overlaps.
func (x *Index[S]) Overlap(pattern string, visit func(S)) { x.root.overlap(pattern, visit) }

func (n *node[S]) overlap(pattern string, visit func(S)) {
	n.rest.each(visit) // at least one token of pattern is left
	token, left, more := strings.Cut(pattern, string(separator))
	switch token {
	case rest:
		n.below(visit)
	case one:
		for _, child := range n.literal {
			child.overlapBelow(left, more, visit)
		}
		n.one.overlapBelow(left, more, visit)
	default:
		n.literal[token].overlapBelow(left, more, visit)
		n.one.overlapBelow(left, more, visit)
	}
}

// overlapBelow goes on at a node, nil when there is none, whose token overlaps;
// more says whether the pattern has tokens left.
func (n *node[S]) overlapBelow(left string, more bool, visit func(S)) {
	switch {
	case n == nil:
	case more:
		n.overlap(left, visit)
	default:
		n.values.each(visit)
	}
}

// below visits the values of all patterns that have a token after n, but for a
// last ">" right there.
func (n *node[S]) below(visit func(S)) {
	visitChild := func(child *node[S]) {
		child.values.each(visit)
		child.rest.each(visit)
		child.below(visit)
	}
	for _, child := range n.literal {
		visitChild(child)
	}
	if n.one != nil {
		visitChild(n.one)
	}
}
