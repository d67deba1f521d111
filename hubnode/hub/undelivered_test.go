package hub_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/hubnode/outbox"
	"github.com/switchboardhub/switchboard/wire"
)

const smallQueue = 100_000

// stalled registers a client that reads nothing and whose queue is full, but
// for less than 500 bytes.
func stalled(t *testing.T, h *hub.Hub, id string, topics ...string) {
	t.Helper()
	hubs, far := pair(t, "pipe")
	if err := h.RegisterClient(id, hubs); err != nil {
		t.Fatal(err)
	}
	if err := h.Subscribe(id, topics...); err != nil {
		t.Fatal(err)
	}
	fill(t, h, id, far)
}

// fill fills the queue of a client that reads nothing any more. At the end of
// the test the client leaves, before the hub stops and waits for it.
func fill(t *testing.T, h *hub.Hub, id string, far io.Closer) {
	t.Helper()
	c, _ := h.Client(id)
	t.Cleanup(func() {
		_ = far.Close()
		<-c.Done()
	})
	for {
		_, err := h.Route(t.Context(), &wire.Artifact{To: id, Payload: make([]byte, 500)})
		if _, full := errors.AsType[*hub.SlowClientError](err); full {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// fullLink has no room for anything.
type fullLink struct{}

func (*fullLink) Push([]byte, []byte, *wire.Slab) outbox.Verdict { return outbox.Full }
func (*fullLink) PushControl([]byte) outbox.Verdict              { return outbox.Full }
func (*fullLink) Flush()                                         {}
func (*fullLink) FlushAside()                                    {}

func TestRouteSaysWhoCouldNotBeGivenIt(t *testing.T) {
	h := start(t, hub.WithSettings(hub.Settings{PendingBytes: smallQueue, SlowClient: hub.DropNewest}), hub.WithHistory("kept.*", 10))
	stalled(t, h, "slow-1", "news.*", "news.x", "kept.x")
	stalled(t, h, "slow-2", "news.x")
	quick := join(t, h, "quick")
	quick.subscribe(1, "*.x", wire.Subscription{})
	quick.subscribe(2, "news.*", wire.Subscription{})
	for _, node := range []string{"there", "afar"} {
		h.SetPeer(node, new(fullLink))
		h.PeerInterest(node, "links.*", true)
	}
	for name, test := range map[string]struct {
		topic string
		n     int
		want  *hub.UndeliveredError
		text  string
	}{
		"nobody is there":                      {topic: "weather.y"},
		"everyone has room":                    {topic: "quick.x", n: 1},
		"clients are slow":                     {"news.x", 2, &hub.UndeliveredError{Clients: []string{"slow-1", "slow-2"}}, `clients ["slow-1" "slow-2"]`},
		"one client has two subscriptions":     {"news.y", 1, &hub.UndeliveredError{Clients: []string{"slow-1"}}, `clients ["slow-1"]`},
		"links are full":                       {"links.x", 1, &hub.UndeliveredError{Nodes: []string{"afar", "there"}}, `nodes ["afar" "there"]`},
		"who is slow reads from history later": {topic: "kept.x", n: 2},
	} {
		t.Run(name, func(t *testing.T) {
			n, err := h.Route(t.Context(), &wire.Artifact{Topic: test.topic, Payload: make([]byte, 600)})
			got, _ := errors.AsType[*hub.UndeliveredError](err)
			if diff := cmp.Diff(test.want, got); n != test.n || diff != "" || (err == nil) != (test.want == nil) {
				t.Errorf("Route = %d, %v; want %d\n%s", n, err, test.n, diff)
			}
			if err != nil && !strings.Contains(err.Error(), test.text) {
				t.Errorf("the error is %q, want %q in it", err, test.text)
			}
		})
	}
}

func TestRouteToAClientSaysWhyNot(t *testing.T) {
	c := newCluster(t, "a", []string{"a", "b"}, hub.WithSettings(hub.Settings{PendingBytes: smallQueue, SlowClient: hub.DropNewest}))
	a, b := c.nodes["a"], c.nodes["b"]
	stalled(t, a.Hub, "slow")
	far := join(t, b.Hub, "far")
	if n, err := a.Route(t.Context(), &wire.Artifact{To: "far"}); n != 1 || err != nil {
		t.Errorf("Route = %d, %v; want 1", n, err)
	}
	far.expect(wire.KindSend, 0)
	n, err := a.Route(t.Context(), &wire.Artifact{To: "slow", Payload: make([]byte, 600)})
	if slow, ok := errors.AsType[*hub.SlowClientError](err); !ok || n != 0 || slow.ID != "slow" {
		t.Errorf("Route = %d, %v; want SlowClientError", n, err)
	}
	a.SetPeer("b", new(fullLink))
	n, err = a.Route(t.Context(), &wire.Artifact{To: "far"})
	want := &hub.UndeliveredError{Nodes: []string{"b"}}
	if got, _ := errors.AsType[*hub.UndeliveredError](err); n != 0 || cmp.Diff(want, got) != "" {
		t.Errorf("Route = %d, %v; want %v", n, err, want)
	}
}

func TestUndeliveredNamesOnlyAFew(t *testing.T) {
	e := &hub.UndeliveredError{Nodes: []string{"n"}}
	for i := range 1000 {
		e.Clients = append(e.Clients, fmt.Sprint("c", i))
	}
	want := `no room for it with 1000 clients, among them ["c0" "c1" "c2" "c3" "c4"], nor on the links to nodes ["n"]`
	if got := e.Error(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A member of a group that stalls, or does not want it, gets nothing while others have room, here or
// on another node; when nobody has, the artifact is not lost in silence.
func TestGroupsPassOverStalledMembers(t *testing.T) {
	settings := hub.WithSettings(hub.Settings{PendingBytes: smallQueue, SlowClient: hub.DropNewest})
	group := wire.Subscription{Group: "g"}
	const jobs = 20
	check := func(t *testing.T, h *hub.Hub, quick *peer) {
		t.Helper()
		for i := range jobs {
			if n, err := h.Route(t.Context(), &wire.Artifact{Topic: "jobs", Payload: fmt.Append(nil, i)}); n != 1 || err != nil {
				t.Fatalf("Route = %d, %v; want 1", n, err)
			}
			if got := quick.skipProbes().payloads()[0]; got != fmt.Sprint(i) {
				t.Fatalf("got job %s, want %d", got, i)
			}
		}
	}
	// stalledMember subscribes, and reads nothing from then on.
	stalledMember := func(t *testing.T, h *hub.Hub, id string) {
		t.Helper()
		hubs, far := pair(t, "pipe")
		if err := h.RegisterClient(id, hubs); err != nil {
			t.Fatal(err)
		}
		if _, err := far.Write(control(wire.KindSubscribe, 1, "jobs", group)); err != nil {
			t.Fatal(err)
		}
		if f, err := wire.NewReader(far, 1<<20).Next(); err != nil || f.Kind() != wire.KindAck {
			t.Fatalf("got %v, %v", f, err)
		}
		fill(t, h, id, far)
	}
	t.Run("for one on this hub", func(t *testing.T) {
		h := start(t, settings)
		quick := join(t, h, "quick")
		quick.subscribe(1, "jobs", group)
		stalledMember(t, h, "slow-1")
		stalledMember(t, h, "slow-2")
		check(t, h, quick)
	})
	t.Run("for one on another node", func(t *testing.T) {
		c := newCluster(t, "a", []string{"a", "b"}, settings)
		quick := join(t, c.nodes["b"].Hub, "quick")
		quick.subscribe(1, "jobs", group)
		c.nodes["a"].wantedElsewhere(t, "jobs")
		stalledMember(t, c.nodes["a"].Hub, "slow")
		check(t, c.nodes["a"].Hub, quick)
	})
	t.Run("there as well", func(t *testing.T) {
		c := newCluster(t, "a", []string{"a", "b"}, settings)
		stalledMember(t, c.nodes["b"].Hub, "slow-1")
		stalledMember(t, c.nodes["b"].Hub, "slow-2")
		quick := join(t, c.nodes["b"].Hub, "quick")
		quick.subscribe(1, "jobs", group)
		c.nodes["a"].wantedElsewhere(t, "jobs")
		check(t, c.nodes["a"].Hub, quick)
	})
	t.Run("whose filter lets nothing pass", func(t *testing.T) {
		h := start(t, hub.WithFilterCompiler(func(text string) (hub.Filter, error) { return payloadFilter(text), nil }))
		members := map[string]*peer{"x": join(t, h, "for-x"), "y": join(t, h, "for-y")}
		for filter, m := range members {
			m.subscribe(1, "jobs", wire.Subscription{Group: "g", Filter: filter})
		}
		for i := range jobs {
			for filter, m := range members {
				job := fmt.Sprint(filter, i)
				if n, err := h.Route(t.Context(), &wire.Artifact{Topic: "jobs", Payload: []byte(job)}); n != 1 || err != nil {
					t.Fatalf("Route = %d, %v; want 1", n, err)
				}
				m.expectPayload(1, job)
			}
		}
	})
	t.Run("whose filter lets a part of a run pass", func(t *testing.T) {
		c := newCluster(t, "a", []string{"a", "b"}, hub.WithFilterCompiler(func(text string) (hub.Filter, error) { return payloadFilter(text), nil }))
		members := map[string]*peer{"x": join(t, c.nodes["b"].Hub, "for-x"), "y": join(t, c.nodes["b"].Hub, "for-y")}
		for filter, m := range members {
			m.subscribe(1, "jobs", wire.Subscription{Group: "g", Filter: filter})
		}
		c.nodes["a"].wantedElsewhere(t, "jobs")
		for _, node := range []string{"a", "b"} {
			join(t, c.nodes[node].Hub, "pub-"+node).publish(1, "jobs", "x1", "x2", "y1", "x3", "none", "y2")
			for _, job := range []string{"x1", "x2", "x3"} {
				members["x"].expectPayload(1, job)
			}
			for _, job := range []string{"y1", "y2"} {
				members["y"].expectPayload(1, job)
			}
		}
	})
	t.Run("and nobody is left", func(t *testing.T) {
		h := start(t, settings)
		stalledMember(t, h, "slow")
		n, err := h.Route(t.Context(), &wire.Artifact{Topic: "jobs", Payload: make([]byte, 600)})
		if missed, ok := errors.AsType[*hub.UndeliveredError](err); n != 0 || !ok || missed.Clients[0] != "slow" {
			t.Errorf("Route = %d, %v; want UndeliveredError for slow", n, err)
		}
	})
}
