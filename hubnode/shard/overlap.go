package shard

import (
	"errors"
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
		held, term := r.snaps.end()
		if i, t := otherwise(c, held, term); i > 0 && c.Term >= r.raft.CurrentTerm() {
			r.lacked(i, t)
			call.Respond(&raft.AppendEntriesResponse{Term: c.Term}, errStrange)
			return true
		}
		cutHeld(c, held)
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

// otherwise returns the first entry of a leader's that can't be part of what a snapshot
// stands for, which ends with entry held: it is of a later term than that, but not after it.
// The leader and its voters lost what this replica has there. 0: there is none.
func otherwise(a *raft.AppendEntriesRequest, held, term uint64) (index, of uint64) {
	if a.PrevLogEntry <= held && a.PrevLogTerm > term {
		return a.PrevLogEntry, a.PrevLogTerm
	}
	for _, l := range a.Entries {
		if l.Index <= held && l.Term > term {
			return l.Index, l.Term
		}
	}
	return 0, 0
}

// lacked says that the leaders went on without what the latest snapshot stands for.
func (r *replica) lacked(index, term uint64) {
	r.fail(fmt.Errorf("log entry %d is of term %d with the leader, and the snapshot holds another one", index, term))
}

var errStrange = errors.New("this replica holds what the leader does not")

// cutHeld takes from a leader's entries those up to held, the last one of the latest
// snapshot. All leaders have the same up to there, so that nothing more is to be compared.
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
	if held, of := r.snaps.end(); index <= held {
		if term > of {
			r.lacked(index, term)
			return false, errStrange
		}
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
