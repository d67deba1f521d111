package hub

import (
	"sync"

	"github.com/switchboardhub/switchboard/wire"
)

// awaiting knows which clients of this hub wait for another node's answer to a
// frame, so that they hear of it when that node is lost. Only frames that want
// an acknowledgement from elsewhere are in it.
type awaiting struct {
	mu    sync.Mutex                    // guards nodes
	nodes map[string]map[awaited]*route // the topic of a publish, nil for a send
}

type awaited struct {
	client wire.ClientID
	ref    uint32
}

// add notes that node will answer the frame of o, which is for the topic of r
// when r is not nil.
func (a *awaiting) add(node string, o *origin, r *route) {
	if o.client == nil || !o.wanted {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.nodes[node] == nil {
		if a.nodes == nil {
			a.nodes = make(map[string]map[awaited]*route)
		}
		a.nodes[node] = make(map[awaited]*route)
	}
	a.nodes[node][awaited{o.client.id, o.ref}] = r
}

// forget notes that the frame of o was not sent after all.
func (a *awaiting) forget(o *origin) {
	if o.client != nil && o.wanted {
		a.done([]byte(o.client.id), o.ref)
	}
}

// done notes that the answer has come, from whichever node, and returns the
// topic that the frame was published to, nil when it was not.
func (a *awaiting) done(id []byte, ref uint32) *route {
	a.mu.Lock()
	defer a.mu.Unlock()
	frame := awaited{string(id), ref}
	for _, frames := range a.nodes {
		if r, ok := frames[frame]; ok {
			delete(frames, frame)
			return r
		}
	}
	return nil
}

// lost returns what a node will no longer answer.
func (a *awaiting) lost(node string) map[awaited]*route {
	a.mu.Lock()
	defer a.mu.Unlock()
	frames := a.nodes[node]
	delete(a.nodes, node)
	return frames
}

// refuseAwaited tells the clients that wait for a lost node's answer that it
// will not come. Publishing again may store an artifact twice.
func (h *Hub) refuseAwaited(node string) {
	for frame := range h.awaiting.lost(node) {
		h.refuseHere(nil, frame.client, frame.ref, &wire.Error{
			Code:   wire.CodeUnavailable,
			Detail: "node " + node + " was lost before it answered: the artifact may or may not have arrived",
		})
	}
}
