package hubnode

import (
	"time"

	"github.com/switchboardhub/switchboard/hubnode/cluster"
	"github.com/switchboardhub/switchboard/hubnode/directory"
	"github.com/switchboardhub/switchboard/hubnode/mesh"
)

// membersChanged follows the gossip: links to those who are there, and nothing
// kept of those who are not.
func (n *Node) membersChanged(members []cluster.Member) {
	drained := make(map[string]bool)
	for _, m := range *n.members.Swap(&members) {
		drained[m.Name] = m.State == cluster.Draining
	}
	peers := make([]mesh.Peer, 0, len(members))
	there := make(map[string]bool, len(members))
	for _, m := range members {
		peers = append(peers, mesh.Peer{Name: m.Name, Incarnation: m.Incarnation, Addr: m.Cluster, TLS: m.ClusterTLS})
		there[m.Name] = true
	}
	n.mesh.SetPeers(peers)
	n.view.forget(there, drained)
	n.assess()
}

// leaderPatience is how long a node waits to be ready for shards that have no
// leader: longer than those that are there need to choose one.
const leaderPatience = 30 * time.Second

// assess decides whether the node is ready: it has joined, holds every member's
// part of the directory, and its replicas of histories have caught up. Once it was, it stays so; what comes later
// is learned while it serves.
func (n *Node) assess() {
	if n.ready.Load() || !n.cluster.Joined() {
		return
	}
	for _, m := range *n.members.Load() {
		if m.State == cluster.Draining {
			continue // it may be gone before it answers
		}
		owner, _, ok := n.view.table.Version(m.Name)
		if !ok || owner != (directory.Owner{Node: m.Name, Incarnation: m.Incarnation}) {
			return
		}
	}
	if !n.keeper.Ready(leaderPatience) {
		return
	}
	if n.ready.CompareAndSwap(false, true) {
		n.cluster.Become(cluster.Active) // links are read on this goroutine
		n.log.Info("node is ready")
	}
}

// clientAddresses returns the client addresses of all nodes, this one first.
func (n *Node) clientAddresses() []string {
	return append([]string{n.self.Client}, n.otherAddresses()...)
}

// otherNodes returns the names of the other nodes that serve.
func (n *Node) otherNodes() []string {
	var names []string
	for _, m := range *n.members.Load() {
		if m.State == cluster.Active {
			names = append(names, m.Name)
		}
	}
	return names
}

// otherAddresses returns the client addresses of the other nodes that serve.
func (n *Node) otherAddresses() []string {
	var addrs []string
	for _, m := range *n.members.Load() {
		if m.State == cluster.Active {
			addrs = append(addrs, m.Client)
		}
	}
	return addrs
}
