package mesh_test

import (
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/mesh"
)

// flood is a port to which each connection comes from another address.
type flood struct {
	net.Listener
	came atomic.Uint32
}

type fromAfar struct {
	net.Conn
	from net.TCPAddr
}

func (c *fromAfar) RemoteAddr() net.Addr { return &c.from }

func (f *flood) Accept() (net.Conn, error) {
	conn, err := f.Listener.Accept()
	if err != nil {
		return nil, err
	}
	n := f.came.Add(1)
	return &fromAfar{conn, net.TCPAddr{IP: net.IPv4(10, 0, byte(n>>8), byte(n)), Port: 7401}}, nil
}

// Whoever opens connections to the cluster port and says nothing keeps no node out: not from
// one address, and not from many.
func TestSilentConnectionsKeepNoNodeOut(t *testing.T) {
	for name, test := range map[string]struct {
		listen func(net.Listener) net.Listener
		silent int
		why    mesh.Refusal
		least  uint64 // refused for that
	}{
		"from one address": {func(ln net.Listener) net.Listener { return ln }, 100, mesh.RefusedRate, 1},
		"from many":        {func(ln net.Listener) net.Listener { return &flood{Listener: ln} }, 300, mesh.RefusedCrowded, 300 - 256},
	} {
		t.Run(name, func(t *testing.T) {
			socket, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			b := startOn(t, test.listen(socket), "node-1", 1, nil)
			for range test.silent {
				conn, err := net.Dial("tcp", b.addr)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = conn.Close() })
			}
			a := start(t, "node-0", 1)
			a.mesh.SetPeers([]mesh.Peer{b.peer(1)})
			b.mesh.SetPeers([]mesh.Peer{a.peer(1)})
			wait(t, "link", b.linked)
			wait(t, "link", a.linked)
			for end := time.Now().Add(patience); b.mesh.Refused()[test.why] < test.least; time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("%v were refused, want %d at least for %q", b.mesh.Refused(), test.least, test.why)
				}
			}
		})
	}
}
