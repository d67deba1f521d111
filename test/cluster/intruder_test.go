package cluster_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/directory"
	"github.com/switchboardhub/switchboard/test/cluster"
	"github.com/switchboardhub/switchboard/wire"
)

// A node speaks for itself: what it says of another one's clients changes nothing.
func TestNobodySpeaksForAnotherNode(t *testing.T) {
	c := cluster.Start(t, 2, nil)
	box := make(inbox, 10)
	connect(t, c.Node(1), "victim", numbered(box))
	from := connect(t, c.Node(0), "from")
	if err := from.Send(patient(t), "victim", &wire.Artifact{Payload: []byte("0")}); err != nil {
		t.Fatal(err)
	}

	conn, err := net.Dial("tcp", c.Node(0).Mesh())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(cluster.Patience)); err != nil {
		t.Fatal(err)
	}
	hello := map[string]any{"minVersion": wire.Version, "maxVersion": wire.Version, "hub": "test/" + t.Name(), "node": "intruder", "incarnation": 1}
	if _, err := conn.Write(wire.AppendControl(nil, wire.Header{Kind: wire.KindMesh}, "", hello)); err != nil {
		t.Fatal(err)
	}
	r := wire.NewReader(conn, 1<<20)
	defer r.Close()
	if f, err := r.Next(); err != nil || f.Kind() != wire.KindMesh {
		t.Fatalf("the greeting is answered with %v, %v", f, err)
	}
	gone := directory.Announcement{
		Owner: directory.Owner{Node: "node-1", Incarnation: 1 << 62}, To: 1, Snapshot: true, Parts: 1,
	}
	for _, body := range [][]byte{gone.AppendTo(nil), []byte("what nobody can read")} {
		if _, err := conn.Write(wire.AppendFrame(nil, wire.Header{Kind: wire.KindAnnounce}, "", "", body)); err != nil {
			t.Fatal(err)
		}
	}
	c.WaitFor("both to be refused", func() bool {
		return strings.Contains(c.Metrics(0), "switchboard_directory_refused_total 2\n")
	})
	if err := from.Send(patient(t), "victim", &wire.Artifact{Payload: []byte("1")}); err != nil {
		t.Errorf("the client whose node was said to have none: %v", err)
	}
	expectAll(t, box, 2)
}
