package shard

import (
	"slices"
	"strings"

	"github.com/hashicorp/raft"
)

// server returns a member by its id. Its address is its id too: Raft allows no
// two members with one address, and a replica and its successor share a node.
func server(id raft.ServerID) raft.Server {
	return raft.Server{ID: id, Address: raft.ServerAddress(id)}
}

// nodeOf returns the node that a replica is on, or was.
func nodeOf(id raft.ServerID) string {
	node, _, _ := strings.Cut(string(id), "/")
	return node
}

// The changes of a group's members, each a step on its own.
type change string

const (
	addReplica    change = "add"    // it gets entries, and has no vote
	giveVote      change = "vote"   // it has caught up
	removeReplica change = "remove" // it is gone for good, or does not belong there
	giveWay       change = "lead"   // the leader does not belong there: another one leads, and removes it
)

// step is one change.
type step struct {
	what change
	id   raft.ServerID
	node string
}

// nextStep returns the next change that brings a group's members to the desired
// nodes, nil when there is none that is safe now. states are of the nodes that
// answer. It is for the leader, on node self, which has committed so far.
//
// A replica whose node answers under another id is gone for good: its state is
// lost. It is removed before its successor gets a vote, for while it is counted a
// majority takes more of those that are there. A replica that only moves keeps its
// vote until its successor has one. One that knows of a group and is no member was
// removed from it: it is not added again with what it held then (see leave).
func nextStep(self string, committed uint64, desired []string, members []raft.Server, states map[string]state) *step {
	member := make(map[raft.ServerID]raft.Server, len(members))
	for _, m := range members {
		member[m.ID] = m
	}
	gone := func(m raft.Server) bool {
		st, ok := states[nodeOf(m.ID)]
		return ok && st.ID != m.ID
	}

	for _, m := range members { // those without a vote cost nothing to remove
		if m.Suffrage != raft.Voter && (gone(m) || !slices.Contains(desired, nodeOf(m.ID))) {
			return &step{removeReplica, m.ID, nodeOf(m.ID)}
		}
	}
	for _, node := range desired {
		st, ok := states[node]
		if _, is := member[st.ID]; ok && !is && !st.Member && st.ID != "" {
			return &step{addReplica, st.ID, node}
		}
	}
	for _, m := range members {
		if m.Suffrage != raft.Voter || !gone(m) {
			continue
		}
		if !majorityWithout(m.ID, members, states) {
			return nil // one vote more would only raise the majority
		}
		return &step{removeReplica, m.ID, nodeOf(m.ID)}
	}
	for _, m := range members {
		if st, ok := states[nodeOf(m.ID)]; ok && m.Suffrage != raft.Voter && st.near(committed) {
			return &step{giveVote, m.ID, nodeOf(m.ID)}
		}
	}
	if !whole(committed, desired, members, states) { // nobody goes before all who should be there are
		return nil
	}
	for _, m := range members {
		if slices.Contains(desired, nodeOf(m.ID)) {
			continue
		}
		if nodeOf(m.ID) == self {
			for _, node := range desired {
				if st := states[node]; st.able() {
					return &step{giveWay, st.ID, node}
				}
			}
			return nil // it leads until one of them is able to
		}
		if majorityWithout(m.ID, members, states) {
			return &step{removeReplica, m.ID, nodeOf(m.ID)}
		}
	}
	return nil
}

// goesOnAlone reports whether a replica without a leader has to go on as the only
// member of its group: the others answer, none of those that are left can be elected, none
// knows more, and no group has gone on without it.
//
// A replica that has just been given its vote may know more than one that has not heard of
// that, and gives it no vote: it can't be elected, though a majority is there, and
// is the one to go on. While one of their nodes is of the version before, they do as that
// does, so that only one of them goes on: the one that has not heard of it.
func goesOnAlone(own state, members []raft.Server, states map[string]state) (voters, alive int, alone bool) {
	knowsMore := func(st state) bool {
		return st.newer(own) || st.Term == own.Term && st.Last == own.Last && st.ID < own.ID
	}
	elects := true // all of them look at who can be elected
	for _, st := range states {
		elects = elects && (st.Elects || !st.Member)
	}
	alone = own.votesFor(own.ID)
	for _, m := range members {
		if m.Suffrage != raft.Voter {
			continue
		}
		voters++
		st, ok := states[nodeOf(m.ID)]
		switch {
		case !ok:
			alone = false // it may come back as what it was
		case st.ID == m.ID:
			alive++
			alone = alone && (st.ID == own.ID || !knowsMore(st)) && !(elects && slices.ContainsFunc(st.Voters, func(id string) bool {
				_, ok := states[nodeOf(raft.ServerID(id))]
				return !ok // with which it may go on when that comes back
			}))
		}
	}
	for _, st := range states {
		if st.Member && knowsMore(st) && (elects && st.votesFor(st.ID) || !st.votesFor(own.ID)) || elects && st.electable(states) {
			alone = false
		}
	}
	return voters, alive, alone && (elects || alive <= voters/2)
}

// votesFor reports whether a replica may vote for another one, or itself: Raft wants it to be a voter
// by the log of whoever is asked.
func (st *state) votesFor(id raft.ServerID) bool { return slices.Contains(st.Voters, string(id)) }

// newer reports whether a replica's log has more than another one's, as Raft compares them.
func (st *state) newer(than state) bool {
	return st.Term > than.Term || st.Term == than.Term && st.Last > than.Last
}

// electable reports whether those that are left can elect a replica.
func (st *state) electable(states map[string]state) bool {
	votes := 0
	for _, id := range st.Voters {
		voter, ok := states[nodeOf(raft.ServerID(id))]
		if ok && string(voter.ID) == id && voter.votesFor(st.ID) && !voter.newer(*st) {
			votes++
		}
	}
	return st.votesFor(st.ID) && votes > len(st.Voters)/2
}

// majorityWithout reports whether, once a member has gone, a majority of those
// left with a vote is there.
func majorityWithout(id raft.ServerID, members []raft.Server, states map[string]state) bool {
	voters, there := 0, 0
	for _, m := range members {
		if m.Suffrage != raft.Voter || m.ID == id {
			continue
		}
		voters++
		if st, ok := states[nodeOf(m.ID)]; ok && st.ID == m.ID {
			there++
		}
	}
	return there > voters/2
}

// near reports whether a replica has nearly all that is committed.
func (st *state) near(committed uint64) bool { return st.Applied+nearEnough >= committed }

// able reports whether a replica can serve soon after it is elected: its store has room,
// and it has applied nearly all that it knows to be committed.
func (st *state) able() bool { return !st.Waits && st.near(st.Commit) }

// whole reports whether every node that should have a replica has one with a vote
// that has caught up: any one of them may then stop without a majority being lost.
func whole(committed uint64, desired []string, members []raft.Server, states map[string]state) bool {
	for _, node := range desired {
		st, ok := states[node]
		if !ok || !st.near(committed) {
			return false
		}
		if !slices.ContainsFunc(members, func(m raft.Server) bool { return m.ID == st.ID && m.Suffrage == raft.Voter }) {
			return false
		}
	}
	return len(desired) > 0
}
