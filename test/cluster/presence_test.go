package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/test/cluster"
	"github.com/switchboardhub/switchboard/wire"
)

// watching is a client that watches presence.
type watching struct {
	*client.Client
	t       *testing.T
	updates chan client.PresenceUpdate
	now     map[wire.ClientID]string // where everyone is, by what it was told
}

// watch returns once the watcher, which has the id "watcher", has been told who
// is there.
func watch(t *testing.T, addrs string, opts ...client.Option) *watching {
	t.Helper()
	c, err := client.Connect(patient(t), addrs, append(opts, client.WithID("watcher"), client.WithoutBroadcast())...)
	if err != nil {
		t.Fatal(err)
	}
	w := &watching{Client: c, t: t, updates: make(chan client.PresenceUpdate, 1000), now: make(map[wire.ClientID]string)}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		err := c.WatchPresence(ctx, func(u client.PresenceUpdate) error {
			w.updates <- u
			return nil
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("WatchPresence = %v, want that it was cancelled", err)
		}
	})
	t.Cleanup(func() {
		stop()
		running.Wait()
		_ = c.Close()
	})
	first := w.next()
	if first.Clients == nil || len(first.Events) > 0 {
		t.Fatalf("the first update is %+v, want who is there", first)
	}
	for _, one := range first.Clients {
		w.now[one.ID] = one.Node
	}
	return w
}

// next returns the next update, and applies its events to w.now.
func (w *watching) next() client.PresenceUpdate {
	w.t.Helper()
	select {
	case u := <-w.updates:
		for _, e := range u.Events {
			if e.Kind == wire.PresenceLeft {
				delete(w.now, e.Client)
			} else {
				w.now[e.Client] = e.Node
			}
		}
		return u
	case <-time.After(cluster.Patience):
		w.t.Fatal("nothing is told")
		return client.PresenceUpdate{}
	}
}

// sees fails the test unless the next events are these.
func (w *watching) sees(want ...string) {
	w.t.Helper()
	var got []string
	for len(got) < len(want) {
		got = append(got, texts(w.next().Events)...)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Fatalf("events (-want +got):\n%s", diff)
	}
}

func texts(events []client.PresenceEvent) []string {
	var all []string
	for _, e := range events {
		text := fmt.Sprintf("%s %s %s", e.Client, e.Kind, e.Node)
		if e.Kind == wire.PresenceMoved {
			text = fmt.Sprintf("%s %s %s %s", e.Client, e.Kind, e.From, e.Node)
		}
		if e.Kind == wire.PresenceLeft {
			text += " " + e.Reason.String()
		}
		all = append(all, text)
	}
	return all
}

func smallArtifacts(c *config.Config) { c.Limits.MaxArtifactSize = 4096 }

func connected(t *testing.T, addrs, id string) *client.Client {
	t.Helper()
	c, err := client.Connect(patient(t), addrs, client.WithID(id))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestWatcherIsToldOfJoinsLeavesAndMoves(t *testing.T) {
	c := cluster.Start(t, 3, nil)
	connected(t, c.Node(1).Client(), "early")
	asker := connected(t, c.Node(0).Client(), "asker")
	c.WaitFor("knowledge of it elsewhere", func() bool {
		p, err := asker.Presence(patient(t))
		return err == nil && len(p.Clients) == 2
	})
	w := watch(t, c.Node(0).Client())
	if diff := cmp.Diff(map[wire.ClientID]string{"asker": "node-0", "early": "node-1", "watcher": "node-0"}, w.now); diff != "" {
		t.Errorf("who is there (-want +got):\n%s", diff)
	}

	a := connected(t, c.Node(1).Client(), "a")
	w.sees("a joined node-1")
	connected(t, c.Node(2).Client(), "a") // takes the id over
	w.sees("a moved node-1 node-2")
	<-a.Done()

	b := connected(t, c.Node(0).Client(), "b")
	w.sees("b joined node-0")
	_ = b.Close()
	w.sees("b left node-0 goodbye")

	quick := connected(t, c.Node(1).Client(), "quick")
	w.sees("quick joined node-1")
	_ = quick.Close()
	connected(t, c.Node(2).Client(), "quick")
	w.sees("quick moved node-1 node-2")

	got, err := w.Presence(patient(t))
	if err != nil {
		t.Fatal(err)
	}
	list := make(map[wire.ClientID]string)
	for _, one := range got.Clients {
		list[one.ID] = one.Node
	}
	if diff := cmp.Diff(w.now, list); diff != "" || got.Revision.Node != "node-0" {
		t.Errorf("Presence of %+v (-watched +got):\n%s", got.Revision, diff)
	}
}

func TestReasonsTravelBetweenNodes(t *testing.T) {
	c := cluster.Start(t, 2, nil)
	w := watch(t, c.Node(0).Client())
	var lost net.Conn
	cut, err := client.Connect(patient(t), c.Node(1).Client(), client.WithID("cut"), client.WithMaxReconnects(0),
		client.WithDialer(func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			lost = conn
			return conn, err
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cut.Close() })
	w.sees("cut joined node-1")
	_ = lost.Close()
	w.sees("cut left node-1 disconnected")
}

// Once a node is given up, the leaves of all who were on it are told, and not held back
// as those of others are: who joins after that is told of after them.
func TestDeathOfANodeIsToldAtOnce(t *testing.T) {
	c := cluster.Start(t, 3, nil)
	w := watch(t, c.Node(0).Client())
	var want []string
	for i := range 20 {
		id := fmt.Sprintf("c-%02d", i)
		stays, err := client.Connect(patient(t), c.Node(2).Client(), client.WithID(id), client.WithMaxReconnects(0))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = stays.Close() })
		w.sees(id + " joined node-2")
		want = append(want, id+" left node-2 node_died")
	}
	died := time.Now()
	c.Kill(2)
	c.WaitFor("node-2 to be given up", func() bool {
		return strings.Contains(c.Metrics(0), "switchboard_directory_entries 0\n")
	})
	t.Logf("given up after %v", time.Since(died))
	connected(t, c.Node(1).Client(), "later")
	want = append(want, "later joined node-1")
	got := texts(w.next().Events)
	slices.Sort(got)
	if len(got) == len(want)-1 { // most often; on a slow machine all may be in one update
		got = append(got, texts(w.next().Events)...)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("first all leaves in one update, then the join (-want +got):\n%s", diff)
	}
}

func TestDrainOfANodeMovesItsClients(t *testing.T) {
	c := cluster.Start(t, 3, nil)
	w := watch(t, c.Node(0).Client())
	connected(t, c.Node(2).Client(), "a")
	w.sees("a joined node-2")
	c.Node(2).Stop()
	u := w.next()
	if got := texts(u.Events); len(got) != 1 || !strings.HasPrefix(got[0], "a moved node-2 ") {
		t.Errorf("events %v, want that a moved", got)
	}
}

func TestWatcherThatConnectsAgainIsToldTheDifference(t *testing.T) {
	c := cluster.Start(t, 3, nil)
	stays := connected(t, c.Node(1).Client(), "stays")
	goes := connected(t, c.Node(1).Client(), "goes")
	gate := &gate{}
	w := watch(t, c.Node(0).Client()+","+c.Node(1).Client(), client.WithDialer(gate.dial), client.WithoutSession())

	gate.shut()
	_ = goes.Close()
	connected(t, c.Node(2).Client(), "comes")
	asker := connected(t, c.Node(1).Client(), "asker")
	c.WaitFor("all nodes' knowledge of it", func() bool {
		p, err := asker.Presence(patient(t))
		return err == nil && !slices.ContainsFunc(p.Clients, func(one client.PresentClient) bool { return one.ID == "goes" || one.ID == "watcher" }) &&
			slices.ContainsFunc(p.Clients, func(one client.PresentClient) bool { return one.ID == "comes" })
	})
	gate.open()
	want := map[wire.ClientID]string{"stays": "node-1", "asker": "node-1", "comes": "node-2"}
	for caught := false; !caught; {
		caught = w.next().CaughtUp
	}
	delete(w.now, "watcher") // itself, wherever it is now
	if diff := cmp.Diff(want, w.now); diff != "" {
		t.Errorf("what it was told (-want +got):\n%s", diff)
	}
	_ = stays.Close()
	w.sees("stays left node-1 goodbye")
}

// gate is a dialer whose connections can be cut.
type gate struct {
	mu     sync.Mutex // guards the fields below
	closed bool
	conns  []net.Conn
}

func (g *gate) dial(ctx context.Context, network, address string) (net.Conn, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, errors.New("the gate is shut")
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err == nil {
		g.conns = append(g.conns, conn)
	}
	return conn, err
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	for _, conn := range g.conns {
		_ = conn.Close()
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = false
}

func TestNobodyButTheHubPublishesPresence(t *testing.T) {
	c := cluster.Start(t, 1, nil)
	a := connected(t, c.Node(0).Client(), "a")
	var coded *client.Error
	if _, err := a.Publish(patient(t), wire.TopicPresence, &wire.Artifact{}); !errors.As(err, &coded) || coded.Code != wire.CodeInvalidTopic {
		t.Errorf("Publish = %v, want that the topic is invalid", err)
	}
	everything := make(inbox, 100)
	presence := make(inbox, 100)
	if _, err := a.Subscribe(patient(t), ">", everything.handle); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Subscribe(patient(t), wire.TopicPresence, presence.handle); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Presence(patient(t)); err != nil { // events follow the answer
		t.Fatal(err)
	}
	connected(t, c.Node(0).Client(), "b")
	var u wire.PresenceUpdate
	if err := json.Unmarshal(presence.next(t).Payload, &u); err != nil || len(u.Events) != 1 || u.Events[0].Client != "b" {
		t.Errorf("told %+v, %v; want that b joined", u, err)
	}
	if _, err := a.Publish(patient(t), "after", &wire.Artifact{}); err != nil {
		t.Fatal(err)
	}
	if got := everything.next(t); got.Topic != "after" {
		t.Errorf("a subscriber of > gets %q, want no presence", got.Topic)
	}
}

// A list may be longer than a frame.
func TestLongListsComeInPages(t *testing.T) {
	const clients = 60
	c := cluster.Start(t, 2, smallArtifacts)
	for i := range clients {
		connected(t, c.Node(i%2).Client(), fmt.Sprintf("client-with-a-long-name-%03d", i))
	}
	asker := connected(t, c.Node(0).Client(), "asker")
	var got []string
	c.WaitFor("all clients in the list", func() bool {
		got = nil
		for after, pages := "", 0; ; pages++ {
			question, _ := json.Marshal(wire.PageRequest{After: after})
			answer, err := asker.Request(patient(t), "$hub.clients", &wire.Artifact{Payload: question})
			if err != nil {
				t.Fatal(err)
			}
			var page struct {
				Clients []wire.PresentClient `json:"clients"`
				Next    string               `json:"next"`
			}
			if err := json.Unmarshal(answer.Payload, &page); err != nil || len(answer.Payload) > 4096 {
				t.Fatalf("a page of %d bytes, %v; want at most 4096", len(answer.Payload), err)
			}
			for _, one := range page.Clients {
				got = append(got, one.ID)
			}
			if after = page.Next; after == "" {
				return len(got) == clients+1 && pages > 1 && slices.IsSorted(got)
			}
		}
	})
	p, err := asker.Presence(patient(t))
	if err != nil || len(p.Clients) != clients+1 {
		t.Errorf("Presence has %d clients, %v; want %d", len(p.Clients), err, clients+1)
	}
	resp, err := http.Get(c.Node(0).HTTP() + "/v1/clients")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	if n := strings.Count(string(text), `"id":`); n != clients+1 {
		t.Errorf("/v1/clients has %d clients, want %d", n, clients+1)
	}
}
