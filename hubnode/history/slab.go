package history

import "github.com/switchboardhub/switchboard/wire"

// A slab's size follows the log's, so that neither a topic of three artifacts
// nor one of a million wastes much: a sixteenth of what is held, within these
// bounds. Larger bodies have a slab of their own.
const (
	minSlab = 512       // bytes
	maxSlab = 256 << 10 // bytes
	maxRuns = 16 << 10  // in one slab: bodies may be empty, their records are not
)

// slab holds consecutive runs in one piece of memory. Bytes and records are
// only ever added behind those that are there, never changed: a copy of the
// struct is a consistent view that needs no lock.
type slab struct {
	first wire.Sequence   // of its first run, which retention may have taken
	data  []byte          // the bodies, one behind the other; never grows beyond its capacity
	froms []wire.ClientID // the runs' publishers
	runs  []record
	skip  int // how many runs retention took
}

// record is a run in a slab. It is small because a busy topic of single
// artifacts has one for each: see BenchmarkMemory.
type record struct {
	at   int64         // append, Unix nanoseconds
	next wire.Sequence // after the run's last
	end  uint32        // of the body in data; it begins where the one before ends
	from uint32        // in froms
}

// newSlab returns a slab with room for a body of size bytes, for a log of held
// bytes.
func newSlab(first wire.Sequence, size int, held int64) *slab {
	room := int(min(max(held/16, minSlab), maxSlab))
	return &slab{first: first, data: make([]byte, 0, max(room, size))}
}

// fits reports whether a body of size bytes can be appended.
func (s *slab) fits(size int) bool {
	return size <= cap(s.data)-len(s.data) && len(s.runs) < maxRuns
}

func (s *slab) append(at int64, from wire.ClientID, next wire.Sequence, body []byte) {
	s.data = append(s.data, body...)
	s.runs = append(s.runs, record{at: at, next: next, end: uint32(len(s.data)), from: s.publisher(from)})
}

// publisher returns the index of from in froms. Only the latest few are looked
// through: with so many publishers that this misses, a second mention is
// cheaper than the search.
func (s *slab) publisher(from wire.ClientID) uint32 {
	const window = 16
	for i := len(s.froms) - 1; i >= max(0, len(s.froms)-window); i-- {
		if s.froms[i] == from {
			return uint32(i)
		}
	}
	s.froms = append(s.froms, from)
	return uint32(len(s.froms) - 1)
}

// len returns how many runs are left.
func (s *slab) len() int { return len(s.runs) - s.skip }

func (s *slab) front() record       { return s.runs[s.skip] }
func (s *slab) last() record        { return s.runs[len(s.runs)-1] }
func (s *slab) next() wire.Sequence { return s.last().next }

// frontCount returns how many artifacts the first run that is left holds.
func (s *slab) frontCount() int { return int(s.front().next - s.firstOf(s.skip)) }

// frontSize returns the size of its body.
func (s *slab) frontSize() int { return int(s.front().end - s.start(s.skip)) }

func (s *slab) firstOf(i int) wire.Sequence {
	if i == 0 {
		return s.first
	}
	return s.runs[i-1].next
}

func (s *slab) start(i int) uint32 {
	if i == 0 {
		return 0
	}
	return s.runs[i-1].end
}

func (s *slab) run(i int) Run {
	r := s.runs[i]
	first := s.firstOf(i)
	return Run{
		First: first, Count: int(r.next - first), From: s.froms[r.from],
		Time: unixNano(r.at), Body: s.data[s.start(i):r.end:r.end],
	}
}
