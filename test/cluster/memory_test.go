package cluster_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/test/cluster"
	"github.com/switchboardhub/switchboard/wire"
)

// stranger is a client of which the test decides what it reads.
type stranger struct {
	t       *testing.T
	conn    net.Conn
	welcome wire.Welcome // empty when it was refused
	refusal wire.Fault
}

// meet shakes hands with a node, in a session that was before, if any.
func meet(t *testing.T, n *cluster.Node, id, session string) *stranger {
	t.Helper()
	conn, err := net.Dial("tcp", n.Client())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	s := &stranger{t: t, conn: conn}
	s.write(wire.AppendControl(nil, wire.Header{Kind: wire.KindHello}, "", wire.Hello{
		MinVersion: wire.Version, MaxVersion: wire.Version, ID: id, Resumable: true, Session: session, Attempt: uint64(len(session)) + 1,
	}))
	switch f := s.read(); f.Kind() {
	case wire.KindWelcome:
		err = wire.DecodeControl(f, &s.welcome)
	case wire.KindError:
		s.refusal = wire.ParseFault(f.Body())
	default:
		t.Fatalf("%s: hello is answered with a frame of kind %d", id, f.Kind())
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// read reads one frame and nothing behind it.
func (s *stranger) read() wire.Frame {
	s.t.Helper()
	length := make([]byte, 4)
	_, err := io.ReadFull(s.conn, length)
	if err != nil {
		s.t.Fatal(err)
	}
	frame := slices.Concat(length, make([]byte, binary.BigEndian.Uint32(length)))
	if _, err = io.ReadFull(s.conn, frame[4:]); err != nil {
		s.t.Fatal(err)
	}
	f, err := wire.ParseFrame(frame)
	if err != nil {
		s.t.Fatal(err)
	}
	return f
}

func (s *stranger) write(b []byte) {
	s.t.Helper()
	if _, err := s.conn.Write(b); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stranger) subscribe(ref uint32, pattern string) {
	s.t.Helper()
	s.write(wire.AppendControl(nil, wire.Header{Kind: wire.KindSubscribe, Ref: ref}, pattern, wire.Subscription{}))
	if f := s.read(); f.Kind() != wire.KindAck {
		s.t.Fatalf("subscribe to %s: a frame of kind %d", pattern, f.Kind())
	}
}

// Memory fills with what waits for clients that don't read. The node first refuses newcomers,
// who find another node; then it lets the slowest go, and only that; then it is as before.
// Who reads misses nothing, and the link between the nodes stays.
func TestANodeShortOfMemoryShedsItsSlowestClients(t *testing.T) {
	c := cluster.Start(t, 2, func(cfg *config.Config) { cfg.Limits.MaxPendingBytes = 1 << 30 })
	short := c.Node(0)
	bytesOf := func(series string) int {
		text := metric(c, 0, series)
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			t.Fatalf("%s is %q", series, text)
		}
		return int(n)
	}
	limit := func(bytes int) {
		cfg := short.Config()
		cfg.Limits.MaxMemory = config.Bytes(bytes)
		if err := short.Configure(cfg, ""); err != nil {
			t.Fatal(err)
		}
		c.WaitFor(fmt.Sprintf("limit of %d bytes", bytes), func() bool { return bytesOf("memory_limit_bytes") == bytes })
	}
	runtime.GC()
	limit(1 << 40)
	limit(bytesOf("memory_used_bytes") + 64<<20)

	left := make(chan error, 10)
	stays := client.OnDisconnect(func(err error) { left <- err })
	read := make(inbox, 1000)
	quick, pub := connect(t, short, "quick", stays), connect(t, short, "pub", stays)
	if _, err := quick.Subscribe(patient(t), "t.>", read.handle); err != nil {
		t.Fatal(err)
	}
	slowest, slow := meet(t, short, "slowest", ""), meet(t, short, "slow", "")
	slowest.subscribe(1, "t.>")
	slowest.subscribe(2, "t.*")
	slow.subscribe(1, "t.>")

	published := uint64(0)
	publish := func() { // and what was published has come
		t.Helper()
		for range 64 {
			published++
			payload := binary.BigEndian.AppendUint64(make([]byte, 0, 4000), published)
			if _, err := pub.Publish(context.Background(), "t.x", &wire.Artifact{Payload: payload[:4000]}); err != nil {
				t.Fatal(err)
			}
			if err := pub.Flush(context.Background()); err != nil { // a frame of its own is copied for each that it waits for
				t.Fatal(err)
			}
		}
		for i := published - 63; i <= published; i++ {
			if a := read.next(t); binary.BigEndian.Uint64(a.Payload) != i {
				t.Fatalf("artifact %d came, want %d", binary.BigEndian.Uint64(a.Payload), i)
			}
		}
		runtime.GC()
	}
	newcomers := 0
	refused := func() wire.Fault {
		newcomers++ // one that came before would be known
		return meet(t, short, fmt.Sprintf("newcomer-%d", newcomers), "").refusal
	}

	for refused().Code == 0 {
		publish()
	}
	want := wire.Fault{Code: wire.CodeOverloaded, Elsewhere: []string{c.Node(1).Client()}}
	got := refused()
	if got.Detail == "" {
		t.Error("the refusal has no words")
	}
	got.Detail = ""
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("refusal (-want +got):\n%s", diff)
	}
	if node := connect(t, short, "guest").Server().Node; node != "node-1" {
		t.Errorf("a client with the short node's address came to %s, want node-1", node)
	}
	if level := bytesOf("memory_level"); level != 1 {
		t.Errorf("level %d while newcomers are refused, want 1", level)
	}

	for bytesOf(`clients_left_total{reason="shed"}`) == 0 {
		publish()
	}
	_, _ = io.Copy(io.Discard, slowest.conn) // until it ends, in whichever way
	c.WaitFor("admission of newcomers", func() bool {
		runtime.GC()
		return refused().Code == 0
	})
	publish()
	if shed := bytesOf(`clients_left_total{reason="shed"}`); shed != 1 {
		t.Errorf("%d clients had to go, want the slowest alone", shed)
	}
	if again := meet(t, short, "slowest", slowest.welcome.Session); !again.welcome.Resumed {
		t.Errorf("the slowest client can't come back to its session: %+v", again)
	}
	if n := bytesOf("mesh_links"); n != 1 {
		t.Errorf("%d links between nodes, want 1", n)
	}
	if len(left) > 0 {
		t.Errorf("a client that reads had to go: %v", <-left)
	}
	if n := bytesOf(`clients_refused_total{reason="memory"}`); n < 3 {
		t.Errorf("%d clients are counted as refused, want 3 at least", n)
	}
	limit(0)
}
