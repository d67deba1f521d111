package directory

// snapshot collects the parts of one owner's snapshot.
type snapshot struct {
	owner Owner
	to    Version
	parts uint32
	got   map[uint32]Announcement // not sized by parts: that is only a claim
}

// applySnapshotLocked keeps a until all its siblings are there. A part of a
// later snapshot, or of one that is cut differently, starts anew.
func (t *Table) applySnapshotLocked(a Announcement, have Version) Result {
	s := t.snapshots[a.Owner.Node]
	if s != nil && s.later(a.Owner.Incarnation, a.To) {
		return Result{Have: have}
	}
	if s == nil || s.owner != a.Owner || s.to != a.To || s.parts != a.Parts {
		s = &snapshot{owner: a.Owner, to: a.To, parts: a.Parts, got: make(map[uint32]Announcement)}
		t.snapshots[a.Owner.Node] = s
	}
	s.got[a.Part] = a
	if uint32(len(s.got)) < s.parts {
		return Result{Have: have}
	}
	delete(t.snapshots, a.Owner.Node)
	changes, ok := s.join()
	if !ok {
		return Result{Hole: true, Have: have}
	}
	return t.replaceLocked(s.owner, s.to, changes)
}

// later reports whether s is of a later state of its owner's part.
func (s *snapshot) later(incarnation uint64, to Version) bool {
	if s.owner.Incarnation != incarnation {
		return s.owner.Incarnation > incarnation
	}
	return s.to > to
}

// join returns the changes of all parts. ok is false when the parts don't fit
// together: they come from two snapshots of one version that were cut at
// different sizes.
func (s *snapshot) join() (changes []Change, ok bool) {
	for i := range s.parts {
		a := s.got[i]
		if a.Offset != uint64(len(changes)) {
			return nil, false
		}
		changes = append(changes, a.Changes...)
	}
	return changes, true
}
