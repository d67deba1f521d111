package hub

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/topic"
	"github.com/switchboardhub/switchboard/wire"
)

// Questions about one topic with history.
const (
	systemDescribe = "topics.describe"
	systemPurge    = "topics.purge"
)

// topicQuestion is the body of a question about one topic.
type topicQuestion struct {
	Topic  string        `json:"topic"`
	Before wire.Sequence `json:"before,omitempty"` // of "topics.purge": what lies before goes; 0: all there is
}

// topicAsked returns which topic a question is about; empty when its body can't be read,
// which is for who answers it to say.
func topicAsked(body []byte) string {
	var q topicQuestion
	if wire.DecodeJSON(body, &q) != nil {
		return ""
	}
	return q.Topic
}

// TopicDetail is the answer to "topics.describe".
type TopicDetail struct {
	Topic        string           `json:"topic"`
	Shard        int              `json:"shard"`
	Leader       string           `json:"leader,omitempty"` // the node; empty: there is none now
	MaxArtifacts int              `json:"maxArtifacts"`     // what the topic keeps at most; 0: it keeps no history
	MaxBytes     int64            `json:"maxBytes,omitempty"`
	MaxAge       float64          `json:"maxAgeSeconds,omitempty"`
	Replicas     []ReplicaOfTopic `json:"replicas"` // those that answered, by node
}

// ReplicaOfTopic is what one node has of a topic.
type ReplicaOfTopic struct {
	Node      string        `json:"node"`
	Leads     bool          `json:"leads"`
	First     wire.Sequence `json:"first"`
	Next      wire.Sequence `json:"next"`
	Artifacts int           `json:"artifacts"`
	Bytes     int64         `json:"bytes"`
	Oldest    *time.Time    `json:"oldest,omitempty"` // when it was stored
	Newest    *time.Time    `json:"newest,omitempty"`
	Logged    uint64        `json:"logged"`                  // the last entry of the shard's log that it has
	Lag       uint64        `json:"lag"`                     // entries of that log that the leader has more
	DiskFull  *time.Time    `json:"diskFullSince,omitempty"` // since when the disk for its history is nearly full
}

// Purged is the answer to "topics.purge".
type Purged struct {
	Topic     string        `json:"topic"`
	First     wire.Sequence `json:"first"`     // the oldest that is left
	Next      wire.Sequence `json:"next"`      // what is published next gets it
	Artifacts uint64        `json:"artifacts"` // that went
}

// askTopic answers a question about one topic, or with here set another node's about
// this one's part in it; ok is false when it is about something else.
func (h *Hub) askTopic(ctx context.Context, question string, here bool, body []byte) (answer any, ok bool, err error) {
	if question != systemDescribe && question != systemPurge {
		return nil, false, nil
	}
	var q topicQuestion
	if err := wire.DecodeJSON(body, &q); err != nil {
		return nil, true, err
	}
	if err := topic.CheckName(q.Topic); err != nil {
		return nil, true, err
	}
	switch {
	case question == systemPurge && here:
		answer, err = h.purgeHere(ctx, q)
	case question == systemPurge:
		answer, err = h.purge(ctx, q)
	case here:
		answer, err = h.replicasHere(q.Topic)
	default:
		answer, err = h.describe(ctx, q)
	}
	return answer, true, err
}

// purge takes artifacts of a topic, on its leader.
func (h *Hub) purge(ctx context.Context, q topicQuestion) (p Purged, err error) {
	switch node, self := h.keeper.Leader(q.Topic); {
	case self:
		return h.purgeHere(ctx, q)
	case node == "":
		return p, h.keeper.Leaderless(q.Topic)
	default:
		return p, h.askJSON(ctx, node, localPrefix+systemPurge, q, &p)
	}
}

func (h *Hub) purgeHere(ctx context.Context, q topicQuestion) (Purged, error) {
	was, err := h.keeper.Bounds(ctx, q.Topic)
	if err != nil {
		return Purged{}, err
	}
	if q.Before == 0 || q.Before > was.Next {
		q.Before = was.Next
	}
	if err := h.keeper.Purge(ctx, q.Topic, q.Before); err != nil {
		return Purged{}, err
	}
	now, err := h.keeper.Bounds(ctx, q.Topic)
	if err != nil {
		return Purged{}, err
	}
	return Purged{Topic: q.Topic, First: now.First, Next: now.Next, Artifacts: uint64(max(q.Before, was.First) - was.First)}, nil
}

// describe puts together what the nodes have of a topic.
func (h *Hub) describe(ctx context.Context, q topicQuestion) (TopicDetail, error) {
	limits := h.LimitsOf(q.Topic)
	d := TopicDetail{Topic: q.Topic, Shard: h.keeper.ShardOf(q.Topic), MaxArtifacts: limits.MaxArtifacts, MaxBytes: limits.MaxBytes, MaxAge: limits.MaxAge.Seconds()}
	d.Leader, _ = h.keeper.Leader(q.Topic)
	var err error
	if d.Replicas, err = h.replicasHere(q.Topic); err != nil {
		return d, err
	}
	h.askAll(ctx, func(ctx context.Context, node string) (func(), error) {
		var there []ReplicaOfTopic
		err := h.askJSON(ctx, node, localPrefix+systemDescribe, q, &there)
		return func() { d.Replicas = append(d.Replicas, there...) }, err
	})
	slices.SortFunc(d.Replicas, func(a, b ReplicaOfTopic) int { return strings.Compare(a.Node, b.Node) })
	var logged uint64 // by the leader
	for _, r := range d.Replicas {
		if r.Leads {
			logged = r.Logged
		}
	}
	for i := range d.Replicas {
		d.Replicas[i].Lag = lag(d.Replicas[i].Logged, logged)
	}
	return d, nil
}

// replicasHere returns what this node has of a topic, none when it has no part in it.
func (h *Hub) replicasHere(name string) ([]ReplicaOfTopic, error) {
	store, held := h.keeper.Held(name)
	if !held {
		return []ReplicaOfTopic{}, nil
	}
	b, ok, err := store.Bounds(name)
	if err != nil {
		return nil, err
	}
	if !ok {
		b.First, b.Next = 1, 1
	}
	r := ReplicaOfTopic{Node: h.remote.Self(), First: b.First, Next: b.Next, Artifacts: b.Artifacts, Bytes: b.Bytes}
	if state, ok := h.replicaHere(name); ok {
		r.Leads, r.Logged, r.DiskFull = state.Leads, state.Logged, state.DiskFull
	}
	if b.Artifacts > 0 {
		r.Oldest, r.Newest = &b.Oldest, &b.Newest
	}
	return []ReplicaOfTopic{r}, nil
}
