//go:build fault

package fault

import (
	"context"
	"encoding/json"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/test/check"
	"github.com/switchboardhub/switchboard/wire"
)

const (
	clients = 12
	rate    = 600 // artifacts per second
)

// hub is a network under load.
type hub struct {
	*network
	load *check.Load
}

func begin(t *testing.T) *hub {
	t.Helper()
	n := newNetwork(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	load, err := check.Start(ctx, check.Config{
		Servers: n.servers(), Clients: clients, Rate: rate, Prefix: "c",
		Options: []client.Option{client.WithDialer(n.dial), client.WithReconnectWait(20*time.Millisecond, time.Second)},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(load.Close)
	h := &hub{n, load}
	h.flows("before the fault")
	return h
}

// flows returns when the load has come further by some seconds' worth.
func (h *hub) flows(when string) {
	h.t.Helper()
	before := h.load.Acknowledged()
	h.wait("artifacts "+when, func() bool { return h.load.Acknowledged() > before+2*rate })
}

// agree returns when every node lists the same clients, each on one node, and can
// reach each.
func (h *hub) agree() {
	h.t.Helper()
	want := h.load.IDs()
	slices.Sort(want)
	for _, n := range h.nodes {
		h.wait(n.cfg.Node+" to list every client once", func() bool {
			resp, err := h.get(n, "/v1/clients")
			if err != nil {
				return false
			}
			defer resp.Body.Close()
			var list struct {
				Clients []struct {
					ID   string `json:"id"`
					Away bool   `json:"away"`
				} `json:"clients"`
			}
			if json.NewDecoder(resp.Body).Decode(&list) != nil {
				return false
			}
			var got []string
			for _, c := range list.Clients {
				if !c.Away {
					got = append(got, c.ID)
				}
			}
			slices.Sort(got)
			return slices.Equal(got, want)
		})
	}
}

// end stops the load and judges it.
func (h *hub) end(allowed check.Allowed) {
	h.t.Helper()
	h.agree()
	h.flows("after the fault")
	v := h.load.Stop(20 * time.Second)
	h.t.Logf("%+v", v)
	if err := v.Err(allowed); err != nil {
		h.t.Error(err)
	}
}

// lostWithANode is what a node's crash may cost: what its sessions kept, and what
// it had taken and not yet passed on. At this rate that is well below a second's.
const lostWithANode = rate

func TestCrash(t *testing.T) {
	h := begin(t)
	h.nodes[1].kill()
	h.flows("while a node is dead")
	h.nodes[1].start()
	h.ready()
	h.end(check.Allowed{Lost: lostWithANode})
}

func TestCrashOfAllNodes(t *testing.T) {
	h := begin(t)
	for _, n := range h.nodes {
		n.kill()
	}
	for _, n := range h.nodes {
		n.start()
	}
	h.ready()
	h.end(check.Allowed{Lost: 3 * lostWithANode})
}

func TestRollingRestart(t *testing.T) {
	h := begin(t)
	for _, n := range h.nodes {
		n.end()
		n.start()
		h.ready()
		h.flows("after a node restarted")
	}
	h.end(check.Allowed{})
}

// A process that hangs is given up like a dead one, and comes back as itself.
func TestHang(t *testing.T) {
	h := begin(t)
	h.nodes[1].signal(syscall.SIGSTOP)
	hung := time.Now()
	h.wait("time to be over in which the others notice", func() bool { return time.Since(hung) > 15*time.Second })
	h.flows("while a node hangs")
	h.nodes[1].signal(syscall.SIGCONT)
	h.end(check.Allowed{Lost: lostWithANode})
}

func TestShortHang(t *testing.T) {
	h := begin(t)
	h.nodes[1].signal(syscall.SIGSTOP)
	hung := time.Now()
	h.wait("a second", func() bool { return time.Since(hung) > time.Second })
	h.nodes[1].signal(syscall.SIGCONT)
	h.end(check.Allowed{})
}

func TestPartition(t *testing.T) {
	for name, cut := range map[string]func(h *hub, do func(at, from *host)){
		"full": func(h *hub, do func(at, from *host)) {
			for _, other := range h.nodes[1:] {
				do(h.nodes[0], other)
				do(other, h.nodes[0])
			}
		},
		"one way": func(h *hub, do func(at, from *host)) {
			do(h.nodes[0], h.nodes[1])
			do(h.nodes[0], h.nodes[2])
		},
		"one link": func(h *hub, do func(at, from *host)) {
			do(h.nodes[0], h.nodes[1])
			do(h.nodes[1], h.nodes[0])
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := begin(t)
			cut(h, (*host).deafen)
			begun := time.Now()
			h.wait("time to be over in which the nodes notice", func() bool { return time.Since(begun) > 15*time.Second })
			cut(h, (*host).hear)
			h.end(check.Allowed{Lost: 3 * lostWithANode})
		})
	}
}

func TestLossyNetwork(t *testing.T) {
	h := begin(t)
	for _, n := range h.nodes {
		n.lossy("0.05")
	}
	h.flows("with a twentieth of all packets lost")
	h.end(check.Allowed{})
}

// A node that comes back under another address is the same node.
func TestNewAddress(t *testing.T) {
	h := begin(t)
	n := h.nodes[2]
	n.kill()
	h.ip("-n", n.name, "addr", "del", n.ip+"/24", "dev", "eth0")
	n.ip = "10.99.0.77"
	h.ip("-n", n.name, "addr", "add", n.ip+"/24", "dev", "eth0")
	n.cfg.Advertise = n.ip
	n.start()
	h.ready()
	h.end(check.Allowed{Lost: lostWithANode})
}

// What is no frame, on any port, disturbs nobody.
func TestGarbage(t *testing.T) {
	h := begin(t)
	for _, n := range h.nodes {
		for _, port := range []string{"7400", "7401", "7402", "7480"} {
			conn, err := h.dial(t.Context(), "tcp", net.JoinHostPort(n.ip, port))
			if err != nil {
				t.Fatal(err)
			}
			_, _ = conn.Write(slices.Repeat([]byte("garbage "), 1000)) // it may be closed by then
			defer conn.Close()
		}
		conn, err := h.dial(t.Context(), "udp", net.JoinHostPort(n.ip, "7402"))
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			_, _ = conn.Write([]byte("garbage"))
		}
		_ = conn.Close()
	}
	h.end(check.Allowed{})
}

// While nobody is there, a sender is told so at once.
func TestNobodyIsThere(t *testing.T) {
	h := begin(t)
	c, err := client.Connect(t.Context(), h.servers()[0], client.WithID("asker"), client.WithDialer(h.dial))
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if err := c.Send(t.Context(), "nobody", &wire.Artifact{}); err == nil {
			t.Fatal("a send to nobody succeeds")
		}
	}
	_ = c.Close()
	h.end(check.Allowed{})
}
