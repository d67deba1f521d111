package hubnode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/switchboardhub/switchboard/hubnode/access"
	"github.com/switchboardhub/switchboard/hubnode/admin"
	"github.com/switchboardhub/switchboard/hubnode/certs"
	"github.com/switchboardhub/switchboard/hubnode/cluster"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/hubnode/memory"
	"github.com/switchboardhub/switchboard/hubnode/mesh"
	"github.com/switchboardhub/switchboard/hubnode/server"
	"github.com/switchboardhub/switchboard/hubnode/shard"
)

// Node is one hub process. Make it with [New] and run it once with Run.
type Node struct {
	log     *slog.Logger
	version string
	started time.Time
	keys    gossipKeys

	cfg         atomic.Pointer[config.Config]
	configHash  atomic.Pointer[string]
	configError atomic.Pointer[string] // why the newest config file is not in use

	hub       *hub.Hub
	keeper    keeper
	stores    stores
	room      *room
	shares    *shares
	memory    *memory.Watch
	timing    shard.Timing
	filters   filters
	certs     *certs.Store
	links     *certs.Store // of the cluster port
	admission *admission
	clients   *server.Server // nil before Run
	cluster   *cluster.Cluster
	mesh      *mesh.Mesh
	view      *view
	members   atomic.Pointer[[]cluster.Member]
	self      cluster.Member

	shortSince atomic.Pointer[time.Time] // memory is short; nil: it is not

	ready    atomic.Bool
	draining atomic.Bool
	aborted  atomic.Bool
	running  chan struct{} // closed when Run serves
	drainNow sync.Once
	drainReq chan struct{} // closed by Drain
}

// New returns a node that opens nothing before Run. The config must be valid
// and name the node.
func New(cfg config.Config, opts ...Option) (*Node, error) {
	n := &Node{
		log: slog.New(slog.DiscardHandler), version: "dev", started: time.Now(),
		running: make(chan struct{}), drainReq: make(chan struct{}),
	}
	for _, o := range opts {
		o(n)
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Node == "" {
		return nil, errors.New("the node has no name: set node in the config file, --node or SWITCHBOARD_NODE")
	}
	if err := n.keys.read(cfg.GossipKeyFile); err != nil {
		return nil, err
	}
	if cfg.Advertise == "" {
		var err error
		if cfg.Advertise, err = ownAddress(cfg.Listen.Client); err != nil {
			return nil, err
		}
	}
	settings, err := settingsOf(cfg, n.filters.compile)
	if err != nil {
		return nil, err
	}
	policy, err := access.Compile(cfg.Authorization.Rules)
	if err != nil {
		return nil, err
	}
	n.certs = certs.New(cfg.TLS.Directory, n.log)
	n.links = certs.NewMutual(cfg.TLS.ClusterDirectory, config.ClusterID(cfg.Hub).String(), n.log)
	if err := n.openCertificate(cfg); err != nil {
		return nil, err
	}
	n.cfg.Store(&cfg)
	n.members.Store(&[]cluster.Member{})
	n.view = newView(n, cfg.Node, uint64(n.started.UnixNano()))
	n.stores.dir, n.stores.shards, n.stores.log = cfg.Storage.Dir, cfg.Storage.Shards, n.log
	n.room = newRoom(cfg.Storage.Dir, cfg.Node, cfg.Storage.Shards, n.log)
	n.shares = newShares()
	n.shares.configure(cfg)
	n.keeper = keeper{Shards: n.newShards(), node: n}
	n.stores.sync = n.keeper.SyncLogs
	n.hub, err = hub.New(
		hub.WithSettings(settings), hub.WithRemote(n.view), hub.WithKeeper(n.keeper), hub.WithLogger(n.log),
		hub.WithFilterCompiler(n.filters.compile), hub.WithSystem(n.answer),
	)
	if err != nil {
		return nil, err
	}
	n.memory = n.watchMemory()
	n.admission = newAdmission(n)
	n.admission.configure(cfg, policy)
	return n, nil
}

// Option configures a node that [New] makes.
type Option func(*Node)

// WithLog sets where the node logs; the default is nowhere.
func WithLog(log *slog.Logger) Option { return func(n *Node) { n.log = log } }

// WithVersion sets the version that the node says it has.
func WithVersion(v string) Option { return func(n *Node) { n.version = v } }

// WithTiming sets how fast the replicas of histories notice that one of them is
// gone. It is for tests; the default suits networks.
func WithTiming(t shard.Timing) Option { return func(n *Node) { n.timing = t } }

// WithConfigHash sets the hash of the config file that the node starts with.
func WithConfigHash(hash string) Option { return func(n *Node) { n.configHash.Store(&hash) } }

// Config returns the settings that the node runs now.
func (n *Node) Config() config.Config { return *n.cfg.Load() }

// Serving is closed once the node's ports are open; Ready may follow later.
func (n *Node) Serving() <-chan struct{} { return n.running }

// Ready reports whether the node serves and knows every other node's clients,
// or has found that there is no other node.
func (n *Node) Ready() bool { return n.ready.Load() && !n.draining.Load() }

// Drain makes Run move the clients away and return, as the end of its context
// does.
func (n *Node) Drain() { n.drainNow.Do(func() { close(n.drainReq) }) }

// Abort makes Run return without drain or farewell: what a crash looks like to
// the other nodes. It is for tests of what they do then.
func (n *Node) Abort() {
	n.aborted.Store(true)
	n.Drain()
}

// ports are a node's open listeners.
type ports struct{ client, cluster, http net.Listener }

func (p *ports) close() {
	for _, l := range []net.Listener{p.client, p.cluster, p.http} {
		if l != nil {
			_ = l.Close() // it was opened for nothing
		}
	}
}

func listen(ctx context.Context, l config.Listen) (*ports, error) {
	p := &ports{}
	for _, one := range []struct {
		what, addr string
		into       *net.Listener
	}{{"clients", l.Client, &p.client}, {"links of other nodes", l.Cluster, &p.cluster}, {"HTTP", l.HTTP, &p.http}} {
		ln, err := new(net.ListenConfig).Listen(ctx, "tcp", one.addr)
		if err != nil {
			p.close()
			return nil, fmt.Errorf("listen for %s: %w", one.what, err)
		}
		*one.into = ln
	}
	return p, nil
}

// Run serves until ctx ends or Drain is called, then drains within the
// config's drain timeout and returns when everything has ended. It returns nil
// after an orderly end.
func (n *Node) Run(ctx context.Context) error {
	cfg := n.Config()
	p, err := listen(ctx, cfg.Listen)
	if err != nil {
		return err
	}
	n.self = cluster.Member{
		Name: cfg.Node, Incarnation: n.view.owner.Incarnation, Version: n.version,
		Client:  advertised(cfg.Advertise, p.client),
		Cluster: advertised(cfg.Advertise, p.cluster),
		HTTP:    advertised(cfg.Advertise, p.http),

		ClusterTLS: n.speaksClusterTLS(),
	}
	n.mesh = mesh.New(mesh.Config{
		Hub: cfg.Hub, Log: n.log, Handler: n.view, TLS: n.clusterTLS,
		Self: mesh.Peer{Name: cfg.Node, Incarnation: n.self.Incarnation},
	}, p.cluster)
	n.keeper.Want(n.keepsHistory()) // before anybody asks whether the node is ready
	n.cluster, err = cluster.Start(cluster.Config{
		Hub: cfg.Hub, Self: n.self, Bind: cfg.Listen.Gossip, Advertise: cfg.Advertise, Keys: n.keys.first, Log: n.log,
		Peers:   func() []string { return n.Config().Peers },
		Changed: n.membersChanged,
	})
	if err != nil {
		p.close()
		return err
	}
	return n.serve(ctx, p)
}

// serve runs the parts. They stop in the reverse order of their start: clients
// are moved away while the mesh still carries what they send, and the mesh
// ends last.
func (n *Node) serve(ctx context.Context, p *ports) error {
	base := context.WithoutCancel(ctx)
	lower, stopLower := context.WithCancel(base) // mesh, gossip, HTTP
	defer stopLower()
	g, lower := errgroup.WithContext(lower)
	front, stopFront := context.WithCancel(lower) // the client port
	defer stopFront()

	if err := n.hub.Start(lower); err != nil {
		p.close()
		return errors.Join(err, n.cluster.Leave())
	}
	n.clients = server.New(server.Config{
		Hub: n.hub, HubName: n.Config().Hub, Node: n.self.Name, Log: n.log,
		Limits: n.limits, Addresses: n.clientAddresses, TLS: n.clientTLS,
		Door: n.admission, PerAddress: n.perAddress, PerSecond: n.perSecond,
	}, p.client)
	web := admin.New(admin.Config{Node: n, Hub: n.hub, Log: n.log, TLS: n.webTLS}, p.http)
	g.Go(func() error { return n.mesh.Run(lower) })
	g.Go(func() error { return n.view.announce(lower) })
	g.Go(func() error { return n.runShards(lower) })
	g.Go(func() error { return n.followShares(lower) })
	g.Go(func() error { return n.view.presence.run(lower) })
	g.Go(func() error { return n.cluster.Run(lower) })
	g.Go(func() error { return web.Run(lower) })
	g.Go(func() error { return n.clients.Run(front) })
	g.Go(func() error { return n.certs.Run(lower) })
	g.Go(func() error { return n.admission.gate.Run(lower) })
	g.Go(func() error { return n.links.Run(lower) })
	g.Go(func() error { return n.followGossipKeys(lower) })
	g.Go(func() error { return n.keepBalance(lower) })
	g.Go(func() error { return n.memory.Run(lower) })
	g.Go(func() error {
		defer stopLower()
		select {
		case <-ctx.Done():
		case <-n.drainReq:
		case <-lower.Done(): // a part has failed
		}
		if n.aborted.Load() {
			return n.cluster.Abandon()
		}
		n.drain(base, stopFront)
		return nil
	})
	close(n.running)
	n.followClusterTLS() // settings may have changed meanwhile
	n.log.Info("node serves", slog.String("node", n.self.Name), slog.String("client", n.self.Client), slog.String("http", n.self.HTTP), slog.String("version", n.version))
	err := g.Wait()
	n.log.Info("node stopped", slog.String("node", n.self.Name))
	return err
}

// drain moves the clients and what this node keeps to other nodes.
func (n *Node) drain(ctx context.Context, stopFront func()) {
	n.draining.Store(true)
	ctx, cancel := context.WithTimeout(ctx, time.Duration(n.Config().Drain.Timeout))
	defer cancel()
	n.log.Info("node drains", slog.Int("clients", len(n.hub.Clients())))
	n.cluster.SetState(cluster.Draining)
	stopFront()
	n.moveClients(ctx)
	n.hub.HandOverSessions(ctx, n.otherNodes())
	n.keeper.HandOver(ctx)
	n.hub.Settle(ctx)
	if err := n.cluster.Leave(); err != nil && len(*n.members.Load()) > 0 {
		n.log.Warn("gossip not left", slog.Any("error", err))
	}
	n.mesh.SetPeers(nil) // the others do the same, and would be dialled again
	stopCtx, stop := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer stop()
	if err := n.hub.Stop(stopCtx); err != nil {
		n.log.Warn("clients did not take all that waited for them", slog.Any("error", err))
	}
}

// waitForClients returns when the last client has left, or ctx has ended.
func (n *Node) waitForClients(ctx context.Context) {
	for _, c := range n.hub.Clients() {
		select {
		case <-c.Done():
		case <-ctx.Done():
			return
		}
	}
}

// Configure replaces the settings of a running node. What can't change while
// it runs stays as it is and is named in the log; a wrong config is refused as
// a whole.
func (n *Node) Configure(cfg config.Config, hash string) error {
	old := n.Config()
	cfg.Node, cfg.Advertise = old.Node, old.Advertise
	settings, err := settingsOf(cfg, n.filters.compile)
	var policy *access.Policy
	if err == nil {
		policy, err = access.Compile(cfg.Authorization.Rules)
	}
	if err == nil {
		err = cfg.Validate()
	}
	if err == nil {
		err = n.openCertificate(cfg)
	}
	if err == nil {
		err = n.reload(old, cfg, settings, policy)
	}
	if err != nil {
		text := err.Error()
		n.configError.Store(&text)
		return err
	}
	n.configHash.Store(&hash)
	n.configError.Store(nil)
	return nil
}

func (n *Node) reload(old, cfg config.Config, settings hub.Settings, policy *access.Policy) error {
	if fixed := config.Reloadable(old, cfg); len(fixed) > 0 {
		n.log.Warn("these settings change with the next restart", slog.Any("fields", fixed))
		cfg.Hub, cfg.Listen, cfg.GossipKeyFile = old.Hub, old.Listen, old.GossipKeyFile
		cfg.TLS.Directory, cfg.TLS.ClusterDirectory = old.TLS.Directory, old.TLS.ClusterDirectory
		replicas := cfg.Storage.Replicas
		cfg.Storage = old.Storage
		cfg.Storage.Replicas = replicas
	}
	n.cfg.Store(&cfg)
	n.endUnencrypted()
	n.admission.configure(cfg, policy)
	n.shares.configure(cfg)
	n.memory.Wake()
	n.followClusterTLS()
	err := n.hub.Configure(settings)
	n.keeper.Want(n.keepsHistory())
	return err
}

// ConfigRefused records why a changed config file is not in use.
func (n *Node) ConfigRefused(err error) {
	text := err.Error()
	n.configError.Store(&text)
}

// ownAddress returns the address that others reach this machine under: the one
// that the listener is bound to, else the first of an interface that is up.
func ownAddress(listen string) (string, error) {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return "", err
	}
	if ip := net.ParseIP(host); ip != nil && !ip.IsUnspecified() {
		return host, nil
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return "", err
	}
	for _, a := range addrs {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.IsGlobalUnicast() {
			return ip.IP.String(), nil
		}
	}
	return "127.0.0.1", nil
}

// advertised returns the address of a listener as others reach it.
func advertised(host string, ln net.Listener) string {
	tcp, ok := ln.Addr().(*net.TCPAddr)
	if !ok {
		return ln.Addr().String()
	}
	return net.JoinHostPort(host, strconv.Itoa(tcp.Port))
}
