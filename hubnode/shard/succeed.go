package shard

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

const (
	succeedTries = 8
	succeedWait  = 25 * time.Millisecond
)

// succeeds begins to stand for leader when the node of the leader is lost, rather than
// to wait until its silence has been long enough.
func (r *replica) succeeds(lost string) {
	if _, id := r.raft.LeaderWithID(); id == "" || nodeOf(id) != lost {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.halting {
		r.running.Go(func() { r.succeed(r.life, lost) })
	}
}

// succeed stands for leader once a majority has lost the leader's node, if this replica
// is the one of those with the longest log, and of them the first that can apply it. One
// link that breaks deposes nobody. The others may hear of the loss a little later, so they
// are asked more than once; if nothing comes of it, the leader's silence does it.
func (r *replica) succeed(ctx context.Context, lost string) {
	for range succeedTries {
		_, leader := r.raft.LeaderWithID()
		if leader != "" && nodeOf(leader) != lost || r.raft.State() == raft.Leader || slices.Contains(r.s.cfg.Linked(), lost) {
			return
		}
		if first, sure := r.isNext(ctx, lost); sure {
			if first {
				r.log.Debug("stands for leader: its node is lost", slog.String("peer", lost))
				r.trans.stand()
			}
			return
		}
		select {
		case <-time.After(succeedWait):
		case <-ctx.Done():
			return
		}
	}
}

// isNext reports whether this replica is the one to lead after the lost node; sure is
// false while a majority is not known to have lost it.
func (r *replica) isNext(ctx context.Context, lost string) (first, sure bool) {
	desired := r.s.cfg.Desired(r.n)
	rank := func(node string) int {
		if i := slices.Index(desired, node); i >= 0 {
			return i
		}
		return len(desired)
	}
	own := r.state()
	if !slices.Contains(own.Voters, string(r.id)) {
		return false, true
	}
	voters, without := 0, 1
	first = true
	for _, m := range r.members() {
		if m.Suffrage != raft.Voter {
			continue
		}
		voters++
		node := nodeOf(m.ID)
		if node == lost || m.ID == r.id {
			continue
		}
		st, err := r.s.askState(ctx, node, r.n)
		if err != nil || st.ID != m.ID {
			continue
		}
		if !slices.Contains(st.Linked, lost) {
			without++
		}
		switch {
		case st.Term != own.Term:
			first = first && st.Term < own.Term
		case st.Last != own.Last:
			first = first && st.Last < own.Last
		case st.able() != own.able():
			first = first && own.able()
		default:
			first = first && rank(r.s.cfg.Self) < rank(node)
		}
	}
	return first, without > voters/2
}
