package hub

import (
	"context"

	"github.com/switchboardhub/switchboard/hubnode/outbox"
	"github.com/switchboardhub/switchboard/wire"
)

// Remote is the rest of a cluster as one node's hub sees it. Its methods are
// safe for concurrent use; all but Ask return at once.
type Remote interface {
	// Self returns this node's name.
	Self() string
	// Locate returns the node that holds a client and its session's epoch, by
	// what this node has heard.
	Locate(id wire.ClientID) (node string, epoch uint64, ok bool)
	// Ask puts a question to a node's hub, which answers with Answer.
	Ask(ctx context.Context, node, question string, body []byte) ([]byte, error)

	// The changes that other nodes hear of. They are called with the hub's
	// lock held, in order.

	ClientUp(id wire.ClientID, epoch uint64)
	ClientDown(id wire.ClientID, epoch uint64, reason wire.LeaveReason)
	InterestUp(name string)
	InterestDown(name string)
}

// Link carries frames to one other node. Pushing never blocks;
// *[outbox.Outbox] is a Link.
type Link interface {
	Push(head, tail []byte, slab *wire.Slab) outbox.Verdict
	PushControl(frame []byte) outbox.Verdict
	Flush()
	FlushAside() // is Flush that does not write by itself
}

// alone is the Remote of a hub that is not part of a cluster.
type alone struct{}

func (alone) Self() string                                       { return "" }
func (alone) Locate(string) (string, uint64, bool)               { return "", 0, false }
func (alone) ClientUp(wire.ClientID, uint64)                     {}
func (alone) ClientDown(wire.ClientID, uint64, wire.LeaveReason) {}
func (alone) InterestUp(string)                                  {}
func (alone) InterestDown(string)                                {}
func (alone) Ask(context.Context, string, string, []byte) ([]byte, error) {
	return nil, &wire.Error{Code: wire.CodeUnavailable, Detail: "this hub has no other nodes"}
}
