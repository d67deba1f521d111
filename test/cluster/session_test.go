package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/test/cluster"
	"github.com/switchboardhub/switchboard/wire"
)

// wires is a client's network, which a test can cut.
type wires struct {
	mu     sync.Mutex
	conns  []net.Conn
	banned map[string]bool // addresses that can't be reached
	dials  int
}

var errBanned = errors.New("the test has cut this off")

func (w *wires) dial(ctx context.Context, network, address string) (net.Conn, error) {
	w.mu.Lock()
	banned := w.banned[address]
	w.mu.Unlock()
	if banned {
		return nil, errBanned
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err == nil {
		w.mu.Lock()
		w.conns = append(w.conns, conn)
		w.dials++
		w.mu.Unlock()
	}
	return conn, err
}

// cut breaks all connections; the addresses can't be reached from then on.
func (w *wires) cut(banned ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.banned = make(map[string]bool)
	for _, address := range banned {
		w.banned[address] = true
	}
	for _, conn := range w.conns {
		_ = conn.Close() // as a lost network does, without a goodbye
	}
	w.conns = nil
}

func (w *wires) connect(t *testing.T, addresses, id string, opts ...client.Option) *client.Client {
	t.Helper()
	c, err := client.Connect(patient(t), addresses, append([]client.Option{
		client.WithID(id), client.WithDialer(w.dial), client.WithReconnectWait(time.Millisecond, 20*time.Millisecond),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func numbered(box inbox) client.Option {
	return client.WithHandler(func(_ context.Context, a *wire.Artifact) (*wire.Artifact, error) {
		box <- a
		return nil, nil
	})
}

// sendAll sends numbered artifacts, disturbs every hundred of them, and checks
// that each is acknowledged.
func sendAll(t *testing.T, from *client.Client, to string, n int, disturb func(i int)) {
	t.Helper()
	acks := make([]client.Ack, n)
	for i := range n {
		var err error
		if acks[i], err = from.SendAsync(patient(t), to, &wire.Artifact{Payload: fmt.Append(nil, i)}); err != nil {
			t.Fatalf("send %d: %v", i, err)
		}
		if i%100 == 50 {
			disturb(i)
		}
	}
	for i, ack := range acks {
		if _, err := ack.Wait(patient(t)); err != nil {
			t.Fatalf("artifact %d: %v", i, err)
		}
	}
}

// expectAll checks that the artifacts of sendAll came, each once and in order.
func expectAll(t *testing.T, box inbox, n int) {
	t.Helper()
	for i := range n {
		if got := string(box.next(t).Payload); got != fmt.Sprint(i) {
			t.Fatalf("artifact %s came, %d was expected", got, i)
		}
	}
	if len(box) > 0 {
		t.Errorf("%d more came", len(box))
	}
}

func TestSessionsOutliveConnections(t *testing.T) {
	c := cluster.Start(t, 3, nil)
	var all []string
	for i := range 3 {
		all = append(all, c.Node(i).Client())
	}
	const artifacts = 2000
	for name, test := range map[string]struct {
		sender, receiver bool                 // which of them loses its connection
		banned           func(i int) []string // where it can't go back to
	}{
		"the receiver comes back to the same node": {receiver: true, banned: func(int) []string { return all[1:] }},
		"the receiver comes back to another node":  {receiver: true, banned: func(i int) []string { return []string{all[i/100%3]} }},
		"the sender comes back to the same node":   {sender: true, banned: func(int) []string { return all[1:] }},
		"the sender comes back to another node":    {sender: true, banned: func(i int) []string { return []string{all[i/100%3]} }},
		"both come back anywhere":                  {sender: true, receiver: true, banned: func(i int) []string { return []string{all[i/100%3]} }},
	} {
		t.Run(name, func(t *testing.T) {
			box := make(inbox, 2*artifacts)
			var near, far wires
			from := near.connect(t, strings.Join(all, ","), "from")
			to := far.connect(t, all[0], "to", numbered(box))
			sendAll(t, from, to.ID(), artifacts, func(i int) {
				if test.receiver {
					far.cut(test.banned(i)...)
				}
				if test.sender {
					near.cut(test.banned(i)...)
				}
			})
			expectAll(t, box, artifacts)
		})
	}
}

// What nobody acknowledges, publishes to live topics and answers, is not lost with a
// connection either, nor does it come twice.
func TestSessionsKeepWhatNobodyAcknowledges(t *testing.T) {
	c := cluster.Start(t, 3, nil)
	var all []string
	for i := range 3 {
		all = append(all, c.Node(i).Client())
	}
	for name, banned := range map[string]func(i int) []string{
		"the client comes back to the same node": func(int) []string { return all[1:] },
		"the client comes back to another node":  func(i int) []string { return []string{all[i%3]} },
	} {
		t.Run(name, func(t *testing.T) {
			const artifacts, cuts, askers = 20_000, 20, 8
			box := make(inbox, 2*artifacts)
			hears := connect(t, c.Node(0), "hears")
			if _, err := hears.Subscribe(patient(t), "live", box.handle); err != nil {
				t.Fatal(err)
			}
			var near wires
			from := near.connect(t, strings.Join(all, ","), "from", client.WithHandler(func(_ context.Context, a *wire.Artifact) (*wire.Artifact, error) {
				return a, nil
			}))
			c.WaitFor("the topic to be live, and heard", func() bool {
				if _, err := from.Publish(patient(t), "live", &wire.Artifact{Payload: []byte("first")}); err != nil {
					t.Fatal(err)
				}
				return len(box) > 0
			})
			stop := make(chan struct{})
			var asking sync.WaitGroup
			for range askers {
				asking.Go(func() {
					for {
						if _, err := hears.Request(patient(t), from.ID(), &wire.Artifact{}); err != nil {
							t.Errorf("request: %v", err)
							return
						}
						select {
						case <-stop:
							return
						default:
						}
					}
				})
			}
			for i := range artifacts {
				payload := make([]byte, 200)
				copy(payload, fmt.Append(nil, i))
				if _, err := from.PublishAsync(patient(t), "live", &wire.Artifact{Payload: payload}); err != nil {
					t.Fatal(err)
				}
				if i%(artifacts/cuts) == artifacts/cuts/2 {
					near.cut(banned(i)...)
				}
			}
			close(stop)
			asking.Wait()
			if err := from.Flush(patient(t)); err != nil {
				t.Fatal(err)
			}
			for i := 0; i < artifacts; {
				switch got := strings.TrimRight(string(box.next(t).Payload), "\x00"); {
				case got == fmt.Sprint(i):
					i++
				case i > 0 || got != "first":
					t.Fatalf("artifact %s came, %d was expected", got, i)
				}
			}
			if len(box) > 0 {
				t.Errorf("%d more came", len(box))
			}
		})
	}
}

// What is sent to a client that is away too long is dropped; who waits for an
// answer hears so.
func TestSessionsEndWithTheirWindow(t *testing.T) {
	c := cluster.Start(t, 2, func(cfg *config.Config) { cfg.Sessions.ResumeWindow = config.Duration(500 * time.Millisecond) })
	both := []string{c.Node(0).Client(), c.Node(1).Client()}
	var near, far wires
	from := near.connect(t, both[1], "from")
	box := make(inbox, 100)
	to := far.connect(t, both[0], "to", numbered(box))
	if err := from.Send(patient(t), "to", &wire.Artifact{Payload: []byte("before")}); err != nil {
		t.Fatal(err)
	}
	if first := box.next(t); string(first.Payload) != "before" { // else the session would keep it
		t.Errorf("came: %q", first.Payload)
	}
	far.cut(both...)
	if err := from.Send(patient(t), "to", &wire.Artifact{Payload: []byte("away")}); err != nil {
		t.Fatalf("send to a client that may come back: %v", err)
	}
	var gone *client.NoClientError
	if _, err := from.Request(patient(t), "to", &wire.Artifact{}); !errors.As(err, &gone) {
		t.Fatalf("a request that nobody came back for: %v, want NoClientError", err)
	}
	if err := from.Send(patient(t), "to", &wire.Artifact{}); !errors.As(err, &gone) {
		t.Errorf("send after the window: %v, want NoClientError", err)
	}
	far.cut()
	c.WaitFor("a new session", func() bool {
		return from.Send(patient(t), "to", &wire.Artifact{Payload: []byte("after")}) == nil
	})
	if second := box.next(t); string(second.Payload) != "after" {
		t.Errorf("came: %q", second.Payload)
	}
	_ = to
}

// Nodes that stop on purpose, one after another, cost clients nothing but a
// reconnect.
func TestARollingRestartLosesNothing(t *testing.T) {
	c := cluster.Start(t, 3, nil)
	const pairs = 4
	stop := make(chan struct{})
	var sending sync.WaitGroup
	boxes := make([]inbox, pairs)
	sent := make([]int, pairs)
	for i := range pairs {
		boxes[i] = make(inbox, 1_000_000)
		to := connect(t, c.Node(i%3), fmt.Sprintf("to-%d", i), numbered(boxes[i]))
		from := connect(t, c.Node((i+1)%3), fmt.Sprintf("from-%d", i))
		sending.Go(func() {
			for {
				if err := from.Send(t.Context(), to.ID(), &wire.Artifact{Payload: fmt.Append(nil, sent[i])}); err != nil {
					t.Errorf("artifact %d for %s: %v", sent[i], to.ID(), err)
					return
				}
				sent[i]++
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	for i := range 3 {
		before := len(boxes[0])
		c.WaitFor("more artifacts", func() bool { return len(boxes[0]) > before+100 })
		c.Restart(i)
	}
	close(stop)
	sending.Wait()
	for i, box := range boxes {
		expectAll(t, box, sent[i])
	}
}

// A receipt says that the handler is done; plain sends before it were handled
// before it.
func TestReceipts(t *testing.T) {
	c := cluster.Start(t, 2, nil)
	handled := make(chan string, 100)
	refuse := errors.New("not today")
	var far wires
	to := far.connect(t, c.Node(0).Client(), "to", client.WithHandler(func(_ context.Context, a *wire.Artifact) (*wire.Artifact, error) {
		handled <- string(a.Payload)
		if string(a.Payload) == "bad" {
			return nil, refuse
		}
		return nil, nil
	}))
	from := connect(t, c.Node(1), "from")
	for i := range 10 {
		if _, err := from.SendAsync(patient(t), to.ID(), &wire.Artifact{Payload: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := from.Send(patient(t), to.ID(), &wire.Artifact{Payload: []byte("10")}, client.WithReceipt()); err != nil {
		t.Fatal(err)
	}
	if len(handled) != 11 {
		t.Fatalf("%d artifacts were handled when the receipt came, want 11", len(handled))
	}
	for i := range 11 {
		if got := <-handled; got != fmt.Sprint(i) {
			t.Errorf("artifact %s was handled in place of %d", got, i)
		}
	}
	var failed *client.HandlerError
	err := from.Send(patient(t), to.ID(), &wire.Artifact{Payload: []byte("bad")}, client.WithReceipt())
	if !errors.As(err, &failed) || !strings.Contains(failed.Detail, refuse.Error()) {
		t.Errorf("the receipt of what the handler refuses: %v", err)
	}
	var gone *client.NoClientError
	if err := from.Send(patient(t), "nobody", &wire.Artifact{}, client.WithReceipt()); !errors.As(err, &gone) {
		t.Errorf("a receipt from nobody: %v, want NoClientError", err)
	}
	far.cut()
	if err := from.Send(patient(t), to.ID(), &wire.Artifact{Payload: []byte("away")}, client.WithReceipt()); err != nil {
		t.Errorf("the receipt of one that was away for a moment: %v", err)
	}
}

// What a client has when it says goodbye was not dropped.
func TestGoodbyeDropsNothing(t *testing.T) {
	c := cluster.Start(t, 1, nil)
	box := make(inbox, 100)
	to := connect(t, c.Node(0), "to", numbered(box))
	from := connect(t, c.Node(0), "from")
	sendAll(t, from, "to", 10, func(int) {})
	expectAll(t, box, 10)
	_ = to.Close()
	c.WaitFor("its leave", func() bool { return !c.Lists(0, "to") })
	if text := c.Metrics(0); !strings.Contains(text, `switchboard_artifacts_dropped_total{reason="session_ended"} 0`) {
		t.Errorf("metrics say that something was dropped:\n%s", text)
	}
}

// A client that was connected before with the same id, and knows nothing of its
// session, is a new one.
func TestANewProcessIsANewSession(t *testing.T) {
	c := cluster.Start(t, 2, nil)
	both := []string{c.Node(0).Client(), c.Node(1).Client()}
	box := make(inbox, 10)
	var far wires
	far.connect(t, both[0], "to", numbered(box))
	from := connect(t, c.Node(1), "from")
	far.cut(both...)
	if err := from.Send(patient(t), "to", &wire.Artifact{Payload: []byte("for the old one")}); err != nil {
		t.Fatal(err)
	}
	var other wires
	other.connect(t, both[1], "to", numbered(box))
	if err := from.Send(patient(t), "to", &wire.Artifact{Payload: []byte("for the new one")}); err != nil {
		t.Fatal(err)
	}
	if got := string(box.next(t).Payload); got != "for the new one" {
		t.Errorf("the new process got %q", got)
	}
}

func TestRebalanceEvensOut(t *testing.T) {
	c := cluster.Start(t, 3, nil)
	const clients = 30
	boxes := make([]inbox, clients)
	for i := range clients {
		boxes[i] = make(inbox, 10)
		connect(t, c.Node(0), fmt.Sprintf("c-%d", i), numbered(boxes[i]))
	}
	const interests = 2 // of each of the others in broadcast
	c.WaitFor("even spread", func() bool {
		even := true
		for i := range 3 { // again, for at first not all may have heard that all are active
			resp, err := http.Post(c.Node(i).HTTP()+"/v1/rebalance", "", nil)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			even = even && c.Node(i).Counts().DirectoryEntries == 20+interests
		}
		return even
	})
	from := connect(t, c.Node(1), "from")
	for i, box := range boxes {
		if err := from.Send(patient(t), fmt.Sprintf("c-%d", i), &wire.Artifact{}); err != nil {
			t.Error(err)
		}
		box.next(t)
	}
}
