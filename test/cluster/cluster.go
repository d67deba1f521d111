// Package cluster runs the nodes of a hub in one process, on loopback, with
// real sockets and real gossip, for tests of what happens between nodes.
package cluster

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/hubnode"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/test/ports"
)

// Patience is how long a test waits for what has to happen. It is long for machines with
// other work: nothing waits for it to pass when all is well.
const Patience = 2 * time.Minute

// Cluster is a running hub.
type Cluster struct {
	tb    testing.TB
	nodes []*Node
}

// Node is one of its nodes.
type Node struct {
	*hubnode.Node
	cfg  config.Config
	stop context.CancelFunc
	done chan struct{} // closed when Run has returned
}

// Start runs size nodes and returns when all are ready. They end with the
// test. Change, when not nil, edits each node's config.
func Start(tb testing.TB, size int, change func(*config.Config)) *Cluster {
	tb.Helper()
	c := &Cluster{tb: tb}
	var peers []string
	for range size {
		peers = append(peers, ports.Free(tb))
	}
	for i := range size {
		cfg := config.Default()
		cfg.Hub = "test/" + tb.Name()
		cfg.Node = fmt.Sprintf("node-%d", i)
		cfg.Replicas = size
		cfg.Advertise = "127.0.0.1"
		cfg.Peers = peers
		cfg.Listen = config.Listen{Client: ports.Free(tb), Cluster: ports.Free(tb), HTTP: ports.Free(tb), Gossip: peers[i]}
		cfg.Drain.Timeout = config.Duration(10 * time.Second)
		if change != nil {
			change(&cfg)
		}
		c.nodes = append(c.nodes, c.run(cfg))
	}
	tb.Cleanup(c.stop)
	for _, n := range c.nodes {
		c.WaitReady(n)
	}
	c.waitLinked()
	return c
}

// waitLinked returns when every node has a link to every other one.
func (c *Cluster) waitLinked() {
	c.tb.Helper()
	linked := fmt.Sprintf("switchboard_mesh_links %d\n", len(c.nodes)-1)
	for i, n := range c.nodes {
		c.WaitFor("links of "+n.cfg.Node, func() bool { return strings.Contains(c.Metrics(i), linked) })
	}
}

// Metrics returns what a node exposes.
func (c *Cluster) Metrics(ordinal int) string { return c.get(ordinal, "/metrics") }

// Lists reports whether a node says that a client is there.
func (c *Cluster) Lists(ordinal int, id string) bool {
	return strings.Contains(c.get(ordinal, "/v1/clients"), `"id":"`+id+`"`)
}

func (c *Cluster) get(ordinal int, path string) string {
	c.tb.Helper()
	resp, err := http.Get(c.nodes[ordinal].HTTP() + path)
	if err != nil {
		c.tb.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		c.tb.Fatal(err)
	}
	return string(text)
}

func (c *Cluster) run(cfg config.Config) *Node {
	c.tb.Helper()
	log := slog.New(slog.NewTextHandler(newWriter(c.tb), &slog.HandlerOptions{Level: slog.LevelInfo})).With(slog.String("at", cfg.Node))
	node, err := hubnode.New(cfg, hubnode.WithLog(log), hubnode.WithVersion("test"))
	if err != nil {
		c.tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &Node{Node: node, cfg: cfg, stop: cancel, done: make(chan struct{})}
	go func() { // ended by stop, waited for by Stop
		defer close(n.done)
		if err := node.Run(ctx); err != nil {
			c.tb.Errorf("%s: %v", cfg.Node, err)
		}
	}()
	return n
}

// Node returns the node with an ordinal.
func (c *Cluster) Node(ordinal int) *Node { return c.nodes[ordinal] }

// Client returns the node's address for clients.
func (n *Node) Client() string { return n.cfg.Listen.Client }

// Mesh returns the node's address for links of other nodes.
func (n *Node) Mesh() string { return n.cfg.Listen.Cluster }

// HTTP returns the URL of the node's HTTP API.
func (n *Node) HTTP() string { return "http://" + n.cfg.Listen.HTTP }

// Stop drains a node and waits until it has ended.
func (n *Node) Stop() {
	n.stop()
	<-n.done
}

// Restart stops a node and runs a new incarnation of it on the same ports.
func (c *Cluster) Restart(ordinal int) {
	c.tb.Helper()
	old := c.nodes[ordinal]
	old.Stop()
	c.nodes[ordinal] = c.run(old.cfg)
	c.WaitReady(c.nodes[ordinal])
}

// Kill ends a node without drain or farewell, as far as one process can.
func (c *Cluster) Kill(ordinal int) {
	n := c.nodes[ordinal]
	n.Abort()
	<-n.done
}

// Crash ends a node without drain or farewell, as far as one process can, and
// runs a new incarnation of it on the same ports.
func (c *Cluster) Crash(ordinal int) {
	c.tb.Helper()
	c.Kill(ordinal)
	c.Revive(ordinal)
}

// Revive runs a new incarnation of a node that was killed, on the same ports, and
// returns when it is ready.
func (c *Cluster) Revive(ordinal int) {
	c.tb.Helper()
	c.Run(ordinal)
	c.WaitReady(c.nodes[ordinal])
}

// Run runs a new incarnation of a node that was killed.
func (c *Cluster) Run(ordinal int) {
	c.tb.Helper()
	c.nodes[ordinal] = c.run(c.nodes[ordinal].cfg)
}

// WaitReady returns when the node says it is ready.
func (c *Cluster) WaitReady(n *Node) {
	c.tb.Helper()
	c.WaitFor("readiness of "+n.cfg.Node, func() bool {
		resp, err := http.Get(n.HTTP() + "/readyz")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// WaitFor returns when a condition holds and fails the test when it doesn't
// come to hold in time.
func (c *Cluster) WaitFor(what string, holds func() bool) {
	c.tb.Helper()
	deadline := time.Now().Add(Patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		if time.Now().After(deadline) {
			c.tb.Fatalf("no %s within %s", what, Patience)
		}
		<-tick.C
	}
}

func (c *Cluster) stop() {
	var stopping sync.WaitGroup
	for _, n := range c.nodes {
		stopping.Go(n.Stop)
	}
	stopping.Wait()
	http.DefaultClient.CloseIdleConnections()
}

// writer sends log lines to the test's log while the test runs: what memberlist
// starts may outlive the node by a moment.
type writer struct {
	tb testing.TB

	mu    sync.Mutex // guards ended, and logging against the test's end
	ended bool
}

func newWriter(tb testing.TB) *writer {
	tb.Helper()
	w := &writer{tb: tb}
	tb.Cleanup(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.ended = true
	})
	return w
}

func (w *writer) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ended {
		w.tb.Log(string(b))
	}
	return len(b), nil
}
