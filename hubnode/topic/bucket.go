package topic

import "slices"

// smallBucket is how many values are searched one by one: most patterns have a
// few subscribers only, and a map would cost them more than it saves.
const smallBucket = 16

// bucket is a set that is fast to walk, which happens for each message, and in
// which finding one value does not take longer as it grows.
type bucket[S comparable] struct {
	pattern string
	list    []S
	at      map[S]int // positions in list; nil until the bucket outgrew smallBucket
}

// putIn adds s to a bucket, which it makes when there is none.
func putIn[S comparable](b **bucket[S], pattern string, s S) bool {
	if *b == nil {
		*b = &bucket[S]{pattern: pattern}
	}
	return (*b).add(s)
}

// takeFrom removes s from a bucket, and the bucket with its last value.
func takeFrom[S comparable](b **bucket[S], s S) bool {
	if *b == nil || !(*b).remove(s) {
		return false
	}
	if len((*b).list) == 0 {
		*b = nil
	}
	return true
}

func (b *bucket[S]) each(visit func(S)) {
	if b == nil {
		return
	}
	for _, s := range b.list {
		visit(s)
	}
}

func (b *bucket[S]) find(s S) int {
	if b.at == nil {
		return slices.Index(b.list, s)
	}
	if i, ok := b.at[s]; ok {
		return i
	}
	return -1
}

func (b *bucket[S]) add(s S) bool {
	if b.find(s) >= 0 {
		return false
	}
	b.list = append(b.list, s)
	switch {
	case b.at != nil:
		b.at[s] = len(b.list) - 1
	case len(b.list) > smallBucket:
		b.at = make(map[S]int, 2*smallBucket)
		for i, v := range b.list {
			b.at[v] = i
		}
	}
	return true
}

// remove puts the last value into the place of the removed one.
func (b *bucket[S]) remove(s S) bool {
	i := b.find(s)
	if i < 0 {
		return false
	}
	last := len(b.list) - 1
	b.list[i] = b.list[last]
	if b.at != nil {
		b.at[b.list[i]] = i
		delete(b.at, s)
	}
	clear(b.list[last:]) // don't keep alive what s points to
	b.list = b.list[:last]
	return true
}
