// Package memory knows how near a process is to the memory that it may use, and sees to it
// that clients are kept out, and in the end the slowest of them let go, before the kernel
// ends the process for it.
//
// It counts what the last collection of garbage left, and what the runtime holds beside
// the heap. What the runtime holds in all says nothing: it may be garbage, and is near the
// limit most of the time in a process that does well, for the runtime collects no sooner than it has to.
//
// It does not know what a client is: it says when, and its user does it.
package memory

// Level is how near a process is to its limit.
type Level uint8

// The levels. Each begins at a higher mark than it ends at, so that nothing is done and
// undone in turns.
const (
	Ample    Level = iota // everybody is welcome
	Tight                 // newcomers are refused
	Critical              // nobody is let in, and the slowest clients have to go
)

// The marks, in percent of the limit.
const (
	tightFrom, tightTo       = 85, 80
	criticalFrom, criticalTo = 95, 90
)

// String is a Level's word in logs and statuses.
func (l Level) String() string {
	switch l {
	case Tight:
		return "tight"
	case Critical:
		return "critical"
	default:
		return "ample"
	}
}

// next returns the level that follows l when so many bytes are used of a limit. Without a
// limit, 0, memory is ample.
func (l Level) next(used, limit int64) Level {
	reaches := func(percent int64) bool { return used >= limit/100*percent }
	switch {
	case limit == 0:
		return Ample
	case reaches(criticalFrom), l == Critical && reaches(criticalTo):
		return Critical
	case reaches(tightFrom), l >= Tight && reaches(tightTo):
		return Tight
	default:
		return Ample
	}
}

// excess returns how many bytes have to go for less than so many percent to be used.
func excess(used, limit, percent int64) int64 { return used - limit/100*percent + 1 }
