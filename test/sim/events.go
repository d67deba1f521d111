package sim

import (
	"time"

	"github.com/switchboardhub/switchboard/hubnode/directory"
	"github.com/switchboardhub/switchboard/wire"
)

// Connect gives a client a session on a node. What it had elsewhere is not
// ended: the nodes have to find out. A client that forgot has no last epoch to
// show.
func (w *World) Connect(id wire.ClientID, ordinal int, forgot bool) {
	n := w.nodes[ordinal]
	if !n.up {
		return
	}
	var epoch uint64
	if !forgot {
		epoch = w.lastEpoch[id]
	}
	if at, ok := n.table.Locate(id); ok {
		epoch = max(epoch, at.Epoch)
	}
	if held, ok := n.log.Client(id); ok {
		epoch = max(epoch, held)
	}
	epoch++
	w.lastEpoch[id] = epoch
	if was := w.newest[id]; directory.Newer(epoch, n.name, was.epoch, was.node) {
		w.newest[id] = session{epoch, n.name}
	}
	n.held[id] = struct{}{}
	n.log.ClientUp(id, epoch)
	n.changed()
}

// Disconnect ends the client's session on a node, if it has one there.
func (w *World) Disconnect(id wire.ClientID, ordinal int) {
	if n := w.nodes[ordinal]; n.up {
		n.drop(id)
	}
}

func (n *node) drop(id wire.ClientID) {
	if epoch, here := n.log.Client(id); here {
		delete(n.held, id)
		n.log.ClientDown(id, epoch, wire.LeaveGoodbye)
		n.changed()
	}
}

// detectTime is the longest that a node takes to notice that it can't reach
// another one.
const detectTime = 5 * time.Second

// Crash ends a node without farewell. The others notice in their own time.
func (w *World) Crash(ordinal int) {
	n := w.nodes[ordinal]
	if !n.up {
		return
	}
	n.up = false
	for _, other := range w.nodes {
		w.unlink(n, other)
		w.suspect(other, n)
	}
}

// Restart begins a crashed node's next life.
func (w *World) Restart(ordinal int) {
	if n := w.nodes[ordinal]; !n.up {
		w.start(n)
	}
}

// suspect makes a node lose another one later, when it still can't reach it in
// the life that it knew then.
func (w *World) suspect(n, other *node) {
	life := n.members[other.ordinal]
	w.clock.after(w.upTo(detectTime), func() {
		reachable := other.up && other.lives == life && !w.cuts[pair(n.ordinal, other.ordinal)]
		if n.up && n.members[other.ordinal] == life && life != 0 && !reachable {
			n.lose(other)
		}
	})
}

// Break ends the link between two nodes, which are linked again soon.
func (w *World) Break(a, b int) { w.unlink(w.nodes[a], w.nodes[b]) }

// Cut lets nothing pass between two nodes until Heal.
func (w *World) Cut(a, b int) {
	if a == b || w.cuts[pair(a, b)] {
		return
	}
	w.cuts[pair(a, b)] = true
	w.unlink(w.nodes[a], w.nodes[b])
	w.suspect(w.nodes[a], w.nodes[b])
	w.suspect(w.nodes[b], w.nodes[a])
}

// Partition cuts the nodes in two: those in the mask's bits and the others.
func (w *World) Partition(mask uint64) {
	for a := range w.nodes {
		for b := range a {
			if mask>>a&1 != mask>>b&1 {
				w.Cut(a, b)
			}
		}
	}
}

// Heal lets everything pass again; the nodes find each other in their own time.
func (w *World) Heal() {
	for a := range w.nodes {
		for b := range a {
			if w.cuts[pair(a, b)] {
				delete(w.cuts, pair(a, b))
				w.meet(w.nodes[a], w.nodes[b])
				w.dial(w.nodes[a], w.nodes[b])
			}
		}
	}
}

// SetLoss changes how much is lost from now on.
func (w *World) SetLoss(loss float64) { w.cfg.Loss = loss }
