package mesh_test

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/mesh"
	"github.com/switchboardhub/switchboard/wire"
)

func TestWhoDoesNotBelongHereIsRefused(t *testing.T) {
	for name, greeting := range map[string][]byte{
		"what is no frame":       []byte("GET / HTTP/1.1\r\nHost: hub\r\n\r\n"),
		"a node of another hub":  hello("other", "node-0", wire.Version),
		"a node of this name":    hello("hub", "node-1", wire.Version),
		"a node without a name":  hello("hub", "", wire.Version),
		"a node of a later time": hello("hub", "node-0", mesh.VersionBundles+1),
	} {
		t.Run(name, func(t *testing.T) {
			e := start(t, "node-1", 1)
			conn, err := net.Dial("tcp", e.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write(greeting); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection stays open")
			}
			if e.mesh.Links() != 0 || e.refused() != 1 {
				t.Errorf("%d links are up and %d refused, want none and 1", e.mesh.Links(), e.refused())
			}
		})
	}
}
