package shard

import (
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/switchboardhub/switchboard/hubnode/history"
)

// overlap looks at a leader's call before Raft does, and answers it if it reports so. A
// leader that did not hear how far this replica is sends what it has already. Raft v1.8.0
// looks for that in the log only: what the snapshot holds it refuses for ever, and over a
// snapshot that ends before the log does it empties the log, but goes on as if it were there.
func (r *replica) overlap(call raft.RPC) (answered bool) {
	switch c := call.Command.(type) {
	case *raft.AppendEntriesRequest:
		cutHeld(c, r.snaps.held())
	case *raft.InstallSnapshotRequest:
		if c.Term < r.raft.CurrentTerm() {
			return false // Raft refuses it
		}
		has, err := r.has(c.LastLogIndex, c.LastLogTerm)
		if has || err != nil {
			call.Respond(&raft.InstallSnapshotResponse{Term: c.Term, Success: has}, err)
			return true
		}
	}
	return false
}

// cutHeld takes from a leader's entries those up to held, the last one of the latest
// snapshot. All leaders have the same up to there, so that nothing is to be compared.
func cutHeld(a *raft.AppendEntriesRequest, held uint64) {
	if held == 0 || a.PrevLogEntry > held {
		return
	}
	known := max(held, a.PrevLogEntry+uint64(len(a.Entries)))
	for len(a.Entries) > 0 && a.Entries[0].Index <= held {
		a.Entries = a.Entries[1:]
	}
	a.PrevLogEntry, a.PrevLogTerm = 0, 0
	a.LeaderCommitIndex = min(a.LeaderCommitIndex, known) // the log may go on otherwise than the leader's
}

// has reports whether the replica has all that a leader's snapshot holds. Where its log
// goes on beyond that, but otherwise, it has to be made anew.
func (r *replica) has(index, term uint64) (bool, error) {
	if index <= r.snaps.held() {
		return true, nil
	}
	last, err := r.logs.entries.LastIndex()
	if err != nil || index > last {
		return false, err
	}
	var l raft.Log
	if err := r.logs.entries.GetLog(index, &l); err != nil {
		return false, err
	}
	if l.Term != term {
		err = fmt.Errorf("%w: the log goes on otherwise than the leader's snapshot, from before entry %d to %d", history.ErrCorrupt, index, last)
		r.fail(err)
	}
	return err == nil, err
}
