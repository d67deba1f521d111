package directory

import (
	"hash/maphash"
	"sync/atomic"

	"github.com/switchboardhub/switchboard/wire"
)

// claim says that a node holds a client. Its size is what a remote client
// costs; see BenchmarkTableMemory.
type claim struct {
	next  atomic.Pointer[claim] // in its bucket
	hash  uint64
	id    wire.ClientID
	part  *part
	epoch atomic.Uint64
}

// index finds claims by client id. It is a chained hash table, read without a
// lock and written by one at a time: a reader sees each chain as it was at some
// moment of its walk. sync.Map would do, at more than twice the memory, as
// each part would need a map of its clients besides.
type index struct {
	seed    maphash.Seed
	buckets atomic.Pointer[buckets]
	claims  int // writer only
}

// buckets are the chains' heads; their number is a power of two.
type buckets struct {
	heads []atomic.Pointer[claim]
}

func (b *buckets) head(hash uint64) *atomic.Pointer[claim] {
	return &b.heads[hash&uint64(len(b.heads)-1)]
}

const minBuckets = 64

func (x *index) init() {
	x.seed = maphash.MakeSeed()
	x.buckets.Store(&buckets{heads: make([]atomic.Pointer[claim], minBuckets)})
}

// best returns the claim on id that wins, nil when there is none.
func (x *index) best(id wire.ClientID) *claim {
	hash := maphash.String(x.seed, id)
	var best *claim
	for c := x.buckets.Load().head(hash).Load(); c != nil; c = c.next.Load() {
		if c.hash == hash && c.id == id && (best == nil || c.beats(best)) {
			best = c
		}
	}
	return best
}

func (c *claim) beats(other *claim) bool {
	return Newer(c.epoch.Load(), c.part.node, other.epoch.Load(), other.part.node)
}

// each visits every claim until visit returns false. What is added or removed
// meanwhile may be visited or not.
func (x *index) each(visit func(*claim) bool) {
	b := x.buckets.Load()
	for i := range b.heads {
		for c := b.heads[i].Load(); c != nil; c = c.next.Load() {
			if !visit(c) {
				return
			}
		}
	}
}

// The rest is for the writer.

// find returns p's claim on id, nil when there is none.
func (x *index) find(p *part, id wire.ClientID) *claim {
	hash := maphash.String(x.seed, id)
	for c := x.buckets.Load().head(hash).Load(); c != nil; c = c.next.Load() {
		if c.part == p && c.hash == hash && c.id == id {
			return c
		}
	}
	return nil
}

// add adds a claim that is not there yet.
func (x *index) add(p *part, id wire.ClientID, epoch uint64) {
	c := &claim{hash: maphash.String(x.seed, id), id: id, part: p}
	c.epoch.Store(epoch)
	b := x.buckets.Load()
	b.push(c)
	x.claims++
	if x.claims > len(b.heads) {
		x.resize(2 * len(b.heads))
	}
}

func (b *buckets) push(c *claim) {
	head := b.head(c.hash)
	c.next.Store(head.Load())
	head.Store(c)
}

// remove takes c out. Readers that stand on it find their way on: its own next
// stays.
func (x *index) remove(c *claim) {
	b := x.buckets.Load()
	link := b.head(c.hash)
	for link.Load() != c {
		link = &link.Load().next
	}
	link.Store(c.next.Load())
	x.claims--
}

// shrink gives memory back after many removals.
func (x *index) shrink() {
	n := len(x.buckets.Load().heads)
	for n > minBuckets && x.claims < n/4 {
		n /= 2
	}
	if n < len(x.buckets.Load().heads) {
		x.resize(n)
	}
}

// resize moves all claims to n chains. It copies them, as readers may still
// walk the old chains.
func (x *index) resize(n int) {
	grown := &buckets{heads: make([]atomic.Pointer[claim], n)}
	x.each(func(old *claim) bool {
		c := &claim{hash: old.hash, id: old.id, part: old.part}
		c.epoch.Store(old.epoch.Load())
		grown.push(c)
		return true
	})
	x.buckets.Store(grown)
}
