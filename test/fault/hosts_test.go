//go:build fault

// Package fault does to nodes what networks and machines do, each node a process
// on a host of its own, and checks what clients see. Hosts are network namespaces
// on one bridge, which it makes and takes away.
package fault

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/switchboardhub/switchboard/hubnode/config"
)

const patience = time.Minute

var (
	logs     = flag.String("logs", "", "a `folder` for the nodes' logs, with everything that they say; without it warnings go to stderr")
	networks atomic.Int64 // made so far
)

func TestMain(m *testing.M) {
	flag.Parse()
	dir, err := os.MkdirTemp("", "fault")
	if err != nil {
		panic(err)
	}
	bin = filepath.Join(dir, "hubnode")
	code := 1
	if err := build("../..", bin); err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// bin is the program of the nodes.
var bin string

// build makes the nodes' program of the sources in a folder, as it is shipped.
func build(sources, to string) error {
	cmd := exec.Command("go", "build", "-C", sources, "-o", to, "./cmd/hubnode")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	return nil
}

// cannot ends a test that needs what this machine does not have. In CI that is a
// failure: what never runs there can't fail there.
func cannot(t *testing.T, why string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf(why, args...)
	}
	t.Skipf(why, args...)
}

// network is a bridge with a host for each node and one for the clients.
type network struct {
	t      *testing.T
	prefix string
	nodes  []*host
	dir    string
}

// host is a namespace that runs a node, or none.
type host struct {
	net   *network
	name  string // of the namespace
	ip    string
	cfg   config.Config
	bin   string // the program that start runs
	cmd   *exec.Cmd
	ended chan struct{}
}

func newNetwork(t *testing.T, size int, settings ...func(*config.Config)) *network {
	t.Helper()
	if os.Geteuid() != 0 {
		cannot(t, "network namespaces need root")
	}
	// Nothing may reach from one test into the next one's network.
	t.Cleanup(func() { goleak.VerifyNone(t) })
	n := &network{t: t, prefix: fmt.Sprintf("swf%d-%d-", os.Getpid(), networks.Add(1)), dir: t.TempDir()}
	if out, err := exec.Command("ip", "netns", "add", n.prefix+"s").CombinedOutput(); err != nil {
		cannot(t, "this kernel or user makes no network namespaces: %v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", n.prefix+"s").Run() })
	n.ip("-n", n.prefix+"s", "link", "add", "br0", "type", "bridge")
	n.ip("-n", n.prefix+"s", "link", "set", "br0", "up")
	n.plug(n.prefix+"c", "10.99.0.100")
	var peers []string
	for i := range size {
		peers = append(peers, fmt.Sprintf("10.99.0.%d:7402", i+1))
	}
	for i := range size {
		h := &host{net: n, bin: bin, name: fmt.Sprintf("%s%d", n.prefix, i), ip: fmt.Sprintf("10.99.0.%d", i+1)}
		n.plug(h.name, h.ip)
		h.cfg = config.Default()
		h.cfg.Hub, h.cfg.Node, h.cfg.Replicas, h.cfg.Peers = "fault", fmt.Sprintf("node-%d", i), size, peers
		h.cfg.Advertise, h.cfg.Log.Level = h.ip, "warn"
		if *logs != "" {
			h.cfg.Log.Level = "debug"
		}
		h.cfg.Drain.Timeout = config.Duration(20 * time.Second)
		for _, set := range settings {
			set(&h.cfg)
		}
		n.nodes = append(n.nodes, h)
		h.start()
		t.Cleanup(h.kill)
	}
	n.ready()
	return n
}

// ip runs the command of that name.
func (n *network) ip(args ...string) {
	n.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		n.t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// plug makes a namespace with an address on the bridge.
func (n *network) plug(name, ip string) {
	n.t.Helper()
	n.ip("netns", "add", name)
	n.t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	end := "p" + ip[strings.LastIndexByte(ip, '.')+1:]
	n.ip("-n", n.prefix+"s", "link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", name)
	n.ip("-n", n.prefix+"s", "link", "set", end, "master", "br0", "up")
	n.ip("-n", name, "addr", "add", ip+"/24", "dev", "eth0")
	n.ip("-n", name, "link", "set", "eth0", "up")
	n.ip("-n", name, "link", "set", "lo", "up")
}

func (h *host) start() {
	h.net.t.Helper()
	text, err := h.cfg.Marshal()
	if err != nil {
		h.net.t.Fatal(err)
	}
	path := filepath.Join(h.net.dir, h.name+".yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		h.net.t.Fatal(err)
	}
	h.cmd = exec.Command("ip", "netns", "exec", h.name, h.bin, "--config", path)
	h.cmd.Stderr = os.Stderr
	if *logs != "" {
		log, err := os.OpenFile(filepath.Join(*logs, strings.ReplaceAll(h.net.t.Name(), "/", "-")+"-"+h.cfg.Node+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			h.net.t.Fatal(err)
		}
		defer log.Close() // the process has its own
		h.cmd.Stderr = log
	}
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := h.cmd.Start(); err != nil {
		h.net.t.Fatal(err)
	}
	h.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) { // ends with the process
		_ = cmd.Wait()
		close(ended)
	}(h.cmd, h.ended)
}

func (h *host) signal(s syscall.Signal) { _ = h.cmd.Process.Signal(s) }

// kill is a crash.
func (h *host) kill() {
	h.signal(syscall.SIGKILL)
	<-h.ended
}

// end stops the node in order.
func (h *host) end() {
	h.signal(syscall.SIGTERM)
	select {
	case <-h.ended:
	case <-time.After(patience):
		h.net.t.Errorf("%s has not ended after %v", h.cfg.Node, patience)
		h.kill()
	}
}

// deafen makes the host drop what comes from another one.
func (h *host) deafen(from *host) { h.iptables("-A", from) }

// hear undoes deafen.
func (h *host) hear(from *host) { h.iptables("-D", from) }

func (h *host) iptables(what string, from *host) {
	h.net.t.Helper()
	if out, err := exec.Command("ip", "netns", "exec", h.name, "iptables", "-w", what, "INPUT", "-s", from.ip, "-j", "DROP").CombinedOutput(); err != nil {
		cannot(h.net.t, "this machine has no packet filter in namespaces: %v: %s", err, out)
	}
}

// lossy makes the host drop a part of all that comes.
func (h *host) lossy(part string) {
	h.net.t.Helper()
	if out, err := exec.Command("ip", "netns", "exec", h.name, "iptables", "-w", "-A", "INPUT", "!", "-i", "lo", "-m", "statistic", "--mode", "random", "--probability", part, "-j", "DROP").CombinedOutput(); err != nil {
		cannot(h.net.t, "this machine can't drop packets at random: %v: %s", err, out)
	}
}

// dial connects from the clients' host.
func (n *network) dial(ctx context.Context, network, address string) (net.Conn, error) {
	there, err := unix.Open("/run/netns/"+n.prefix+"c", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(there) }()
	runtime.LockOSThread()
	here, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	defer func() { _ = unix.Close(here) }()
	if err := unix.Setns(there, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	conn, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, network, address)
	if unix.Setns(here, unix.CLONE_NEWNET) == nil {
		runtime.UnlockOSThread() // else the thread ends with its goroutine
	}
	return conn, err
}

// get asks a node's HTTP API.
func (n *network) get(h *host, path string) (*http.Response, error) {
	c := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DialContext: n.dial, DisableKeepAlives: true}}
	return c.Get("http://" + h.ip + ":7480" + path)
}

// read returns what a node's HTTP API says, nothing when it says nothing.
func (n *network) read(h *host, path string) string {
	resp, err := n.get(h, path)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return ""
	}
	return string(text)
}

// ready returns when all nodes are.
func (n *network) ready() {
	n.t.Helper()
	for _, h := range n.nodes {
		n.wait(h.cfg.Node+" to be ready", func() bool {
			resp, err := n.get(h, "/readyz")
			if err != nil {
				return false
			}
			_ = resp.Body.Close()
			return resp.StatusCode == http.StatusOK
		})
	}
}

func (n *network) wait(what string, holds func() bool) {
	n.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			n.t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

func (n *network) servers() []string {
	var all []string
	for _, h := range n.nodes {
		all = append(all, h.ip+":7400")
	}
	return all
}
