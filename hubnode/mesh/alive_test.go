package mesh_test

import (
	"net"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

func hello(hub, node string, version int) []byte { return helloRange(hub, node, version, version) }

func helloRange(hub, node string, minimum, maximum int) []byte {
	return wire.AppendControl(nil, wire.Header{Kind: wire.KindMesh}, "", map[string]any{
		"minVersion": minimum, "maxVersion": maximum, "hub": hub, "node": node, "incarnation": 1,
	})
}

// mute opens a link to e as a node that says nothing after its hello.
func mute(t *testing.T, e *end) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", e.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := conn.Write(hello("hub", "node-0", wire.Version)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestHungPeerLosesItsLink(t *testing.T) {
	e := start(t, "node-1", 1)
	mute(t, e) // its socket stays open and takes what is sent
	wait(t, "link", e.linked)
	began := time.Now()
	wait(t, "end of the link", e.unlinked)
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("the link ended after %s: a short pause must not end it", took)
	}
}

func TestQuietLinkStays(t *testing.T) {
	a, b, _, _ := pair(t)
	select {
	case <-a.unlinked:
	case <-b.unlinked:
	case <-time.After(6 * time.Second): // longer than silence is borne
		return
	}
	t.Error("a link without traffic ended")
}
