package hubnode

import (
	"context"
	"encoding/json"
	"strconv"
	"sync"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/admin"
	"github.com/switchboardhub/switchboard/hubnode/certs"
	"github.com/switchboardhub/switchboard/hubnode/cluster"
	"github.com/switchboardhub/switchboard/wire"
)

// The questions that the node answers beside its hub's.
const (
	questionStatus      = "status"
	questionNodes       = "nodes"
	questionPresence    = "presence"
	questionNamespaces  = "namespaces"
	questionLocalStatus = "local.status" // asked by other nodes
)

// Status is what a node says of itself: the answer to "status".
type Status struct {
	Node        string `json:"node"`
	Hub         string `json:"hub"`
	Version     string `json:"version"`
	State       string `json:"state"`
	Ready       bool   `json:"ready"`
	Incarnation string `json:"incarnation"`
	ConfigHash  string `json:"configHash"`
	ConfigError string `json:"configError"`
	// ShardsUnsettled is how many shards are not where these settings want them, as
	// far as the node knows.
	ShardsUnsettled int `json:"shardsUnsettled"`
	Clients         int `json:"clients"`
	Sessions        int `json:"sessions"`
	Links           int `json:"links"`
	// ClusterTLS says how links are encrypted, as tls.cluster does. Nodes of before there
	// was such a thing don't say.
	ClusterTLS     string  `json:"clusterTLS"`
	LinksEncrypted int     `json:"linksEncrypted"` // of links
	Members        int     `json:"members"`
	Client         string  `json:"client"`
	HTTP           string  `json:"http"`
	UptimeSeconds  float64 `json:"uptimeSeconds"`
	Disk           *Disk   `json:"disk,omitempty"` // nil: history is in memory

	Memory Memory `json:"memory"`

	// GossipKeys are those of the gossip. Nodes of before they could change don't say.
	GossipKeys GossipKeys    `json:"gossipKeys"`
	History    HistoryStatus `json:"history"`
}

// HistoryStatus says how the shards are that a node leads. All nodes' numbers
// together tell whether every shard has all its replicas.
type HistoryStatus struct {
	Shards int `json:"shards"` // of the hub; 0 while no topic keeps history
	Led    int `json:"led"`    // led by this node
	Whole  int `json:"whole"`  // of these, with all replicas voting and caught up
}

// Disk is the disk that a node's history is on.
type Disk struct {
	FreeBytes uint64 `json:"freeBytes"`
	SizeBytes uint64 `json:"sizeBytes"`
	// FullSince is since when it is nearly full: what is published to topics that the
	// node leads is refused.
	FullSince *time.Time `json:"fullSince,omitempty"`
	// AwaySince is since when the node is without what is on the disk, for it can't be
	// opened: its shards have not begun. Away says why. It is tried again, at the latest
	// after half a minute.
	AwaySince *time.Time `json:"awaySince,omitempty"`
	Away      string     `json:"away,omitempty"`
}

// Memory is how near a node is to the memory that it may use.
type Memory struct {
	UsedBytes  int64  `json:"usedBytes"`
	LimitBytes int64  `json:"limitBytes"` // 0: there is no limit
	Level      string `json:"level"`      // ample, tight or critical
	// ShortSince is since when it has not been ample: new clients are refused.
	ShortSince *time.Time `json:"shortSince,omitempty"`
}

// NodeInfo is one node in the answer to "nodes".
type NodeInfo struct {
	Node          string  `json:"node"`
	State         string  `json:"state"`
	Ready         bool    `json:"ready"`
	Client        string  `json:"client"`
	HTTP          string  `json:"http"`
	Clients       int     `json:"clients"`
	Version       string  `json:"version"`
	UptimeSeconds float64 `json:"uptimeSeconds"`
	Self          bool    `json:"self"`
	Reachable     bool    `json:"reachable"`
	Disk          *Disk   `json:"disk,omitempty"` // nil: history is in memory
}

// Status returns what the node says of itself.
func (n *Node) Status() Status {
	clients := n.hub.Metrics().ActiveClients
	s := Status{
		Node: n.self.Name, Hub: n.Config().Hub, Version: n.version, State: string(n.state()), Ready: n.Ready(),
		Incarnation: strconv.FormatUint(n.self.Incarnation, 16),
		Clients:     clients, Sessions: clients,
		Links: n.mesh.Links(), LinksEncrypted: n.mesh.Encrypted(), ClusterTLS: string(n.Config().TLS.Cluster), Members: len(*n.members.Load()) + 1,
		Client: n.self.Client, HTTP: "http://" + n.self.HTTP,
		UptimeSeconds: time.Since(n.started).Seconds(), GossipKeys: n.gossipKeys(),
		Memory: Memory{UsedBytes: n.memory.Used(), LimitBytes: n.memory.Limit(), Level: n.memory.Level().String(), ShortSince: n.shortSince.Load()},
	}
	if n.keepsHistory() {
		s.History.Shards = n.Config().Storage.Shards
		for _, st := range n.keeper.Stats() {
			if st.Leads {
				s.History.Led++
			}
			if st.Whole {
				s.History.Whole++
			}
		}
	}
	if n.room.dir != "" {
		s.Disk = &Disk{FreeBytes: n.room.free.Load(), SizeBytes: n.room.size.Load(), FullSince: n.room.full.Load()}
		if away := n.stores.away.Load(); away != nil {
			s.Disk.AwaySince, s.Disk.Away = &away.since, away.why
		}
	}
	if hash := n.configHash.Load(); hash != nil {
		s.ConfigHash = *hash
	}
	if text := n.configError.Load(); text != nil {
		s.ConfigError = *text
	}
	// After the hash: who sees the new one sees what these settings want.
	s.ShardsUnsettled = n.keeper.Unsettled()
	return s
}

func (n *Node) state() cluster.State {
	switch {
	case n.draining.Load():
		return cluster.Draining
	case n.ready.Load():
		return cluster.Active
	default:
		return cluster.Joining
	}
}

// answer is the hub's System: questions about nodes.
func (n *Node) answer(ctx context.Context, question string, body []byte) ([]byte, bool, error) {
	var what any
	switch question {
	case questionStatus, questionLocalStatus:
		what = n.Status()
	case questionNodes:
		what = map[string][]NodeInfo{"nodes": n.nodes(ctx)}
	case questionNamespaces:
		what = n.shares.list()
	case questionPresence:
		if !n.ready.Load() {
			return nil, true, &wire.Error{Code: wire.CodeUnavailable, Detail: "this node does not know yet who is on the others"}
		}
		page, err := n.view.presence.page(ctx, body)
		if err != nil {
			return nil, true, err
		}
		what = page
	default:
		return nil, false, nil
	}
	b, err := json.Marshal(what)
	return b, true, err
}

// nodes asks every member for its status. One that does not answer is listed
// as the gossip describes it.
func (n *Node) nodes(ctx context.Context) []NodeInfo {
	members := *n.members.Load()
	infos := make([]NodeInfo, len(members)+1)
	infos[0] = info(n.Status())
	infos[0].Self = true
	var asking sync.WaitGroup
	for i, m := range members {
		asking.Go(func() {
			infos[i+1] = NodeInfo{Node: m.Name, State: string(m.State), Client: m.Client, HTTP: "http://" + m.HTTP, Version: m.Version}
			b, err := n.view.Ask(ctx, m.Name, questionLocalStatus, nil)
			var s Status
			if err == nil && json.Unmarshal(b, &s) == nil {
				infos[i+1] = info(s)
			}
		})
	}
	asking.Wait()
	return infos
}

func info(s Status) NodeInfo {
	return NodeInfo{
		Node: s.Node, State: s.State, Ready: s.Ready, Client: s.Client, HTTP: s.HTTP,
		Clients: s.Clients, Version: s.Version, UptimeSeconds: s.UptimeSeconds, Reachable: true, Disk: s.Disk,
	}
}

// Counts returns the node's gauges for the metrics.
func (n *Node) Counts() admin.Counts {
	c := admin.Counts{
		DirectoryEntries: n.view.table.Len(),
		MeshLinks:        n.mesh.Links(),
		GossipMembers:    len(*n.members.Load()) + 1,
		GossipHealth:     n.cluster.Health(),
		MeshLinked:       n.mesh.Linked(),
		MeshEncrypted:    n.mesh.Encrypted(),
		MeshRefused:      make(map[string]uint64),
		AnnounceRefused:  n.view.refused.Load(),
		FilterErrors:     n.filters.failed.Load(),
		RaftLeader:       make(map[string]int), RaftTerm: make(map[string]uint64), RaftVoters: make(map[string]int),
		RaftApplied: make(map[string]uint64), RaftCommitted: make(map[string]uint64), RaftPending: make(map[string]int),
		RaftRecovered: n.keeper.Recovered(), RaftRemade: n.keeper.Remade(),
		DiskFree: n.room.free.Load(), DiskSize: n.room.size.Load(), DiskReserve: n.room.reserved(),
		DurablePending: make(map[string]uint64), DurableInFlight: make(map[string]int), DurableLost: make(map[string]uint64),
	}
	if n.room.full.Load() != nil {
		c.DiskFull = 1
	}
	if n.stores.away.Load() != nil {
		c.DiskAway = 1
	}
	c.NamespaceHistory, c.NamespaceHistoryLimit, c.OverQuota = n.shares.byTenant(), n.shares.limit.Load(), n.shares.refused.Load()
	c.MemoryUsed, c.MemoryLimit, c.MemoryLevel = n.memory.Used(), n.memory.Limit(), int(n.memory.Level())
	c.GossipKeys = len(n.cluster.Keys())
	if n.keys.refused.Load() != nil {
		c.GossipKeysStale = 1
	}
	h := n.clients.Handshakes()
	c.HandshakesCrowded = n.clients.Crowded()
	number, rate := n.clients.TurnedAway()
	c.TurnedAway = map[string]uint64{"connections": number, "rate": rate}
	c.Delayed = n.clients.Delayed()
	r := n.admission.gate.Reviews()
	c.TokenReviews = map[string]uint64{"accepted": r.Accepted, "refused": r.Refused, "failed": r.Failed, "busy": r.Busy}
	c.TLSHandshakes = map[string]uint64{"full": h.Full, "resumed": h.Resumed, "refused": h.Refused, "timed_out": h.TimedOut, "failed": h.Failed}
	for why, count := range n.mesh.Refused() {
		c.MeshRefused[string(why)] = count
	}
	c.CertificateStart, c.CertificateExpiry, c.CertificateStale = make(map[string]int64), make(map[string]int64), make(map[string]int)
	for port, store := range map[string]*certs.Store{"client": n.certs, "cluster": n.links} {
		c.CertificateStale[port] = 0
		if store.Stale() {
			c.CertificateStale[port] = 1
		}
		if expiry := store.Expiry(); !expiry.IsZero() {
			c.CertificateStart[port], c.CertificateExpiry[port] = store.Since().Unix(), expiry.Unix()
		}
	}
	for _, st := range n.keeper.Stats() {
		shard := strconv.Itoa(st.Shard)
		c.RaftLeader[shard] = 0
		if st.Leads {
			c.RaftLeader[shard] = 1
		}
		c.RaftTerm[shard], c.RaftVoters[shard], c.RaftPending[shard] = st.Term, st.Voters, st.Pending
		c.RaftApplied[shard], c.RaftCommitted[shard] = st.Applied, st.Committed
	}
	for _, d := range n.keeper.Durables() {
		key := d.Topic + "/" + d.Name
		c.DurablePending[key], c.DurableInFlight[key], c.DurableLost[key] = d.Pending, d.InFlight, d.Lost
	}
	return c
}
