package hub

import (
	"context"
	"sync"

	"github.com/switchboardhub/switchboard/wire"
)

// awaiting knows which clients wait for another node's answer to a frame that was
// sent on from here, so that they hear of it when that node is lost. Only frames
// that want an acknowledgement from elsewhere are in it.
type awaiting struct {
	mu    sync.Mutex // guards the fields below
	nodes map[string]map[awaited]struct{}
	none  vacancy
}

type awaited struct {
	client wire.ClientID
	ref    uint32
}

// add notes that node will answer the frame of o. Whoever sends it looks for the link, or
// whether it is still there, after that: a link that goes later has the frame refused.
func (a *awaiting) add(node string, o *origin) {
	if !o.wanted {
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
	a.nodes[node][awaited{o.sender(), o.ref}] = struct{}{}
}

// forget notes that the frame of o was not sent after all. It reports false when o was told
// already, for the node was lost.
func (a *awaiting) forget(o *origin) bool {
	return !o.wanted || a.done([]byte(o.sender()), o.ref)
}

// done notes that the answer has come, from whichever node, and reports whether it was
// awaited.
func (a *awaiting) done(id []byte, ref uint32) (was bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	frame := awaited{string(id), ref}
	for _, frames := range a.nodes {
		if _, is := frames[frame]; is {
			delete(frames, frame)
			was = true
		}
	}
	a.noteLocked()
	return was
}

func (a *awaiting) noteLocked() {
	if a.emptyLocked() {
		a.none.reachedLocked()
	}
}

func (a *awaiting) emptyLocked() bool {
	for _, frames := range a.nodes {
		if len(frames) > 0 {
			return false
		}
	}
	return true
}

// settle returns when everything is answered, or ctx has ended.
func (a *awaiting) settle(ctx context.Context) { a.none.wait(ctx, &a.mu, a.emptyLocked) }

// lost returns what a node will no longer answer.
func (a *awaiting) lost(node string) map[awaited]struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	frames := a.nodes[node]
	delete(a.nodes, node)
	a.noteLocked()
	return frames
}

// refuseAwaited tells the clients that wait for a lost node's answer that it
// will not come.
func (h *Hub) refuseAwaited(node string) {
	in := h.newIntake()
	for frame := range h.awaiting.lost(node) {
		in.refuseTo(frame.client, frame.ref, &wire.Error{
			Code:   wire.CodeUnavailable,
			Detail: "node " + node + " was lost before it answered: the artifact may or may not have arrived",
		})
	}
	in.flush()
}
