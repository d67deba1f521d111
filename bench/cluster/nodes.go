package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/config"

	"github.com/switchboardhub/switchboard/bench/port"
)

const patience = 2 * time.Minute

// node is one hubnode process.
type node struct {
	name         string
	client, http string
	cmd          *exec.Cmd
	ended        chan struct{} // closed when the process has
	err          error         // how it did
	cfg          config.Config
}

// hub is a set of nodes.
type hub struct {
	b     *bench
	nodes []*node
	peers []string
	edit  func(*config.Config)
}

// build makes the node's binary.
func build(ctx context.Context, dir string) (string, error) {
	_, here, _, _ := runtime.Caller(0)
	module := filepath.Join(filepath.Dir(here), "..", "..")
	path := filepath.Join(dir, "hubnode")
	cmd := exec.CommandContext(ctx, "go", "build", "-C", module, "-o", path, "./cmd/hubnode") //nolint:gosec // constant but for a folder of our own
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build hubnode: %w\n%s", err, out)
	}
	return path, nil
}

// raiseFileLimit makes room for so many connections.
func raiseFileLimit(files int) error {
	want := uint64(files) + 5_000
	var have syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &have); err != nil {
		return err
	}
	if have.Cur >= want {
		return nil
	}
	raised := syscall.Rlimit{Cur: want, Max: max(want, have.Max)}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised); err != nil {
		return fmt.Errorf("%d files may be open and %d are needed: run as root, or with fewer clients (-clients, -idle): %w", have.Cur, want, err)
	}
	return nil
}

// start runs size nodes of a hub with room for one more, and returns when they are
// ready.
func (b *bench) start(ctx context.Context, size int, edit func(*config.Config)) (*hub, error) {
	h := &hub{b: b, edit: edit}
	for range size + 1 {
		addr, _, err := port.Free()
		if err != nil {
			return nil, err
		}
		h.peers = append(h.peers, addr)
	}
	for range size {
		if _, err := h.add(size); err != nil {
			h.stop()
			return nil, err
		}
	}
	for _, n := range h.nodes {
		if err := n.awaitReady(ctx); err != nil {
			h.stop()
			return nil, err
		}
	}
	return h, nil
}

// add runs one more node.
func (h *hub) add(replicas int) (*node, error) {
	i := len(h.nodes)
	n := &node{name: fmt.Sprintf("bench-%d", i)}
	cfg := config.Default()
	cfg.Hub, cfg.Node, cfg.Replicas, cfg.Advertise, cfg.Peers = "bench", n.name, replicas, "127.0.0.1", h.peers
	cfg.Listen.Gossip = h.peers[i]
	for _, address := range []*string{&cfg.Listen.Client, &cfg.Listen.Cluster, &cfg.Listen.HTTP} {
		var err error
		if *address, _, err = port.Free(); err != nil {
			return nil, err
		}
	}
	cfg.Log.Level = "warn"
	if h.edit != nil {
		h.edit(&cfg)
	}
	n.cfg, n.client, n.http = cfg, cfg.Listen.Client, "http://"+cfg.Listen.HTTP
	text, err := cfg.Marshal()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(h.b.dir, n.name+".yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return nil, err
	}
	if err := h.run(n); err != nil {
		return nil, err
	}
	h.nodes = append(h.nodes, n)
	return n, nil
}

// run starts a node's process.
func (h *hub) run(n *node) error {
	n.ended = make(chan struct{})
	n.cmd = exec.Command(h.b.hubnode, "--config", filepath.Join(h.b.dir, n.name+".yaml")) //nolint:gosec,noctx // built here; stop ends it
	n.cmd.Stderr = os.Stderr
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // it ends with the bench, however that ends
	if err := n.cmd.Start(); err != nil {
		return err
	}
	cmd, ended := n.cmd, n.ended
	go func() { // ends with the process
		n.err = cmd.Wait()
		close(ended)
	}()
	return nil
}

// restart runs a node again that was killed.
func (h *hub) restart(n *node) error {
	<-n.ended
	return h.run(n)
}

// addresses returns the client addresses.
func (h *hub) addresses() string {
	var all []string
	for _, n := range h.nodes {
		all = append(all, n.client)
	}
	return strings.Join(all, ",")
}

func (n *node) awaitReady(ctx context.Context) error {
	ready := false
	err := await(ctx, n.name+" to be ready", func() bool {
		select {
		case <-n.ended:
			return true // it says why itself
		default:
		}
		resp, err := http.Get(n.http + "/readyz") //nolint:noctx // on loopback
		if err != nil {
			return false
		}
		_ = resp.Body.Close() // nothing of it is wanted
		ready = resp.StatusCode == http.StatusOK
		return ready
	})
	if err == nil && !ready {
		return fmt.Errorf("%s ended before it was ready: %w", n.name, n.err)
	}
	return err
}

// await returns when a condition holds.
func await(ctx context.Context, what string, holds func() bool) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !holds(); {
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %v for %s", patience, what)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// kill ends a node as a crash does.
func (n *node) kill() { _ = n.cmd.Process.Kill() }

// stop ends all nodes.
func (h *hub) stop() {
	for _, n := range h.nodes {
		n.kill()
	}
	for _, n := range h.nodes {
		<-n.ended
	}
}

// exited returns how a node that was told to end did.
func (n *node) exited(ctx context.Context) error {
	select {
	case <-n.ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	if n.err != nil {
		return fmt.Errorf("%s ended: %w", n.name, n.err)
	}
	return nil
}
