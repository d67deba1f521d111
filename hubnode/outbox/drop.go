package outbox

import "github.com/switchboardhub/switchboard/wire"

// DropOldest drops queued frames of live artifacts, oldest first, until want
// more bytes fit or none is left, and returns how many artifacts that took.
// Control frames stay, and so do artifacts of topics with history, whose
// subscriber counts on finding no hole; what stays keeps its order.
//
// Lost frames on the way go too, or a queue that nobody reads would fill with
// them. What they tell of is returned as untold.
//
// It makes a little more room than asked for, so that pushing to a queue that
// stays full does not mean dropping each time.
func (o *Outbox) DropOldest(want int) (artifacts, untold int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sorted != nil { // the policy was another one before
		o.unsortLocked(o.sorted.bytes)
	}
	if o.pending+want <= o.cfg.LimitBytes {
		return 0, 0
	}
	most := o.cfg.LimitBytes - o.cfg.LimitBytes/16 - want // may stay
	old := o.queue
	o.queue = make([]segment, 0, len(old)+1)
	for len(old) > 0 && o.pending > most {
		front := &old[0]
		n := wire.FrameSize(front.b)
		tail := n > len(front.b) // it is the next segment
		f := wire.Frame(front.b[:min(n, len(front.b))])
		keep := !droppable(f) && f.Kind() != wire.KindLost
		if keep {
			o.copyLocked(f, nil)
		} else {
			artifacts += f.Count()
			untold += lostIn(f)
			o.pending -= n
		}
		if front.b = front.b[len(f):]; len(front.b) == 0 {
			o.recycle(old[:1])
			old = old[1:]
		}
		switch {
		case tail && keep:
			o.queue = append(o.queue, old[0])
			old = old[1:]
		case tail:
			o.recycle(old[:1])
			old = old[1:]
		}
	}
	o.queue = append(o.queue, old...)
	return artifacts, untold
}

// lostIn returns how many artifacts a frame says were lost.
func lostIn(f wire.Frame) int {
	if f.Kind() != wire.KindLost {
		return 0
	}
	return int(f.Sequence())
}

// droppable reports whether a frame carries live artifacts.
func droppable(f wire.Frame) bool {
	switch f.Kind() {
	case wire.KindSend:
		return f.Flags()&wire.FlagKept == 0 // the session counts on the client getting it
	case wire.KindPublish:
		return f.Sequence() == 0
	default:
		return false
	}
}
