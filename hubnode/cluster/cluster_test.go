package cluster

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/goleak"

	"github.com/switchboardhub/switchboard/test/ports"
	"github.com/switchboardhub/switchboard/wire"
)

// memberlist's Shutdown does not wait for the probe under way, which ends by
// itself within a second.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

const patience = 30 * time.Second

// node is a member under test, and what it saw last.
type node struct {
	*Cluster
	bind string
	stop func() // ends its Run

	mu   sync.Mutex // guards seen
	seen []Member
}

func start(t *testing.T, hub, name string, incarnation uint64, bind string, key []byte, peers ...string) *node {
	t.Helper()
	var keys [][]byte
	if key != nil {
		keys = append(keys, key)
	}
	return startWith(t, hub, name, incarnation, bind, keys, peers...)
}

// startWith is start with any number of keys.
func startWith(t *testing.T, hub, name string, incarnation uint64, bind string, keys [][]byte, peers ...string) *node {
	t.Helper()
	n := &node{bind: bind}
	c, err := Start(Config{
		Hub: hub, Self: Member{Name: name, Incarnation: incarnation, Client: name + ":7400", Cluster: name + ":7401", HTTP: name + ":7480"},
		Bind: bind, Advertise: "127.0.0.1", Keys: keys, Log: slog.New(slog.DiscardHandler),
		Peers: func() []string { return peers },
		Changed: func(members []Member) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.seen = members
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	n.Cluster = c
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }() // ended by stop, which waits
	n.stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(func() {
		n.stop()
		_ = c.list.Shutdown()
	})
	return n
}

// waitFor returns when the node sees what holds wants.
func (n *node) waitFor(t *testing.T, what string, holds func([]Member) bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		n.mu.Lock()
		seen := n.seen
		n.mu.Unlock()
		if holds(seen) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %s within %s: %s sees %+v", what, patience, n.cfg.Self.Name, seen)
		}
	}
}

func size(want int) func([]Member) bool { return func(m []Member) bool { return len(m) == want } }

func TestNodesFindEachOtherAndNoticeWhoLeaves(t *testing.T) {
	addrs := []string{ports.Free(t), ports.Free(t), ports.Free(t)}
	var nodes []*node
	for i, addr := range addrs {
		nodes = append(nodes, start(t, "hub", fmt.Sprintf("node-%d", i), 1, addr, nil, addrs...))
	}
	for _, n := range nodes {
		n.waitFor(t, "two others", size(2))
	}
	if m := nodes[0].Members()[0]; m.Name != "node-1" || m.Client != "node-1:7400" || m.State != Joining {
		t.Errorf("node-0 sees %+v first", m)
	}
	nodes[1].SetState(Draining)
	nodes[0].waitFor(t, "node-1 draining", func(m []Member) bool { return len(m) == 2 && m[0].State == Draining })
	nodes[1].stop()
	if err := nodes[1].Leave(); err != nil {
		t.Fatal(err)
	}
	nodes[0].waitFor(t, "one other", size(1))
}

func TestNewIncarnationAtTheSameAddressAfterACrash(t *testing.T) {
	a, b := ports.Free(t), ports.Free(t)
	first := start(t, "hub", "node-0", 1, a, nil, a, b)
	crashed := start(t, "hub", "node-1", 1, b, nil, a, b)
	first.waitFor(t, "the other", size(1))
	crashed.stop()
	if err := crashed.list.Shutdown(); err != nil { // without a word to the others
		t.Fatal(err)
	}
	start(t, "hub", "node-1", 2, b, nil, a, b)
	first.waitFor(t, "the new incarnation", func(m []Member) bool { return len(m) == 1 && m[0].Incarnation == 2 })
}

func TestOthersAreNotHeard(t *testing.T) {
	key := bytes.Repeat([]byte{1}, 32)
	for name, other := range map[string]struct {
		hub string
		key []byte
	}{
		"another hub":         {"other", key},
		"another key":         {"hub", bytes.Repeat([]byte{2}, 32)},
		"no key where is one": {"hub", nil},
	} {
		t.Run(name, func(t *testing.T) {
			a, b, c := ports.Free(t), ports.Free(t), ports.Free(t)
			ours := start(t, "hub", "node-0", 1, a, key, a, b, c)
			start(t, other.hub, "node-1", 1, b, other.key, a, b, c)
			// A third one of ours shows that time enough has passed to hear.
			start(t, "hub", "node-2", 1, c, key, a, b, c)
			ours.waitFor(t, "our other node", func(m []Member) bool { return len(m) > 0 })
			if m := ours.Members(); len(m) != 1 || m[0].Name != "node-2" {
				t.Errorf("node-0 sees %+v, want node-2 only", m)
			}
		})
	}
}

func TestNodeThatNamesNobodyElseIsAlone(t *testing.T) {
	a := ports.Free(t)
	n := start(t, "hub", "node-0", 1, a, nil, a)
	n.waitFor(t, "conclusion", func([]Member) bool { return n.Joined() })
}

func TestNodeWithUnreachablePeersDoesNotConcludeAtOnce(t *testing.T) {
	n := start(t, "hub", "node-0", 1, ports.Free(t), nil, ports.Free(t))
	n.conclude(false, false)
	if n.Joined() {
		t.Error("it says it has joined although nobody answers")
	}
	n.conclude(false, true)
	if !n.Joined() {
		t.Error("it still waits after the grace")
	}
}

func TestNodesThatCanNotTalkAreRefused(t *testing.T) {
	c := &Cluster{}
	for meta, ok := range map[string]bool{
		`{"s":"active","c":"a:1","m":"a:2","h":"a:3"}`:                                           true, // of before it said which
		fmt.Sprintf(`{"s":"active","c":"a:1","m":"a:2","h":"a:3","p":1,"q":%d}`, wire.Version):   true,
		fmt.Sprintf(`{"s":"active","c":"a:1","m":"a:2","h":"a:3","p":1,"q":%d}`, wire.Version+5): true,
		fmt.Sprintf(`{"s":"active","c":"a:1","m":"a:2","h":"a:3","p":%d,"q":9}`, wire.Version+1): false,
		"garbage": false,
	} {
		err := c.NotifyMerge([]*memberlist.Node{{Name: "a-0~1", Addr: net.IPv4(127, 0, 0, 1), Meta: []byte(meta)}})
		if (err == nil) != ok {
			t.Errorf("%s: %v", meta, err)
		}
	}
}

func TestWhatANodeSaysOfItselfFits(t *testing.T) {
	long := strings.Repeat("n", 63) + "." + strings.Repeat("d", 63) + ".svc:65535"
	c := &Cluster{self: Member{State: Draining, Version: strings.Repeat("v", 40), Client: long[:80], Cluster: long[:80], HTTP: long[:80], MinProtocol: 1, MaxProtocol: 99}}
	b := c.NodeMeta(memberlist.MetaMaxSize)
	got, ok := parse(&memberlist.Node{Name: "a-0~1", Meta: b})
	if !ok || got.MaxProtocol != 99 || got.Client != long[:80] {
		t.Errorf("%d bytes say %+v", len(b), got)
	}
}
