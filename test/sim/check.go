package sim

import (
	"fmt"

	"github.com/switchboardhub/switchboard/hubnode/directory"
	"github.com/switchboardhub/switchboard/wire"
)

// Current reports whether every node holds the newest version of every other
// node's part and nothing of nodes that are down. It is cheap.
func (w *World) Current() bool {
	up := 0
	for _, n := range w.nodes {
		if n.up {
			up++
		}
	}
	for _, n := range w.nodes {
		if !n.up {
			continue
		}
		versions := n.table.Versions()
		if len(versions) != up-1 {
			return false
		}
		for _, other := range w.nodes {
			if v, ok := versions[other.log.Owner()]; other != n && other.up && (!ok || v != other.log.Version()) {
				return false
			}
		}
	}
	return true
}

// Check compares what the nodes believe with what is the case, and says what is
// wrong. It is for a world that is Current.
func (w *World) Check() error {
	truth := make(map[wire.ClientID]directory.Location)
	for _, n := range w.nodes {
		if !n.up {
			continue
		}
		if len(n.held) != n.log.Clients() {
			return fmt.Errorf("%s holds %d clients and says %d", n.name, len(n.held), n.log.Clients())
		}
		for id := range n.held {
			epoch, _ := n.log.Client(id)
			if at, twice := truth[id]; twice {
				return fmt.Errorf("client %q is on %s and on %s", id, at.Node, n.name)
			}
			truth[id] = directory.Location{Node: n.name, Epoch: epoch}
		}
	}
	for _, n := range w.nodes {
		if !n.up {
			continue
		}
		known := 0
		for id, want := range truth {
			got, ok := n.table.Locate(id)
			if want.Node == n.name {
				if ok {
					return fmt.Errorf("%s believes its client %q on %s", n.name, id, got.Node)
				}
				continue
			}
			known++
			if !ok || got != want {
				return fmt.Errorf("%s believes client %q at %v, want %v", n.name, id, got, want)
			}
		}
		if n.table.Len() != known {
			return fmt.Errorf("%s knows %d clients of others, want %d", n.name, n.table.Len(), known)
		}
	}
	return nil
}

// Open returns, of each client's sessions that are open now, the newest.
func (w *World) Open() map[wire.ClientID]directory.Location {
	open := make(map[wire.ClientID]directory.Location)
	for _, n := range w.nodes {
		if !n.up {
			continue
		}
		for id := range n.held {
			epoch, _ := n.log.Client(id)
			if at, ok := open[id]; !ok || directory.Newer(epoch, n.name, at.Epoch, at.Node) {
				open[id] = directory.Location{Node: n.name, Epoch: epoch}
			}
		}
	}
	return open
}

// Newest reports whether there was never a newer session of the client.
func (w *World) Newest(id wire.ClientID, at directory.Location) bool {
	return w.newest[id] == session{at.Epoch, at.Node}
}
