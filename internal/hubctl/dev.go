package hubctl

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/internal/throwaway"
)

const (
	devReadyTimeout = 60 * time.Second // until every node is ready
	devDrainTimeout = 2 * time.Second  // what a node gives its clients to leave
	devStopTimeout  = 15 * time.Second // until a node that was told to end is killed
	devRestartWait  = time.Second      // before a node that died is started again
	devMaxNodes     = 32
	devHub          = "dev"
)

func (a *App) devCommand() *cobra.Command {
	var (
		nodes, port int
		secure      bool
		storage     = config.Default().Storage
		sync        string
	)
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Start a hub on loopback",
		Long: `Start a hub of several nodes on loopback, each a process of its own, with history
on for every topic, until Ctrl-C. With --dir, history is on disk there and is found
again by the next dev with as many nodes; else it ends with the hub. A node that dies
is started again on the same ports: kill one and see its clients move. With --tls the
nodes take encrypted connections only, from clients and from each other, with
certificates of CAs that end with the hub.

The first node listens on --port for clients and 80 above it for HTTP, the next
one 10 above that, and so on; ports in use are replaced by free ones.`,
		Example: `  hubctl dev
  hubctl dev --nodes 1 --port 7000
  hubctl dev --tls                          # prints the --ca-file to use
  hubctl dev --dir /tmp/hub --sync Interval
  hubctl dev -o json`,
		Args: Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case nodes < 1 || nodes > devMaxNodes:
				return Usagef(cmd, "nodes %d: want 1 to %d", nodes, devMaxNodes)
			case port < 0 || port > 65535:
				return Usagef(cmd, "port %d: want 0 to 65535", port)
			}
			if storage.Dir == "" && cmd.Flags().Changed("sync") {
				return Usagef(cmd, "--sync has no meaning without --dir: history is in memory")
			}
			if storage.Dir != "" {
				var err error
				if storage.Dir, err = filepath.Abs(storage.Dir); err != nil {
					return err
				}
			}
			if storage.Sync = config.SyncPolicy(sync); storage.Sync != config.SyncAlways && storage.Sync != config.SyncInterval {
				return Usagef(cmd, "sync %q: want %s or %s", sync, config.SyncAlways, config.SyncInterval)
			}
			return a.dev(cmd.Context(), nodes, port, secure, storage)
		},
	}
	cmd.Flags().IntVar(&nodes, "nodes", 3, "how `many` nodes")
	cmd.Flags().StringVar(&storage.Dir, "dir", "", "keep history on disk, in a folder of this `directory` for each node")
	cmd.Flags().StringVar(&sync, "sync", string(config.SyncAlways), "with --dir: `when` to sync the disk: Always before a publish is acknowledged, or at an Interval of 100ms")
	cmd.Flags().BoolVar(&secure, "tls", false, "take encrypted connections only")
	cmd.Flags().IntVar(&port, "port", 7400, "client `port` of the first node; 0: any free ones")
	return cmd
}

// dev runs a hub until ctx ends.
func (a *App) dev(ctx context.Context, count, port int, secure bool, storage config.Storage) (err error) {
	if storage.Dir != "" { // nodes would try again and again, for a disk may come back
		if err := os.MkdirAll(storage.Dir, 0o700); err != nil {
			return fmt.Errorf("make the folder for history: %w", err)
		}
	}
	dir, err := os.MkdirTemp("", "switchboard-dev-")
	if err != nil {
		return fmt.Errorf("make a folder for the nodes' configs: %w", err)
	}
	defer func() {
		if e := os.RemoveAll(dir); err == nil {
			err = e
		}
	}()
	encryption := config.Default().TLS
	if secure {
		encryption = config.TLS{
			Clients: config.TLSRequired, Directory: dir,
			Cluster: config.TLSRequired, ClusterDirectory: filepath.Join(dir, "cluster"),
		}
		if err := writeCertificates(encryption); err != nil {
			return err
		}
	}
	nodes, err := planNodes(ctx, dir, count, port, encryption, storage)
	if err != nil {
		return err
	}

	g, ctx := errgroup.WithContext(ctx)
	started := make(chan struct{})
	for _, n := range nodes {
		n.started = started
		g.Go(func() error { return a.keepRunning(ctx, n) })
	}
	g.Go(func() error {
		if err := a.awaitReady(ctx, nodes); err != nil {
			return err
		}
		close(started)
		return a.introduce(nodes, encryption)
	})
	return g.Wait()
}

// writeCertificates makes a CA and a certificate of the nodes, which have one
// together, for clients, and others for the links between nodes.
func writeCertificates(encryption config.TLS) error {
	if err := os.Mkdir(encryption.ClusterDirectory, 0o700); err != nil {
		return fmt.Errorf("make a folder for the nodes' certificate: %w", err)
	}
	for dir, names := range map[string][]string{
		encryption.Directory:        {"localhost", "127.0.0.1"},
		encryption.ClusterDirectory: {config.ClusterID(devHub).String()},
	} {
		ca, err := throwaway.New()
		if err != nil {
			return err
		}
		if err := ca.Write(dir, names...); err != nil {
			return fmt.Errorf("write the nodes' certificate: %w", err)
		}
	}
	return nil
}

// planNodes chooses the ports of all nodes and writes their configs.
func planNodes(ctx context.Context, dir string, count, port int, encryption config.TLS, storage config.Storage) ([]*devNode, error) {
	nodes := make([]*devNode, count)
	var picker portPicker
	defer picker.release() // the nodes are to listen on them
	for i := range nodes {
		base := 0
		if port > 0 {
			base = port + 10*i
		}
		n := &devNode{name: fmt.Sprintf("dev-%d", i), configFile: filepath.Join(dir, fmt.Sprintf("dev-%d.yaml", i))}
		for _, p := range []struct {
			address *string
			offset  int
			udp     bool
		}{{&n.client, 0, false}, {&n.cluster, 1, false}, {&n.gossip, 2, true}, {&n.http, 80, false}} {
			var err error
			if *p.address, err = picker.pick(ctx, base, p.offset, p.udp); err != nil {
				return nil, fmt.Errorf("find a free port: %w", err)
			}
		}
		nodes[i] = n
	}
	peers := make([]string, count)
	for i, n := range nodes {
		peers[i] = n.gossip
	}
	for _, n := range nodes {
		text, err := n.config(peers, encryption, storage).Marshal()
		if err != nil {
			return nil, fmt.Errorf("config of %s: %w", n.name, err)
		}
		if err := os.WriteFile(n.configFile, text, 0o600); err != nil {
			return nil, fmt.Errorf("write the config of %s: %w", n.name, err)
		}
	}
	return nodes, nil
}

// config returns the settings of a node, history on for every topic.
func (n *devNode) config(peers []string, encryption config.TLS, storage config.Storage) config.Config {
	cfg := config.Default()
	cfg.Hub = devHub
	cfg.Node = n.name
	cfg.Replicas = len(peers)
	cfg.Listen = config.Listen{Client: n.client, Cluster: n.cluster, Gossip: n.gossip, HTTP: n.http}
	cfg.Advertise = "127.0.0.1"
	cfg.Peers = peers
	cfg.History = config.History{MaxArtifacts: 10_000, MaxBytes: 64 << 20, MaxAge: config.Duration(time.Hour)}
	cfg.TLS = encryption
	cfg.Storage = storage
	if storage.Dir != "" {
		cfg.Storage.Dir = filepath.Join(storage.Dir, n.name)
	}
	cfg.Drain.Timeout = config.Duration(devDrainTimeout)
	cfg.Log = config.Log{Level: "warn", Format: "text"}
	return cfg
}

// awaitReady waits until all nodes say that they are ready.
func (a *App) awaitReady(ctx context.Context, nodes []*devNode) error {
	waiting, cancel := context.WithTimeout(ctx, devReadyTimeout)
	defer cancel()
	var g sync.WaitGroup
	for _, n := range nodes {
		g.Go(func() { n.awaitReady(waiting) })
	}
	g.Wait()
	switch {
	case ctx.Err() != nil:
		return nil // interrupted, or a node gave up and says why itself
	case waiting.Err() != nil:
		return fmt.Errorf("the nodes were not ready within %v: %w", devReadyTimeout, context.DeadlineExceeded)
	}
	return nil
}

// introduce says where the nodes are, and what to try.
func (a *App) introduce(nodes []*devNode, encryption config.TLS) error {
	caFile := ""
	if encryption.Clients != config.TLSDisabled {
		caFile = filepath.Join(encryption.Directory, throwaway.CAFile)
	}
	if a.JSON() {
		for _, n := range nodes {
			if err := EncodeJSON(a.Out, n.json(caFile)); err != nil {
				return err
			}
		}
		return nil
	}
	var b strings.Builder
	for _, n := range nodes {
		fmt.Fprintf(&b, "%-6s  client %s  http http://%s  pid %d\n", n.name, n.client, n.http, n.pid.Load())
	}
	first, last := nodes[0].client, nodes[len(nodes)-1].client
	if caFile != "" {
		fmt.Fprintf(&b, "\nConnections are encrypted. In each terminal, first:\n  export SWITCHBOARD_CA_FILE=%s\nor name it with --ca-file.\n", caFile)
	}
	fmt.Fprintf(&b, `
Try, each in a terminal of its own:
  hubctl --server %s listen --id b
  hubctl --server %s send b hello
  hubctl --server %s pub orders.new '{"x":1}'
  hubctl --server %s sub 'orders.>' --since all
Ctrl-C ends the hub.
`, last, first, first, last)
	_, err := a.Out.Write([]byte(b.String()))
	return err
}
