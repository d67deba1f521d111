package shard

// reign is a part of what was applied: the records of one term, from log entry First to Last.
type reign struct {
	Term, First, Last uint64
}

// reignsMost are remembered, the latest ones.
const reignsMost = 256

// reigns are in order. A log entry is known by its index and its term, and two logs that have
// the same one have the same before it: by the last record that a replica has, these tell
// whether it is on the way to where another one is, also when nobody has the log entries any
// more.
type reigns []reign

// with returns reigns with one more record.
func (all reigns) with(index, term uint64) reigns {
	if n := len(all); n > 0 && all[n-1].Term == term {
		all[n-1].Last = index
		return all
	}
	if len(all) >= reignsMost {
		all = append(all[:0], all[len(all)-reignsMost+1:]...)
	}
	return append(all, reign{term, index, index})
}

// end returns the last record, 0 when none is known.
func (all reigns) end() (index, term uint64) {
	if len(all) == 0 {
		return 0, 0
	}
	last := all[len(all)-1]
	return last.Last, last.Term
}

// tell reports whether a record is part of what was applied; sure is false when it is from
// before what is known.
func (all reigns) tell(index, term uint64) (is, sure bool) {
	if len(all) == 0 || index < all[0].First {
		return false, false
	}
	for _, r := range all {
		if r.Term == term {
			return r.First <= index && index <= r.Last, true
		}
	}
	return false, true
}
