package hub

import (
	"context"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/durable"
	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
)

// Publisher says which of a client's frames a frame is, so that it is stored
// once however often it is sent.
type Publisher struct {
	ID     uint64 // of one life of a client; 0: its frames are not numbered
	Number uint64 // of the frame, among those of this publisher to this topic; rises by 1
	Oldest bool   // what has lower numbers is settled: this may follow a hole
	// At is the sequence that the frame's first artifact has to get, or the frame is
	// not stored. 0: whichever comes next.
	At wire.Sequence
}

// Keeper keeps the topics with history, for all nodes of a cluster. Its methods
// are safe for concurrent use. What it has stored it gives to a [Stage] for
// delivery, in the order of the sequences of each topic.
type Keeper interface {
	// Leader returns the node that stores what is published to a topic; node is
	// empty while there is none.
	Leader(topic string) (node string, self bool)
	// Leaderless returns the error for a topic without a leader.
	Leaderless(topic string) error
	// Append stores the artifacts of a frame whose body begins with skip bytes
	// that are not theirs. The frame is copied. It is for the leader, and does not
	// wait: done hears what came of it, once, unless Append returns an error.
	Append(f wire.Frame, skip int, by Publisher, done func(st *Stage, first wire.Sequence, err error)) error
	// Bounds returns what a topic holds; for the leader, with all that was
	// acknowledged before the call.
	Bounds(ctx context.Context, topic string) (history.Bounds, error)
	// Led visits the topics that this node leads, as Bounds returns them, and returns
	// the shards of which those were all. An error says that some may be missing.
	Led(ctx context.Context, visit func(topic string, b history.Bounds)) (shards []int, err error)
	// Purge takes what a topic holds before a sequence, on all nodes; for the
	// leader.
	Purge(ctx context.Context, topic string, before wire.Sequence) error
	// Begin makes a topic that nothing was ever published to begin at a sequence; for
	// the leader.
	Begin(ctx context.Context, topic string, next wire.Sequence) error
	// Fetch does what a member of a durable subscription of a topic says and wants;
	// for the leader.
	Fetch(ctx context.Context, topic, name string, r durable.Request) (durable.Grant, error)
	// AwaitFetch returns what there is for a member; news is closed when there may be
	// more. For the leader.
	AwaitFetch(topic, name, member string) (o durable.Outlook, news <-chan struct{}, err error)
	// Durables returns the durable subscriptions of the topics that this node leads.
	Durables() []wire.DurableInfo
	// ShardOf returns the number of the shard that keeps a topic.
	ShardOf(topic string) int
	// ShardCount returns how many shards there are, on all nodes.
	ShardCount() int
	// Replicas returns how this node's replicas of shards are.
	Replicas() []ReplicaState
	// Held returns what this node has of a topic, as leader or as a follower that
	// may be behind; ok is false when it has no part in it.
	Held(topic string) (store history.Store, ok bool)
	// Size returns what this node has of all topics.
	Size() (artifacts int, bytes int64)
	// Retain applies what topics are to keep now.
	Retain(now time.Time)
}

// Stage delivers what a [Keeper] has stored. It is for one goroutine.
type Stage struct{ in *intake }

// NewStage returns a stage for one goroutine of a [Keeper].
func (h *Hub) NewStage() *Stage { return &Stage{in: h.newIntake()} }

// Deliver brings a stored frame to those who listen. The frame must never
// change.
func (st *Stage) Deliver(f wire.Frame, first wire.Sequence) {
	r, err := st.in.route(f.Target())
	if err != nil {
		return // it was checked when it was published
	}
	p := st.in.take(f, nil)
	p.seq = first
	st.in.fanOut(r, st.in.hub.resolve(r), p)
}

// Flush sees to the writing of what was delivered and answered.
func (st *Stage) Flush() { st.in.flush() }

// LimitsOf returns what a topic keeps.
func (h *Hub) LimitsOf(topic string) history.Limits {
	limits, _ := h.settings.Load().rule(topic)
	return limits
}

// LeaderMoved makes the hub look anew at topics whose leader has changed: what
// the one before had stored may not have reached everybody.
func (h *Hub) LeaderMoved(affected func(topic string) bool) {
	h.spawn(func() { h.recheck(affected) })
}
