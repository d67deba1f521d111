package topic

import "strings"

// Index holds values under patterns and finds those whose pattern matches a
// name. It is a trie of tokens with the wildcards beside the literal children,
// so a search costs about as many steps as the name has tokens, however many
// patterns there are.
//
// The zero value is an empty index. It is not safe for concurrent use, except
// that any number of goroutines may read while none writes.
type Index[S comparable] struct {
	root node[S]
	size int
}

// NewIndex returns an empty index.
func NewIndex[S comparable]() *Index[S] { return new(Index[S]) }

// node is one token of one or more patterns; what is below it are the tokens
// that may follow. A node without anything below it and without values is
// removed.
type node[S comparable] struct {
	literal map[string]*node[S] // nil when empty
	one     *node[S]            // below "*"
	rest    *bucket[S]          // of the pattern that ends in ">" here
	values  *bucket[S]          // of the pattern that ends with this token
}

// Add puts s under a pattern, which must be valid, and reports whether it was
// not there yet. The index keeps the string.
func (x *Index[S]) Add(pattern string, s S) (added bool) {
	n, left := &x.root, pattern
	for more := true; more; {
		var token string
		if token, left, more = strings.Cut(left, string(separator)); token == rest && !more {
			added = putIn(&n.rest, pattern, s)
			break
		}
		n = n.grow(token)
		if !more {
			added = putIn(&n.values, pattern, s)
		}
	}
	if added {
		x.size++
	}
	return added
}

// Remove takes s from under a pattern and reports whether it was there.
func (x *Index[S]) Remove(pattern string, s S) (removed bool) {
	if removed = x.root.remove(pattern, s); removed {
		x.size--
	}
	return removed
}

// Match calls visit with every value whose pattern matches name, in no
// particular order: a value that is under two such patterns comes twice. visit
// must not change the index. Match itself allocates nothing.
func (x *Index[S]) Match(name string, visit func(S)) { x.root.match(name, visit) }

// Patterns calls visit with every pattern and the number of values under it,
// in no particular order. visit must not change the index.
func (x *Index[S]) Patterns(visit func(pattern string, n int)) { x.root.patterns(visit) }

// Len returns how many values there are, each counted once for every pattern
// that it is under.
func (x *Index[S]) Len() int { return x.size }

// grow returns the node of a token below n, which it makes when it has to.
func (n *node[S]) grow(token string) *node[S] {
	if token == one {
		if n.one == nil {
			n.one = new(node[S])
		}
		return n.one
	}
	child := n.literal[token]
	if child == nil {
		if n.literal == nil {
			n.literal = make(map[string]*node[S])
		}
		child = new(node[S])
		n.literal[token] = child
	}
	return child
}

func (n *node[S]) remove(pattern string, s S) (removed bool) {
	token, left, more := strings.Cut(pattern, string(separator))
	if token == rest && !more {
		return takeFrom(&n.rest, s)
	}
	child := n.literal[token]
	if token == one {
		child = n.one
	}
	switch {
	case child == nil:
		return false
	case more:
		removed = child.remove(left, s)
	default:
		removed = takeFrom(&child.values, s)
	}
	if removed && child.empty() {
		n.prune(token)
	}
	return removed
}

func (n *node[S]) prune(token string) {
	if token == one {
		n.one = nil
		return
	}
	delete(n.literal, token)
	if len(n.literal) == 0 {
		n.literal = nil // a map doesn't give back what it grew to
	}
}

func (n *node[S]) empty() bool {
	return n.literal == nil && n.one == nil && n.rest == nil && n.values == nil
}

func (n *node[S]) match(name string, visit func(S)) {
	n.rest.each(visit)
	token, left, more := strings.Cut(name, string(separator))
	if child := n.literal[token]; child != nil {
		child.matchBelow(left, more, visit)
	}
	if n.one != nil {
		n.one.matchBelow(left, more, visit)
	}
}

// matchBelow goes on at a node whose token has matched; more says whether the
// name has tokens left.
func (n *node[S]) matchBelow(left string, more bool, visit func(S)) {
	if more {
		n.match(left, visit)
		return
	}
	n.values.each(visit)
}

func (n *node[S]) patterns(visit func(string, int)) {
	for _, b := range []*bucket[S]{n.rest, n.values} {
		if b != nil {
			visit(b.pattern, len(b.list))
		}
	}
	for _, child := range n.literal {
		child.patterns(visit)
	}
	if n.one != nil {
		n.one.patterns(visit)
	}
}
