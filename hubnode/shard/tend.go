package shard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
)

// The questions that shards put to each other.
const (
	questionState   = "shard.state"   // what is your replica of this shard like?
	questionPage    = "shard.page"    // a stretch of a topic's history in your store; nodes of the version before ask so
	questionStretch = "shard.stretch" // the same, of the replica that is meant, if it holds what has to be there
	questionClose   = "shard.close"   // your replica is not a member any more
	questionMember  = "shard.member"  // is my replica still a member of the group that you lead?
)

const (
	// membershipTime bounds one change of a group's members.
	membershipTime = 10 * time.Second
	// nearEnough is how many entries a new replica may be behind when it gets
	// its vote.
	nearEnough = 256
	// orphanedAfter is how long a group is without a leader, in heartbeats,
	// before its replicas look whether a majority of it is gone for good.
	orphanedAfter = 6
	// restAfter is how long a group has been as it should be, in looks, before
	// its leadership moves to where it should be.
	restAfter = 4
)

// state says what a node's replica of a shard is like.
type state struct {
	ID      raft.ServerID `json:"id"`
	Member  bool          `json:"member"` // it has members in its configuration
	Voters  []string      `json:"voters"` // by their ids
	Term    uint64        `json:"term"`   // of its last log entry
	Last    uint64        `json:"last"`   // its last log entry
	Applied uint64        `json:"applied"`
	Commit  uint64        `json:"commit"`
	Leads   bool          `json:"leads"`
	Linked  []string      `json:"linked"` // the other nodes that there is a link to
	// Waits says that its store has no room, so that it applies nothing. A node of the
	// version before never says so.
	Waits bool `json:"waits,omitempty"`
	// Elects says that its node looks at who can be elected before a replica goes on alone.
	// One of the version before does not, and never says so.
	Elects bool `json:"elects,omitempty"`
}

func (r *replica) state() state {
	st := state{
		ID: r.id, Last: r.raft.LastIndex(), Applied: r.machine.applied.Load(), Commit: r.raft.CommitIndex(),
		Leads: r.servesNow(), Term: r.lastTerm(), Linked: r.s.cfg.Linked(),
		Waits: r.machine.waits.Load(), Elects: true,
	}
	for _, m := range r.members() {
		st.Member = true
		if m.Suffrage == raft.Voter {
			st.Voters = append(st.Voters, string(m.ID))
		}
	}
	return st
}

// lastTerm returns the term of the last log entry.
func (r *replica) lastTerm() uint64 {
	last := r.raft.LastIndex()
	var l raft.Log
	if last > 0 && r.logs.entries.GetLog(last, &l) == nil {
		return l.Term
	}
	if metas, err := r.snaps.List(); err == nil && len(metas) > 0 {
		return metas[0].Term
	}
	return 0
}

// Answer answers another node's question about shards; ok is false for other
// questions.
func (s *Shards) Answer(ctx context.Context, about string, body []byte) (answer []byte, ok bool, err error) {
	switch about {
	case questionState:
		var n int
		if err := wire.DecodeJSON(body, &n); err != nil {
			return nil, true, err
		}
		var st state // of a shard that has nothing to do with this node
		if s.belongs(n) || s.replica(n) != nil || s.hasState(n) {
			r, err := s.open(n)
			if err != nil {
				return nil, true, err
			}
			st = r.state()
		}
		answer, err = json.Marshal(st)
		return answer, true, err
	case questionPage, questionStretch:
		decode := decodeStretch
		if about == questionPage {
			decode = decodePage
		}
		q, err := decode(body)
		if err != nil {
			return nil, true, err
		}
		answer, err = s.answerStretch(q)
		return answer, true, err
	case questionClose:
		var q question
		if err := wire.DecodeJSON(body, &q); err != nil {
			return nil, true, err
		}
		if r := s.replica(q.Shard); r != nil && r.id == q.ID {
			err = s.remove(r)
		}
		return nil, true, err
	case questionMember:
		var q question
		if err := wire.DecodeJSON(body, &q); err != nil {
			return nil, true, err
		}
		is, err := s.isMember(ctx, q)
		if err != nil {
			return nil, true, err
		}
		answer, err = json.Marshal(is)
		return answer, true, err
	}
	return nil, false, nil
}

// question is about a replica by its id.
type question struct {
	Shard int           `json:"shard"`
	ID    raft.ServerID `json:"id"`
}

// isMember reports whether a replica, which knows of a group, is a member of the one
// that this node leads. When it is not it never will be again.
func (s *Shards) isMember(ctx context.Context, q question) (bool, error) {
	r := s.replica(q.Shard)
	if r == nil {
		return false, errNotLeader
	}
	is := slices.ContainsFunc(r.members(), func(m raft.Server) bool { return m.ID == q.ID })
	return is, r.verify(ctx) // after the look: what a leader of before knew says nothing
}

func (s *Shards) askState(ctx context.Context, node string, n int) (state, error) {
	if node == s.cfg.Self {
		r, err := s.open(n)
		if err != nil {
			return state{}, err
		}
		return r.state(), nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	body, err := json.Marshal(n)
	if err != nil {
		return state{}, err
	}
	answer, err := s.cfg.Ask(ctx, node, questionState, body)
	if err != nil {
		return state{}, err
	}
	var st state
	return st, wire.DecodeJSON(answer, &st)
}

// tend keeps the group as it should be, as far as it is up to this replica.
func (r *replica) tend() {
	tick := time.NewTicker(r.s.cfg.Timing.Tend)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-r.poked:
		case <-r.stop:
			return
		}
		if r.failed.Load() != nil || r.unsynced.Load() != nil {
			r.s.Wake() // to be made anew, or its log
			continue
		}
		if err := r.tendOnce(r.life); err != nil && r.life.Err() == nil {
			r.log.Debug("group not tended", slog.Any("error", err))
		}
	}
}

func (r *replica) tendOnce(ctx context.Context) error {
	if r.servesNow() {
		r.leaderless = time.Time{}
		return r.tendMembers(ctx)
	}
	r.settled = time.Time{}
	if _, leader := r.raft.LeaderWithID(); leader != "" || r.raft.State() == raft.Leader {
		r.leaderless = time.Time{}
		return nil
	}
	now := time.Now()
	if r.leaderless.IsZero() {
		r.leaderless = now
	}
	members := r.members()
	if leader, _ := r.s.leaderOf(r.n); leader != "" && leader != r.s.cfg.Self {
		if len(members) == 0 {
			return nil // to be added
		}
		return r.leave(ctx, leader)
	}
	switch {
	case len(members) == 0:
		return r.found(ctx)
	case !slices.ContainsFunc(members, func(m raft.Server) bool { return m.ID == r.id }):
		return nil
	case now.Sub(r.leaderless) > orphanedAfter*r.s.cfg.Timing.Heartbeat:
		return r.survive(ctx, members)
	}
	return nil
}

// leave ends a replica that a group goes on without: one that was removed while its
// node was away, and comes back with its old log. That it was a member once says
// nothing about what it holds since: it is made anew, where it belongs, and never
// added as what it was.
func (r *replica) leave(ctx context.Context, leader string) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	body, err := json.Marshal(question{r.n, r.id})
	if err != nil {
		return err
	}
	answer, err := r.s.cfg.Ask(ctx, leader, questionMember, body)
	if err != nil {
		return fmt.Errorf("ask node %s whether this replica is a member: %w", leader, err)
	}
	member := true
	if err := wire.DecodeJSON(answer, &member); err != nil || member {
		return err
	}
	r.log.Info("the group went on without this node's replica, which ends", slog.String("leader", leader))
	r.dropped.Store(true)
	r.s.Wake() // which removes it
	return nil
}

// found begins the life of a group. It takes all the nodes that replicas belong
// on, and nobody who knows of a group: what is there must not be begun twice.
// Only the first of them does it.
func (r *replica) found(ctx context.Context) error {
	desired := r.s.cfg.Desired(r.n)
	if len(desired) == 0 || desired[0] != r.s.cfg.Self || !r.s.cfg.Settled() {
		return nil
	}
	var members raft.Configuration
	for _, node := range desired {
		st, err := r.s.askState(ctx, node, r.n)
		if err != nil {
			return fmt.Errorf("ask node %s: %w", node, err)
		}
		if st.Member {
			return nil // it will be added, or that group has to be saved
		}
		members.Servers = append(members.Servers, server(st.ID))
	}
	for _, node := range r.s.cfg.Linked() {
		if slices.Contains(desired, node) {
			continue
		}
		if st, err := r.s.askState(ctx, node, r.n); err != nil || st.Member {
			return err
		}
	}
	if err := r.raft.BootstrapCluster(members).Error(); err != nil {
		return fmt.Errorf("begin the group: %w", err)
	}
	r.log.Info("history begins", slog.Any("nodes", desired))
	r.stand()
	return nil
}

// stand makes this replica a candidate now and not after a silence.
func (r *replica) stand() {
	answer := make(chan raft.RPCResponse, 1)
	select {
	case r.trans.consumer <- raft.RPC{Command: &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}}, RespChan: answer}:
	case <-r.stop:
	}
}

// survive saves a group that can't elect a leader any more, mostly because its majority is
// gone for good: their nodes are there, under new ids. Of those that are left the one that
// knows most goes on alone; the others are made anew. What only the lost ones held is lost.
func (r *replica) survive(ctx context.Context, members []raft.Server) error {
	own := r.state()
	states := map[string]state{r.s.cfg.Self: own}
	for _, node := range r.around(append(slices.Clone(r.s.cfg.Desired(r.n)), r.s.cfg.Linked()...), members) {
		if node == r.s.cfg.Self {
			continue
		}
		st, err := r.s.askState(ctx, node, r.n)
		if err != nil {
			return fmt.Errorf("ask node %s: %w", node, err) // it may come back as what it was
		}
		states[node] = st
	}
	voters, alive, alone := goesOnAlone(own, members, states)
	if !alone {
		return nil
	}
	if alive > voters/2 {
		r.log.Warn("the leader was lost for good while it gave this replica a vote, of which the others don't know: going on with what this node has, which is all that was acknowledged",
			slog.Int("replicas", voters), slog.Int("left", alive))
	} else {
		r.log.Error("a majority of a shard's replicas is lost for good: going on with what this node has; what was acknowledged and had not reached it is lost",
			slog.Int("replicas", voters), slog.Int("left", alive))
		r.s.recovered.Add(1)
	}
	r.forsaken.Store(true)
	r.s.Wake() // which revives it
	return nil
}

// revive starts a replica again that was left alone, as the only member of its
// group.
func (s *Shards) revive(old *replica) error {
	if !s.begin(old) {
		return nil
	}
	old.halt()
	m := newMachine(old.store)
	m.limits, m.outlet = s.cfg.Limits, s.cfg.Outlet()
	m.pull = func(*snapshot) error { return nil } // the store has it
	m.broken = func(err error) { old.log.Error("a record can't be applied", slog.Any("error", err)) }
	trans := newTransport(old.n, old.id, s.cfg.Self, s.bundles)
	only := raft.Configuration{Servers: []raft.Server{server(old.id)}}
	err := errors.Join(raft.RecoverCluster(old.config(), survivor{m}, old.logs.entries, old.logs.votes, old.snaps, trans, only), trans.Close())
	r := s.vacant(old.n, old.dir, old.id, old.store)
	r.logs, r.snaps = old.logs, old.snaps
	r.logs.tell(r)
	if err == nil {
		err = r.start()
	}
	if err != nil {
		r.end()
		s.finish(old.n, nil)
		return errors.Join(err, old.logs.close())
	}
	if !s.finish(old.n, r) {
		r.close()
	}
	return nil
}

// survivor is the machine of a replica that goes on alone, when all of its log is applied.
type survivor struct{ *machine }

// Snapshot implements raft.FSM. What was fetched of another replica's snapshot, before that
// was lost with the others, is kept: topics go on behind it.
func (m survivor) Snapshot() (raft.FSMSnapshot, error) {
	err := m.store.Topics(func(topic string, b history.Bounds) bool {
		if t := m.topic([]byte(topic)); b.Next > wire.Sequence(t.next.Load()) {
			t.next.Store(uint64(b.Next))
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	return m.machine.Snapshot()
}

// tendMembers brings the group's members to where they should be, one change at
// a time. Only the leader does it.
func (r *replica) tendMembers(ctx context.Context) error {
	desired := r.s.cfg.Desired(r.n)
	members := r.members()
	states := make(map[string]state) // of the nodes that answer
	for _, node := range r.around(desired, members) {
		if st, err := r.s.askState(ctx, node, r.n); err == nil {
			states[node] = st
		}
	}
	r.whole.Store(whole(r.raft.CommitIndex(), desired, members, states))
	step := nextStep(r.s.cfg.Self, r.raft.CommitIndex(), desired, members, states)
	if step == nil {
		r.rest(ctx, desired, members, states)
		return nil
	}
	r.settled = time.Time{}
	r.log.Debug("members change", slog.String("step", string(step.what)), slog.String("replica", string(step.id)))
	if step.what == giveWay {
		return r.transfer(ctx, []raft.ServerID{step.id})
	}
	if err := r.ask(func() raft.Future { return r.change(step) }); err != nil {
		return err
	}
	if step.what == removeReplica && states[step.node].ID == step.id {
		r.dismiss(ctx, step.node, step.id)
	}
	r.poke()
	return nil
}

// change begins a change of the members.
func (r *replica) change(by *step) raft.Future {
	switch by.what {
	case addReplica:
		return r.raft.AddNonvoter(by.id, server(by.id).Address, 0, membershipTime)
	case giveVote:
		return r.raft.AddVoter(by.id, server(by.id).Address, 0, membershipTime)
	default:
		return r.raft.RemoveServer(by.id, 0, membershipTime)
	}
}

// around returns the nodes that have to do with the group, each once.
func (r *replica) around(others []string, members []raft.Server) []string {
	var nodes []string
	for _, node := range others {
		if !slices.Contains(nodes, node) {
			nodes = append(nodes, node)
		}
	}
	for _, m := range members {
		if !slices.Contains(nodes, nodeOf(m.ID)) {
			nodes = append(nodes, nodeOf(m.ID))
		}
	}
	return nodes
}

// dismiss tells a node that its replica is not a member any more.
func (r *replica) dismiss(ctx context.Context, node string, id raft.ServerID) {
	body, err := json.Marshal(question{r.n, id})
	if err == nil {
		_, err = r.s.cfg.Ask(ctx, node, questionClose, body)
	}
	if err != nil {
		r.log.Debug("replica not dismissed", slog.String("peer", node), slog.Any("error", err))
	}
}

// rest moves the leadership to the node it should be on, once nothing else has
// been left to do for a while.
func (r *replica) rest(ctx context.Context, desired []string, members []raft.Server, states map[string]state) {
	now := time.Now()
	if r.settled.IsZero() {
		r.settled = now
	}
	if now.Sub(r.settled) < restAfter*r.s.cfg.Timing.Tend || len(desired) == 0 || desired[0] == r.s.cfg.Self {
		return
	}
	st, ok := states[desired[0]]
	if !ok || !st.near(r.raft.CommitIndex()) {
		return
	}
	for _, m := range members {
		if m.ID == st.ID && m.Suffrage == raft.Voter {
			r.settled = now // not again at once
			if err := r.transfer(ctx, []raft.ServerID{m.ID}); err != nil {
				r.log.Debug("leadership not moved", slog.Any("error", err))
			}
			return
		}
	}
}

// otherVoters returns the other members that can be elected.
func (r *replica) otherVoters() []raft.ServerID {
	var others []raft.ServerID
	for _, m := range r.members() {
		if m.Suffrage == raft.Voter && m.ID != r.id {
			others = append(others, m.ID)
		}
	}
	return others
}

// handOver gives the leadership away, when there is somebody to take it.
func (r *replica) handOver(ctx context.Context) {
	for r.servesNow() && ctx.Err() == nil {
		others := r.otherVoters()
		if len(others) == 0 || r.transfer(ctx, others) == nil {
			return
		}
		select {
		case <-time.After(r.s.cfg.Timing.Heartbeat / 4):
		case <-ctx.Done():
		case <-r.stop:
			return
		}
	}
}
