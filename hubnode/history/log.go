package history

import (
	"fmt"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

// Run is what is stored: the artifacts of one frame, which share a route.
type Run struct {
	First wire.Sequence // of its first artifact
	Count int           // artifacts
	From  wire.ClientID // their publisher
	Time  time.Time     // when it was appended, in UTC
	Body  []byte        // the artifacts' encoding, opaque here
}

// Limits bound what a log keeps, counting from the newest artifact.
type Limits struct {
	MaxArtifacts int           // zero keeps none
	MaxBytes     int64         // of the runs' bodies; zero: no such bound
	MaxAge       time.Duration // since the append; zero: no such bound
}

// Bounds say what a log holds.
type Bounds struct {
	First, Next    wire.Sequence // the first that can be read, the one that comes next; equal when the log is empty
	Artifacts      int           // that can be read
	Bytes          int64         // of the bodies held
	Oldest, Newest time.Time     // appends of the runs held; zero when the log is empty
}

// OrderError refuses a run whose sequences don't continue the log.
type OrderError struct {
	First, Next wire.Sequence // of the run; of the log
}

func (e *OrderError) Error() string {
	return fmt.Sprintf("run starts at sequence %d, the log goes on at %d", e.First, e.Next)
}

// Log is the history of one topic. It is safe for concurrent use.
//
// Retention takes whole runs from the front:
//
//   - MaxArtifacts takes a run only while those after it hold MaxArtifacts
//     artifacts on their own. A log so holds less than MaxArtifacts and one
//     run more; the surplus can't be read, as [Bounds] put First at
//     Next-MaxArtifacts or later.
//   - MaxBytes is a hard bound on the bodies held, but that the newest run
//     always stays, even when it alone is larger. A reader may therefore find
//     fewer than MaxArtifacts.
//   - MaxAge takes every run that is older, the newest one too.
type Log struct {
	total *atomic.Int64 // bytes of all logs of a store, this one's among them

	mu     sync.Mutex // guards the fields below
	limits Limits
	next   wire.Sequence
	slabs  []*slab       // oldest first; each holds at least one run
	held   uint64        // artifacts in slabs
	bytes  int64         // of the bodies in slabs
	newest int64         // time of the latest append, Unix nanoseconds
	purged wire.Sequence // what lies before can't be read, though its run may be held
}

// NewLog returns an empty log that gives next to the first artifact: 1 for a
// new topic, which zero stands for as well.
func NewLog(limits Limits, next wire.Sequence) *Log {
	return newLog(limits, next, new(atomic.Int64))
}

// newLog is NewLog for a log whose bytes count in total.
func newLog(limits Limits, next wire.Sequence, total *atomic.Int64) *Log {
	return &Log{limits: limits, next: max(next, 1), total: total}
}

// Append stores a copy of body, which holds count artifacts, as published by
// from at the time now, and returns the sequence given to the first of them.
// Then it applies all limits. When count is not positive nothing is stored. A
// body is shorter than 4 GiB.
//
// Times within a log never fall: a now before that of the last append counts
// as the same.
func (l *Log) Append(now time.Time, from wire.ClientID, count int, body []byte) wire.Sequence {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := l.next
	if count > 0 {
		l.appendLocked(now.UnixNano(), from, count, body)
		l.retainLocked(now)
	}
	return first
}

// AppendAt stores a copy of a run that was given its sequences elsewhere. It must
// continue the log exactly, or, into an empty log, start at its next sequence or
// any later one; else the error is an [OrderError]. The run's age counts from
// its Time; from now when that is zero or in the future.
func (l *Log) AppendAt(now time.Time, run Run) error {
	return l.appendRun(now, l.Limits(), run)
}

// appendRun is AppendAt with new limits.
func (l *Log) appendRun(now time.Time, limits Limits, run Run) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if run.Count <= 0 {
		return fmt.Errorf("run of %d artifacts", run.Count)
	}
	if run.First < l.next || run.First > l.next && len(l.slabs) > 0 || run.First+wire.Sequence(run.Count) < run.First {
		return &OrderError{First: run.First, Next: l.next}
	}
	at := now
	if !run.Time.IsZero() && run.Time.Before(now) {
		at = run.Time
	}
	l.limits = limits
	l.next = run.First
	l.appendLocked(at.UnixNano(), run.From, run.Count, run.Body)
	l.retainLocked(now)
	return nil
}

// purge takes whole runs that lie before a sequence; of the run that holds it
// the beginning can't be read any more.
func (l *Log) purge(before wire.Sequence) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before = min(before, l.next)
	l.purged = max(l.purged, before)
	for len(l.slabs) > 0 && l.slabs[0].firstOf(l.slabs[0].skip+1) <= before {
		l.dropFrontLocked()
	}
}

func (l *Log) appendLocked(at int64, from wire.ClientID, count int, body []byte) {
	if l.limits.MaxArtifacts <= 0 {
		l.next += wire.Sequence(count)
		return
	}
	l.newest = max(l.newest, at)
	var last *slab
	if n := len(l.slabs); n > 0 {
		last = l.slabs[n-1]
	}
	if last == nil || !last.fits(len(body)) {
		last = newSlab(l.next, len(body), l.bytes)
		l.slabs = append(l.slabs, last)
	}
	l.next += wire.Sequence(count)
	last.append(l.newest, from, l.next, body)
	l.held += uint64(count)
	l.addLocked(int64(len(body)))
}

// SetLimits replaces the limits and applies them. A higher MaxArtifacts may
// bring back a few artifacts at the front that were held but not readable.
func (l *Log) SetLimits(now time.Time, limits Limits) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limits = limits
	l.retainLocked(now)
}

// Limits returns the limits in force.
func (l *Log) Limits() Limits {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.limits
}

// Expire takes what is older than MaxAge, and returns how many artifacts can't
// be read any more and how many bytes of bodies went.
func (l *Log) Expire(now time.Time) (artifacts int, bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before, held := l.firstLocked(), l.bytes
	l.expireLocked(now)
	return int(l.firstLocked() - before), held - l.bytes
}

func (l *Log) retainLocked(now time.Time) {
	if l.limits.MaxArtifacts <= 0 {
		l.clearLocked()
		return
	}
	l.expireLocked(now)
	for l.severalLocked() {
		front := uint64(l.slabs[0].frontCount())
		tooMany := l.held-front >= uint64(l.limits.MaxArtifacts)
		tooLarge := l.limits.MaxBytes > 0 && l.bytes > l.limits.MaxBytes
		if !tooMany && !tooLarge {
			return
		}
		l.dropFrontLocked()
	}
}

func (l *Log) expireLocked(now time.Time) {
	if l.limits.MaxAge <= 0 {
		return
	}
	oldest := now.UnixNano() - int64(l.limits.MaxAge)
	for len(l.slabs) > 0 && l.slabs[0].front().at < oldest {
		l.dropFrontLocked()
	}
}

// severalLocked reports whether more than one run is held.
func (l *Log) severalLocked() bool {
	return len(l.slabs) > 1 || len(l.slabs) == 1 && l.slabs[0].len() > 1
}

func (l *Log) dropFrontLocked() {
	s := l.slabs[0]
	l.held -= uint64(s.frontCount())
	l.addLocked(-int64(s.frontSize()))
	s.skip++
	if s.len() == 0 {
		l.slabs[0] = nil // the slab is garbage now, though the array below lives on
		l.slabs = l.slabs[1:]
	}
	if len(l.slabs) == 0 {
		l.slabs = nil
	}
}

func (l *Log) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clearLocked()
}

func (l *Log) clearLocked() {
	l.addLocked(-l.bytes)
	l.slabs, l.held = nil, 0
}

// addLocked counts bytes that came, or went when negative.
func (l *Log) addLocked(bytes int64) {
	l.bytes += bytes
	l.total.Add(bytes)
}

// firstLocked returns the first sequence that can be read, next when there is
// none.
func (l *Log) firstLocked() wire.Sequence {
	return max(l.purged, l.next-wire.Sequence(min(l.held, uint64(max(l.limits.MaxArtifacts, 0)))))
}

// Bounds returns what the log holds.
func (l *Log) Bounds() Bounds {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := Bounds{First: l.firstLocked(), Next: l.next, Bytes: l.bytes}
	b.Artifacts = int(b.Next - b.First)
	if len(l.slabs) > 0 {
		b.Oldest = unixNano(l.slabs[0].front().at)
		b.Newest = unixNano(l.newest)
	}
	return b
}

func unixNano(at int64) time.Time { return time.Unix(0, at).UTC() }

// Read visits runs in order, from the one that holds the sequence from, or
// else the first that can be read: one at least, if there is any, and as many
// as have bodies of maxBytes together. It returns the sequence to read on
// from: from itself when that is not given yet.
//
// The first run may begin before from, and before Bounds().First: the reader
// takes what it asked for. The runs of one call follow each other without a
// hole. A Body stays valid for good and must not be changed; it keeps the
// memory of some of its neighbours alive, no more. visit may call the log.
func (l *Log) Read(from wire.Sequence, maxBytes int, visit func(Run)) (next wire.Sequence) {
	next = from
	for visited := 0; ; {
		part, start := l.seek(next, visited > 0)
		if part.len() == 0 {
			return max(next, start)
		}
		for i := part.skip; i < len(part.runs); i++ {
			run := part.run(i)
			if visited > 0 && len(run.Body) > maxBytes {
				return next
			}
			visit(run)
			visited++
			maxBytes -= len(run.Body)
			next = part.runs[i].next
		}
	}
}

// seek returns a copy of a slab that starts at the run which holds from, or at
// the first one that can be read. It is empty when there is none, or, with
// exact, when from is not held any more. start is the log's first sequence.
func (l *Log) seek(from wire.Sequence, exact bool) (part slab, start wire.Sequence) {
	l.mu.Lock()
	defer l.mu.Unlock()
	start = l.firstLocked()
	if from < start {
		if exact {
			return slab{}, 0 // retention overtook the reader: its next Read tells
		}
		from = start
	}
	if from >= l.next {
		return slab{}, start
	}
	i := sort.Search(len(l.slabs), func(i int) bool { return l.slabs[i].next() > from })
	part = *l.slabs[i]
	part.skip += sort.Search(part.len(), func(k int) bool { return part.runs[part.skip+k].next > from })
	return part, start
}

// SequenceAt returns the first sequence that was appended at t or later and
// can be read: the next one when there is none.
func (l *Log) SequenceAt(t time.Time) wire.Sequence {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := sort.Search(len(l.slabs), func(i int) bool { return !unixNano(l.slabs[i].last().at).Before(t) })
	if i == len(l.slabs) {
		return l.next
	}
	s := l.slabs[i]
	k := s.skip + sort.Search(s.len(), func(k int) bool { return !unixNano(s.runs[s.skip+k].at).Before(t) })
	return max(s.firstOf(k), l.firstLocked())
}
