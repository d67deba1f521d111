package hub

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
)

// systemPrefix starts the targets that are answered by the hub itself:
// "$hub.clients" and so on.
const systemPrefix = "$hub."

// askingMax bounds the questions of one client that are answered at a time.
const askingMax = 16

// Questions of the hub's own; others are for the System around it.
const (
	systemClients = "clients"
	systemTopics  = "topics"
	localPrefix   = "local." // asked of one node, about that node
)

// ClientInfo is one client in the answer to "clients".
type ClientInfo struct {
	ID               wire.ClientID     `json:"id"`
	Node             string            `json:"node"`
	Epoch            uint64            `json:"epoch"`
	Address          string            `json:"address,omitempty"`
	Name             string            `json:"name,omitempty"`
	Version          string            `json:"version,omitempty"`
	Labels           map[string]string `json:"labels,omitempty"`
	TLS              bool              `json:"tls"`                // its connection is encrypted
	Identity         string            `json:"identity,omitempty"` // who it has proved to be
	ConnectedAt      time.Time         `json:"connectedAt"`
	Away             bool              `json:"away,omitempty"` // its connection is lost, its session waits for it
	Subscriptions    int               `json:"subscriptions"`
	PendingBytes     int               `json:"pendingBytes"`
	RoundTripSeconds float64           `json:"roundTripSeconds"`
	DroppedArtifacts uint64            `json:"droppedArtifacts"`
}

// TopicInfo is one topic, or one pattern that is subscribed to, in the answer
// to "topics".
type TopicInfo struct {
	Topic       string        `json:"topic"`
	Subscribers int           `json:"subscribers"`
	History     bool          `json:"history"`
	Shard       *int          `json:"shard,omitempty"` // that keeps its history
	Node        string        `json:"node,omitempty"`  // that leads the shard
	First       wire.Sequence `json:"first,omitempty"`
	Last        wire.Sequence `json:"last,omitempty"`
	Artifacts   int           `json:"artifacts,omitempty"`
	Bytes       int64         `json:"bytes,omitempty"`
	Oldest      *time.Time    `json:"oldest,omitempty"` // when the oldest artifact that is kept was stored
	Newest      *time.Time    `json:"newest,omitempty"`
}

// topicList is the answer to "topics".
type topicList struct {
	Topics     []TopicInfo `json:"topics"`
	Shards     []ShardInfo `json:"shards"`
	Incomplete bool        `json:"incomplete,omitempty"` // topics may be missing
}

// localTopicList is one node's part of it.
type localTopicList struct {
	Topics     []TopicInfo    `json:"topics"`
	Replicas   []ReplicaState `json:"replicas"`
	Incomplete bool           `json:"incomplete,omitempty"` // topics that this node leads may be missing
}

// Ask answers a question about the whole hub in JSON, asking the other nodes
// where it has to: "clients", "topics", or one of the [System]'s. It returns a
// [NoClientError] for a question that nobody knows.
func (h *Hub) Ask(ctx context.Context, question string) ([]byte, error) {
	if question == systemClients {
		return h.everyClient(ctx)
	}
	return h.ask(ctx, question, nil)
}

// ask answers a client's question. Lists that may be too long for a frame come
// in pages.
func (h *Hub) ask(ctx context.Context, question string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	switch question {
	case systemClients:
		q, err := wire.ParsePageRequest(body)
		if err != nil {
			return nil, err
		}
		page, err := h.clientPage(ctx, q.After)
		if err != nil {
			return nil, err
		}
		return json.Marshal(page)
	case systemTopics:
		all := h.localTopics(ctx)
		answered := h.askAll(ctx, func(ctx context.Context, node string) (func(), error) {
			var there localTopicList
			err := h.askJSON(ctx, node, localPrefix+systemTopics, nil, &there)
			return func() {
				all.Topics, all.Replicas = append(all.Topics, there.Topics...), append(all.Replicas, there.Replicas...)
				all.Incomplete = all.Incomplete || there.Incomplete
			}, err
		})
		shards := shardsOf(all.Replicas)
		return json.Marshal(topicList{mergeTopics(all.Topics), shards, all.Incomplete || !answered || leaderless(shards)})
	}
	if answer, ok, err := h.askTopic(ctx, question, false, body); ok {
		return marshal(answer, err)
	}
	if answer, ok, err := h.askDurables(ctx, question, false, body); ok {
		return marshal(answer, err)
	}
	if h.system != nil {
		if answer, ok, err := h.system(ctx, question, body); ok {
			return answer, err
		}
	}
	return nil, &NoClientError{ID: systemPrefix + question}
}

// answerSystem answers another node's question about this one.
func (h *Hub) answerSystem(ctx context.Context, question string, body []byte) ([]byte, error) {
	switch question {
	case localPrefix + systemClients:
		var q localPageRequest
		if err := wire.DecodeJSON(body, &q); err != nil {
			return nil, err
		}
		page, err := h.localClientPage(q.After, q.MaxBytes)
		if err != nil {
			return nil, err
		}
		return json.Marshal(page)
	case localPrefix + systemTopics:
		return json.Marshal(h.localTopics(ctx))
	}
	if answer, ok, err := h.askTopic(ctx, strings.TrimPrefix(question, localPrefix), true, body); ok {
		return marshal(answer, err)
	}
	if answer, ok, err := h.askDurables(ctx, strings.TrimPrefix(question, localPrefix), true, body); ok {
		return marshal(answer, err)
	}
	if h.system != nil {
		if answer, ok, err := h.system(ctx, question, body); ok {
			return answer, err
		}
	}
	return nil, &wire.Error{Code: wire.CodeInvalidRequest, Detail: "unknown question: " + question}
}

// marshal returns an answer as JSON, unless there is an error instead.
func marshal(answer any, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return json.Marshal(answer)
}

// beginAsking counts a question of the client's that is about to be answered, or returns why
// it can't be. Who answers it takes one from asking then.
func (c *Client) beginAsking() error {
	if c.asking.Add(1) > askingMax {
		c.asking.Add(-1)
		return overloaded("too many questions at a time: wait for the answers")
	}
	return nil
}

// askSystem answers a client's request to the hub itself. It may mean asking
// other nodes, so it does not hold up the connection.
func (c *Client) askSystem(in *intake, f wire.Frame) {
	target, ref, body := string(f.Target()), f.Ref(), questionBody(f)
	if err := c.mayAsk(target, body); err != nil {
		c.refuse(in, ref, err)
		return
	}
	if f.Flags()&wire.FlagAck != 0 {
		c.ack(in, ref, 0, f.Count(), 0)
	}
	if f.Flags()&wire.FlagRequest == 0 {
		return
	}
	if err := c.beginAsking(); err != nil {
		c.refuse(in, ref, err)
		return
	}
	c.hub.spawn(func() {
		defer c.asking.Add(-1)
		answer, err := c.hub.ask(c.hub.life, strings.TrimPrefix(target, systemPrefix), body)
		if err != nil {
			c.refuse(nil, ref, err)
			return
		}
		var run wire.Run
		a := wire.Artifact{ID: c.hub.ids.Next(), Time: time.Now(), ContentType: "application/json", Payload: answer}
		if err := run.Append(&a, len(answer)+wire.MaxContentType); err != nil {
			c.refuse(nil, ref, err)
			return
		}
		h := wire.Header{Kind: wire.KindReply, Count: 1, Ref: ref}
		c.answer(nil, wire.AppendFrame(nil, h, c.id, target, run.Body()))
	})
}

func (h *Hub) localTopics(ctx context.Context) localTopicList {
	all := []TopicInfo{}
	h.mu.Lock()
	for name, n := range h.interests {
		pattern, _ := splitInterest(name)
		all = append(all, TopicInfo{Topic: pattern, Subscribers: n})
	}
	h.mu.Unlock()
	before := h.keeper.Replicas()
	_, err := h.keeper.Led(ctx, func(name string, b history.Bounds) {
		if h.LimitsOf(name).MaxArtifacts == 0 && b.Artifacts == 0 {
			return // it kept history once
		}
		shard := h.keeper.ShardOf(name)
		info := TopicInfo{
			Topic: name, History: true, Shard: &shard, Node: h.remote.Self(),
			First: b.First, Last: b.Next - 1, Artifacts: b.Artifacts, Bytes: b.Bytes,
		}
		if b.Artifacts > 0 {
			info.Oldest, info.Newest = &b.Oldest, &b.Newest
		}
		all = append(all, info)
	})
	if err != nil {
		h.log.Warn("topics not listed in full", logError(err))
	}
	now := h.keeper.Replicas()
	return localTopicList{mergeTopics(all), now, err != nil || !slices.Equal(leading(before), leading(now))}
}

// leading returns the shards of those replicas that lead, in order.
func leading(replicas []ReplicaState) []int {
	var shards []int
	for _, r := range replicas {
		if r.Leads {
			shards = append(shards, r.Shard)
		}
	}
	slices.Sort(shards)
	return shards
}

// mergeTopics makes one line of what several nodes say of a topic.
func mergeTopics(all []TopicInfo) []TopicInfo {
	slices.SortStableFunc(all, func(a, b TopicInfo) int { return strings.Compare(a.Topic, b.Topic) })
	merged := []TopicInfo{}
	for _, t := range all {
		if n := len(merged); n > 0 && merged[n-1].Topic == t.Topic {
			subscribers := merged[n-1].Subscribers + t.Subscribers
			if t.History {
				merged[n-1] = t
			}
			merged[n-1].Subscribers = subscribers
			continue
		}
		merged = append(merged, t)
	}
	return merged
}
