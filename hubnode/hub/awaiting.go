package hub

import (
	"sync"

	"github.com/switchboardhub/switchboard/wire"
)

// awaiting knows which clients of this hub wait for another node's answer to a
// frame, so that they hear of it when that node is lost. Only frames that want
// an acknowledgement from elsewhere are in it.
type awaiting struct {
	mu    sync.Mutex // guards nodes
	nodes map[string]map[awaited]struct{}
}

type awaited struct {
	client wire.ClientID
	ref    uint32
}

// add notes that node will answer the frame of o.
func (a *awaiting) add(node string, o *origin) {
	if o.client == nil || !o.wanted {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.nodes[node] == nil {
		if a.nodes == nil {
			a.nodes = make(map[string]map[awaited]struct{})
		}
		a.nodes[node] = make(map[awaited]struct{})
	}
	a.nodes[node][awaited{o.client.id, o.ref}] = struct{}{}
}

// forget notes that the frame of o was not sent after all.
func (a *awaiting) forget(o *origin) {
	if o.client != nil && o.wanted {
		a.done([]byte(o.client.id), o.ref)
	}
}

// done notes that the answer has come, from whichever node.
func (a *awaiting) done(id []byte, ref uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	frame := awaited{string(id), ref}
	for _, frames := range a.nodes {
		delete(frames, frame)
	}
}

// lost returns what a node will no longer answer.
func (a *awaiting) lost(node string) map[awaited]struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	frames := a.nodes[node]
	delete(a.nodes, node)
	return frames
}

// refuseAwaited tells the clients that wait for a lost node's answer that it
// will not come.
func (h *Hub) refuseAwaited(node string) {
	for frame := range h.awaiting.lost(node) {
		h.refuseHere(nil, frame.client, frame.ref, &wire.Error{
			Code:   wire.CodeUnavailable,
			Detail: "node " + node + " was lost before it answered: the artifact may or may not have arrived",
		})
	}
}
