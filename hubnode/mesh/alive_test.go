package mesh_test

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

// mute opens a link to e as a node that says nothing after its hello.
func mute(t *testing.T, e *end) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", e.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	hello := map[string]any{"minVersion": wire.Version, "maxVersion": wire.Version, "hub": "hub", "node": "node-0", "incarnation": 1}
	if _, err := conn.Write(wire.AppendControl(nil, wire.Header{Kind: wire.KindMesh}, "", hello)); err != nil {
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

func TestGarbageOnTheMeshPortIsRefused(t *testing.T) {
	e := start(t, "node-1", 1)
	conn, err := net.Dial("tcp", e.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: hub\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(io.Discard, conn)
	if ne, ok := err.(net.Error); ok && ne.Timeout() { //nolint:errorlint // io.Copy does not wrap
		t.Error("the connection stays open")
	}
	if e.mesh.Links() != 0 {
		t.Errorf("%d links are up, want none", e.mesh.Links())
	}
}
