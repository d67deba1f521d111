package hub

import (
	"cmp"
	"context"
	"slices"

	"github.com/switchboardhub/switchboard/hubnode/durable"
	"github.com/switchboardhub/switchboard/wire"
)

// Questions about durable subscriptions.
const (
	systemDurables      = "durables"
	systemDurableDelete = "durables.delete"
)

// durableQuestion is the body of a question about durable subscriptions.
type durableQuestion struct {
	Topic string `json:"topic,omitempty"` // empty: of all topics
	Name  string `json:"name,omitempty"`  // of "durables.delete"
}

// DurableList is the answer to "durables".
type DurableList struct {
	Durables   []wire.DurableInfo `json:"durables"`
	Incomplete bool               `json:"incomplete,omitempty"` // some may be missing
}

// localDurableList is one node's part of it.
type localDurableList struct {
	DurableList
	Replicas []ReplicaState `json:"replicas"` // nil: the node is of a version that does not tell
}

// askDurables answers a question about durable subscriptions, or with here set another
// node's about the topics that this one leads; ok is false when it is about something
// else.
func (h *Hub) askDurables(ctx context.Context, question string, here bool, body []byte) (answer any, ok bool, err error) {
	if question != systemDurables && question != systemDurableDelete {
		return nil, false, nil
	}
	var q durableQuestion
	if len(body) > 0 {
		if err := wire.DecodeJSON(body, &q); err != nil {
			return nil, true, err
		}
	}
	switch {
	case question == systemDurables && here:
		return h.localDurables(q), true, nil
	case question == systemDurables:
		return h.durables(ctx, q), true, nil
	}
	answer, err = q, h.deleteDurable(ctx, q, here)
	return answer, true, err
}

// durables lists the durable subscriptions of all nodes' topics.
func (h *Hub) durables(ctx context.Context, q durableQuestion) DurableList {
	all, told := h.localDurables(q), true
	answered := h.askAll(ctx, func(ctx context.Context, node string) (func(), error) {
		var there localDurableList
		err := h.askJSON(ctx, node, localPrefix+systemDurables, q, &there)
		return func() {
			all.Durables, all.Replicas = append(all.Durables, there.Durables...), append(all.Replicas, there.Replicas...)
			all.Incomplete, told = all.Incomplete || there.Incomplete, told && there.Replicas != nil
		}, err
	})
	list := all.DurableList
	list.Incomplete = list.Incomplete || !answered || told && leaderless(shardsOf(all.Replicas))
	slices.SortFunc(list.Durables, func(a, b wire.DurableInfo) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Name, b.Name))
	})
	return list
}

func (h *Hub) localDurables(q durableQuestion) localDurableList {
	before := h.keeper.Replicas()
	all := slices.DeleteFunc(h.keeper.Durables(), func(d wire.DurableInfo) bool { return q.Topic != "" && d.Topic != q.Topic })
	now := h.keeper.Replicas()
	list := DurableList{Durables: append([]wire.DurableInfo{}, all...), Incomplete: !slices.Equal(leading(before), leading(now))}
	return localDurableList{list, append([]ReplicaState{}, now...)}
}

// deleteDurable deletes a durable subscription, on its topic's leader.
func (h *Hub) deleteDurable(ctx context.Context, q durableQuestion, here bool) error {
	node, self := h.keeper.Leader(q.Topic)
	switch {
	case self || here:
		_, err := h.keeper.Fetch(ctx, q.Topic, q.Name, durable.Request{Drop: true})
		return err
	case node == "":
		return h.keeper.Leaderless(q.Topic)
	}
	return h.askJSON(ctx, node, localPrefix+systemDurableDelete, q, nil)
}
