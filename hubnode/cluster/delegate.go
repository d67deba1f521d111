package cluster

import (
	"encoding/json"
	"fmt"
	"net"
	"strconv"

	"github.com/hashicorp/memberlist"

	"github.com/switchboardhub/switchboard/wire"
)

// The methods in this file are memberlist's callbacks. It calls them with its
// locks held or on its receive loop: none may block.

// NodeMeta describes this node.
func (c *Cluster) NodeMeta(limit int) []byte {
	c.mu.Lock()
	self := c.self
	c.mu.Unlock()
	b, err := json.Marshal(meta{
		State: self.State, Version: self.Version, Client: self.Client, Cluster: self.Cluster, HTTP: self.HTTP, ClusterTLS: self.ClusterTLS,
		MinProtocol: self.MinProtocol, MaxProtocol: self.MaxProtocol,
	})
	if err != nil || len(b) > limit {
		return nil // addresses are far below the limit of 512 bytes
	}
	return b
}

// NotifyMsg is for messages of users of memberlist; there are none.
func (c *Cluster) NotifyMsg([]byte) {}

// GetBroadcasts returns nothing: the directory travels over the mesh.
func (c *Cluster) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState returns nothing: see GetBroadcasts.
func (c *Cluster) LocalState(bool) []byte { return nil }

// MergeRemoteState has nothing to merge: see GetBroadcasts.
func (c *Cluster) MergeRemoteState([]byte, bool) {}

// NotifyJoin says that a node is there.
func (c *Cluster) NotifyJoin(n *memberlist.Node) { c.keep(n) }

// NotifyUpdate says that a node describes itself anew.
func (c *Cluster) NotifyUpdate(n *memberlist.Node) { c.keep(n) }

// NotifyLeave says that a node has left or died.
func (c *Cluster) NotifyLeave(n *memberlist.Node) {
	c.mu.Lock()
	delete(c.nodes, n.Name)
	c.mu.Unlock()
	c.poke()
}

// keep copies what is said of a node.
func (c *Cluster) keep(n *memberlist.Node) {
	m, ok := parse(n)
	if !ok {
		return // NotifyAlive has refused it
	}
	c.mu.Lock()
	c.nodes[n.Name] = gossiped{member: m, addr: net.JoinHostPort(n.Addr.String(), strconv.Itoa(int(n.Port)))}
	c.mu.Unlock()
	c.poke()
}

// NotifyAlive refuses nodes that are not of this program, or of a version of it
// that this one can't talk to.
func (c *Cluster) NotifyAlive(n *memberlist.Node) error {
	m, ok := parse(n)
	if !ok {
		return fmt.Errorf("gossip from %q at %s is not from a hub node", n.Name, n.Addr)
	}
	if _, err := wire.NegotiateVersion(m.MinProtocol, m.MaxProtocol); err != nil {
		return fmt.Errorf("gossip from %q at %s: %w", n.Name, n.Addr, err)
	}
	return nil
}

// NotifyMerge refuses to merge with a cluster that holds such nodes.
func (c *Cluster) NotifyMerge(nodes []*memberlist.Node) error {
	for _, n := range nodes {
		if err := c.NotifyAlive(n); err != nil {
			return err
		}
	}
	return nil
}
