// Package cluster finds the other nodes of a hub and notices when they come
// and go, by gossip. It is the only importer of memberlist and turns its
// events into snapshots of the members.
//
// What it does about memberlist's habits: a node's name carries an incarnation,
// since a restarted pod has its old name and a new address; the label is the
// hub's identity, since pods of other hubs get addresses that were ours; and
// the node joins again from time to time by what DNS says now, since dead peers
// are forgotten and a partition never heals by itself.
package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/switchboardhub/switchboard/wire"
)

const (
	leaveTime = 2 * time.Second
	// joinGrace is how long a node that can reach none of its configured
	// peers waits before it concludes that it is alone.
	joinGrace = 10 * time.Second
	joinRetry = 300 * time.Millisecond
	rejoinMin = 15 * time.Second
	rejoinMax = 30 * time.Second
	// A dead node is given up within about seven probe intervals: it is probed
	// by somebody within two, fails that in one, and has four to object; longer
	// in a hub of more than ten nodes.
	probeInterval = 500 * time.Millisecond
	probeTimeout  = 300 * time.Millisecond

	nameSep = "~" // between a node's name and its incarnation
)

// State is what a node says of itself.
type State string

// The states.
const (
	Joining  State = "joining"  // it does not know the others yet
	Active   State = "active"   // it serves
	Draining State = "draining" // it is about to stop: don't send clients there
)

// Member is one node as it describes itself.
type Member struct {
	Name        string
	Incarnation uint64
	State       State
	Version     string // of the program
	Client      string // host:port for clients
	Cluster     string // host:port of the mesh
	ClusterTLS  bool   // the mesh takes TLS
	HTTP        string // host:port of the HTTP API
	MinProtocol int    // the versions of the wire that it speaks
	MaxProtocol int
}

// meta is a Member's part that travels in gossip; at most 512 bytes as JSON.
type meta struct {
	State   State  `json:"s"`
	Version string `json:"v,omitempty"`
	Client  string `json:"c"`
	Cluster string `json:"m"`
	HTTP    string `json:"h"`

	ClusterTLS bool `json:"t,omitempty"`

	MinProtocol int `json:"p,omitempty"` // absent: 1
	MaxProtocol int `json:"q,omitempty"` // absent: 1
}

// Config says who this node is and whom to join.
type Config struct {
	Hub       string          // identity of the hub: others are not heard
	Self      Member          // Name, Incarnation and addresses; State is set to Joining
	Bind      string          // host:port to gossip on, TCP and UDP
	Advertise string          // host that others reach this node under
	Peers     func() []string // host:port or dns-name:port to join; asked anew each time
	Keys      [][]byte        // of 16, 24 or 32 bytes each, one or two: the first encrypts, all are accepted; none: plain
	Log       *slog.Logger
	// Changed is called with all members but this node, sorted by name, when
	// they have changed; never concurrently.
	Changed func([]Member)
}

// Cluster is this node's membership. Make it with [Start].
type Cluster struct {
	cfg     Config
	list    *memberlist.Memberlist
	keyring *memberlist.Keyring // nil: plain
	changed chan struct{}       // holds one: members have to be looked at again
	news    chan struct{}       // holds one: this node says something else of itself
	telling sync.Mutex          // held while the others are told
	joined  atomic.Bool
	ending  atomic.Bool

	mu    sync.Mutex // guards the fields below
	self  Member
	nodes map[string]gossiped // by memberlist's name, which holds the incarnation
}

// gossiped is a copy of what memberlist says of a node: it changes its own
// while others read it.
type gossiped struct {
	member Member
	addr   string // host:port of its gossip
}

// Start opens the gossip port. The node is not joined yet: that is Run's work.
func Start(cfg Config) (*Cluster, error) {
	host, port, err := splitHostPort(cfg.Bind)
	if err != nil {
		return nil, fmt.Errorf("gossip address: %w", err)
	}
	cfg.Self.State, cfg.Self.MinProtocol, cfg.Self.MaxProtocol = Joining, wire.Version, wire.Version
	c := &Cluster{cfg: cfg, self: cfg.Self, changed: make(chan struct{}, 1), news: make(chan struct{}, 1), nodes: make(map[string]gossiped)}
	mc := memberlist.DefaultLANConfig()
	mc.Name = cfg.Self.Name + nameSep + strconv.FormatUint(cfg.Self.Incarnation, 16)
	mc.BindAddr, mc.BindPort = host, port
	mc.AdvertiseAddr, mc.AdvertisePort = cfg.Advertise, port
	mc.Label = cfg.Hub
	if len(cfg.Keys) > 0 {
		if c.keyring, err = memberlist.NewKeyring(cfg.Keys, cfg.Keys[0]); err != nil {
			return nil, fmt.Errorf("gossip key: %w", err)
		}
		mc.Keyring = c.keyring
	}
	mc.Delegate, mc.Events, mc.Alive, mc.Merge = c, c, c, c
	mc.Logger = newLogger(cfg.Log, &c.ending)
	mc.DeadNodeReclaimTime = 0
	mc.ProbeInterval, mc.ProbeTimeout = probeInterval, probeTimeout
	if c.list, err = memberlist.Create(mc); err != nil {
		return nil, fmt.Errorf("gossip on %s: %w", cfg.Bind, err)
	}
	return c, nil
}

// Run joins the peers, joins again from time to time, and reports changes until
// ctx ends. It leaves nothing running but the gossip itself: see Leave.
func (c *Cluster) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { c.join(ctx) })
	running.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-c.news:
				c.tell()
			}
		}
	})
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.changed:
			c.cfg.Changed(c.Members())
		}
	}
}

// Joined reports whether the node has found the others, or concluded that it is
// alone.
func (c *Cluster) Joined() bool { return c.joined.Load() }

// Members returns the other nodes, each once, in its newest incarnation.
func (c *Cluster) Members() []Member {
	newest := make(map[string]Member)
	c.mu.Lock()
	for _, n := range c.nodes {
		m := n.member
		if have, ok := newest[m.Name]; m.Name != c.cfg.Self.Name && (!ok || m.Incarnation > have.Incarnation) {
			newest[m.Name] = m
		}
	}
	c.mu.Unlock()
	return slices.SortedFunc(maps.Values(newest), func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
}

// Health returns memberlist's awareness score: 0 is healthy, higher is worse.
func (c *Cluster) Health() int { return c.list.GetHealthScore() }

// SetState tells the others what this node is about. It waits until some know, which
// takes a second and more, or two seconds have passed.
func (c *Cluster) SetState(s State) {
	if c.become(s) {
		c.tell()
	}
}

// Become is SetState that does not wait: Run tells the others.
func (c *Cluster) Become(s State) {
	if c.become(s) {
		c.bringNews()
	}
}

// SpeakTLS says whether this node's mesh takes TLS; Run tells the others.
func (c *Cluster) SpeakTLS(speaks bool) {
	c.mu.Lock()
	was := c.self.ClusterTLS
	c.self.ClusterTLS = speaks
	c.mu.Unlock()
	if was != speaks {
		c.bringNews()
	}
}

// bringNews makes Run tell the others what this node says of itself.
func (c *Cluster) bringNews() {
	select {
	case c.news <- struct{}{}:
	default:
	}
}

// become reports whether it is another state than before.
func (c *Cluster) become(s State) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.self.State
	c.self.State = s
	return was != s
}

// tell tells the others what this node says of itself, one time after the other:
// memberlist forgets whoever waits for what it takes for old.
func (c *Cluster) tell() {
	c.telling.Lock()
	defer c.telling.Unlock()
	if err := c.list.UpdateNode(leaveTime); err != nil {
		c.cfg.Log.Debug("state not gossiped yet", slog.Any("error", err))
	}
}

// Leave tells the others that this node goes, and ends the gossip.
func (c *Cluster) Leave() error {
	c.ending.Store(true)
	err := c.list.Leave(leaveTime)
	if e := c.list.Shutdown(); e != nil && err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("leave the gossip: %w", err)
	}
	return nil
}

// Abandon ends the gossip without telling the others.
func (c *Cluster) Abandon() error {
	c.ending.Store(true)
	if err := c.list.Shutdown(); err != nil {
		return fmt.Errorf("abandon the gossip: %w", err)
	}
	return nil
}

// poke makes Run look at the members again. It never blocks: memberlist calls
// it with its locks held.
func (c *Cluster) poke() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// parse reads a member out of a gossiped node.
func parse(n *memberlist.Node) (Member, bool) {
	name, incarnation, ok := strings.Cut(n.Name, nameSep)
	if !ok {
		return Member{}, false
	}
	number, err := strconv.ParseUint(incarnation, 16, 64)
	if err != nil {
		return Member{}, false
	}
	var m meta
	if err := json.Unmarshal(n.Meta, &m); err != nil {
		return Member{}, false
	}
	return Member{
		Name: name, Incarnation: number, State: m.State, Version: m.Version,
		Client: m.Client, Cluster: m.Cluster, HTTP: m.HTTP, ClusterTLS: m.ClusterTLS,
		MinProtocol: max(1, m.MinProtocol), MaxProtocol: max(1, m.MaxProtocol),
	}, true
}

func splitHostPort(addr string) (string, int, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("port %q: %w", port, err)
	}
	if host == "" {
		host = "0.0.0.0"
	}
	return host, int(n), nil
}
