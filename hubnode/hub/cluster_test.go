package hub_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/hubnode/outbox"
	"github.com/switchboardhub/switchboard/wire"
)

// cluster connects hubs in memory: links are outboxes over pipes, questions
// are calls. The directory is told to everyone at once unless a test holds
// that back.
type cluster struct {
	t     *testing.T
	opts  []hub.Option
	roads *roads // nil: questions are answered and news heard at once

	asking sync.WaitGroup // questions that are being answered

	mu      sync.Mutex // guards the fields below
	nodes   map[string]*node
	home    string               // leads every topic
	damaged bool                 // what home holds was found damaged: it leads, and can't read
	refused int                  // how often it could not
	deaf    bool                 // nobody hears where clients are
	clients map[string]placement // the directory

	storing sync.Mutex // held while something is stored and delivered
	store   *history.Memory
}

type placement struct {
	node  string
	epoch uint64
}

// node is one hub of a cluster, and its Remote.
type node struct {
	*hub.Hub
	c         *cluster
	name      string
	interests map[string]bool
	links     map[string]*link
}

// link is one direction of the mesh.
type link struct {
	*outbox.Outbox
	near, far net.Conn
	severed   chan struct{}
	sever     func()        // closes severed
	done      chan struct{} // closed when the far end has read everything
}

func newCluster(t *testing.T, home string, names []string, opts ...hub.Option) *cluster {
	t.Helper()
	c := &cluster{t: t, opts: opts, nodes: make(map[string]*node), home: home, clients: make(map[string]placement), store: history.NewMemory()}
	for _, name := range names {
		c.add(name)
	}
	return c
}

// add starts a node and links it with the others.
func (c *cluster) add(name string) {
	c.t.Helper()
	n := &node{c: c, name: name, interests: make(map[string]bool), links: make(map[string]*link)}
	n.Hub = start(c.t, append([]hub.Option{hub.WithRemote(n), hub.WithKeeper(keeper{n: n})}, c.opts...)...)
	c.mu.Lock()
	var others []*node
	for _, o := range c.nodes {
		others = append(others, o)
	}
	c.nodes[name] = n
	c.mu.Unlock()
	for _, o := range others {
		c.connect(o, n)
		c.connect(n, o)
	}
}

// connect makes the link from one node to another, behind what the first has
// to say.
func (c *cluster) connect(from, to *node) {
	near, far := net.Pipe()
	l := &link{near: near, far: far, severed: make(chan struct{}), done: make(chan struct{})}
	l.sever = sync.OnceFunc(func() { close(l.severed) })
	l.Outbox = outbox.New(near, outbox.Config{LimitBytes: 64 << 20, Failed: func(error) {}})
	go l.read(to.Inbound(from.name), func(f wire.Frame) bool {
		return c.roads != nil && c.roads.arrive(from.name, to.name, f, l.severed)
	})
	c.mu.Lock()
	from.links[to.name] = l
	interests := make([]string, 0, len(from.interests))
	for name := range from.interests {
		interests = append(interests, name)
	}
	c.mu.Unlock()
	for _, name := range interests {
		to.PeerInterest(from.name, name, true)
	}
	from.SetPeer(to.name, l)
	c.t.Cleanup(l.cut)
}

func (l *link) read(in *hub.Inbound, arrive func(wire.Frame) (handled bool)) {
	defer close(l.done)
	r := wire.NewReader(l.far, 32<<20)
	defer r.Close()
	for {
		f, err := r.Next()
		if err != nil {
			in.Flush()
			return
		}
		if !arrive(f) {
			in.Take(f, r.Slab())
		}
		if !r.Buffered() {
			in.Flush()
		}
	}
}

func (l *link) cut() {
	l.sever()
	l.Close()
	_, _ = l.near.Close(), l.far.Close()
	l.Wait()
	<-l.done
}

// disconnect cuts both directions between two nodes.
func (c *cluster) disconnect(a, b *node) {
	for _, pair := range [][2]*node{{a, b}, {b, a}} {
		c.mu.Lock()
		l := pair[0].links[pair[1].name]
		delete(pair[0].links, pair[1].name)
		c.mu.Unlock()
		if l != nil {
			l.cut()
			pair[0].SetPeer(pair[1].name, nil)
		}
	}
}

// move gives all topics another leader.
func (c *cluster) move(home string) {
	c.mu.Lock()
	c.home, c.damaged = home, false
	var all []*node
	for _, n := range c.nodes {
		all = append(all, n)
	}
	c.mu.Unlock()
	for _, n := range all {
		n.LeaderMoved(func(string) bool { return true })
	}
}

// damage makes what the leader holds unreadable, until another one leads, and returns what
// waits until somebody has tried to read it.
func (c *cluster) damage() (tried func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.damaged = true
	before := c.refused
	return func() {
		c.t.Helper()
		eventually(c.t, "somebody reads what is damaged", func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.refused > before
		})
	}
}

func (c *cluster) setDeaf(deaf bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deaf = deaf
}

func (n *node) Self() string { return n.name }

func (n *node) IsMember(string) bool { return n.c.roads != nil && n.c.roads.members }

// keeper keeps the topics of the test's cluster: its one store is what all replicas
// would hold, and its home leads them all.
type keeper struct {
	hub.Keeper // nil: these tests have no durable subscriptions
	n          *node
}

func (k keeper) Leader(string) (string, bool) {
	k.n.c.mu.Lock()
	defer k.n.c.mu.Unlock()
	return k.n.c.home, k.n.c.home == k.n.name
}

func (k keeper) Leaderless(topic string) error { return &wire.NoQuorumError{Topic: topic, Shard: 3} }

func (k keeper) Append(f wire.Frame, skip int, _ hub.Publisher, done func(*hub.Stage, wire.Sequence, error)) error {
	c := k.n.c
	c.storing.Lock()
	defer c.storing.Unlock()
	b, _, err := c.store.Bounds(string(f.Target()))
	if err != nil {
		return err
	}
	run := history.Run{First: b.Next, Count: f.Count(), From: string(f.From()), Body: f.Body()[skip:]}
	if err := c.store.Append(time.Now(), string(f.Target()), k.n.LimitsOf(string(f.Target())), run); err != nil {
		return err
	}
	st := k.n.NewStage()
	st.Deliver(wire.AppendFrame(nil, f.Header(), f.Target(), f.From(), run.Body), run.First)
	done(st, run.First, nil)
	st.Flush()
	return nil
}

func (k keeper) Bounds(_ context.Context, topic string) (history.Bounds, error) {
	b, _, err := k.n.c.store.Bounds(topic)
	return b, err
}

func (k keeper) Led(_ context.Context, visit func(string, history.Bounds)) (shards []int, err error) {
	if _, self := k.Leader(""); !self {
		return nil, nil
	}
	return []int{0}, k.n.c.store.Topics(func(topic string, b history.Bounds) bool {
		visit(topic, b)
		return true
	})
}

func (k keeper) Purge(context.Context, string, wire.Sequence) error { return nil }

func (k keeper) Held(string) (history.Store, bool) {
	_, self := k.Leader("")
	k.n.c.mu.Lock()
	defer k.n.c.mu.Unlock()
	if self && k.n.c.damaged {
		k.n.c.refused++
		return nil, false
	}
	return k.n.c.store, self
}

func (k keeper) Size() (int, int64) { return 0, 0 }
func (k keeper) Retain(time.Time)   {}

func (n *node) Locate(id wire.ClientID) (string, uint64, bool) {
	if n.c.roads != nil {
		at, ok := n.c.roads.locate(n, id)
		return at.node, at.epoch, ok
	}
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	at, ok := n.c.clients[id]
	return at.node, at.epoch, ok && !n.c.deaf
}

func (n *node) Ask(ctx context.Context, to, question string, body []byte) ([]byte, error) {
	if n.c.roads != nil {
		return n.c.roads.ask(ctx, n, to, question, body)
	}
	n.c.mu.Lock()
	other, linked := n.c.nodes[to], n.links[to] != nil
	n.c.mu.Unlock()
	if other == nil || !linked {
		return nil, &wire.Error{Code: wire.CodeUnavailable, Detail: "no link to " + to}
	}
	return other.Answer(ctx, question, body)
}

func (n *node) ClientUp(id wire.ClientID, epoch uint64) {
	if n.c.roads != nil {
		n.c.roads.tell(n, id, epoch, true)
		return
	}
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	n.c.clients[id] = placement{n.name, epoch}
}

func (n *node) ClientDown(id wire.ClientID, epoch uint64, _ wire.LeaveReason) {
	if n.c.roads != nil {
		n.c.roads.tell(n, id, epoch, false)
		return
	}
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	if n.c.clients[id] == (placement{n.name, epoch}) {
		delete(n.c.clients, id)
	}
}

func (n *node) InterestUp(name string)   { n.interest(name, true) }
func (n *node) InterestDown(name string) { n.interest(name, false) }

// interest is called with the hub's lock held: the others are told from
// elsewhere, in order.
func (n *node) interest(name string, on bool) {
	n.c.mu.Lock()
	if n.interests[name] = on; !on {
		delete(n.interests, name)
	}
	others := make([]*node, 0, len(n.links))
	for to := range n.links {
		others = append(others, n.c.nodes[to])
	}
	n.c.mu.Unlock()
	for _, o := range others {
		if o != nil {
			go o.PeerInterest(n.name, name, on)
		}
	}
}

// wantedElsewhere waits until a node knows that another one has subscribers of
// a topic.
func (n *node) wantedElsewhere(t *testing.T, topic string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s forwards %s to another node", n.name, topic), func() bool {
		got, err := n.Route(t.Context(), &wire.Artifact{Topic: topic, Payload: []byte("probe")})
		return err == nil && got == 1
	})
}

// skipProbes returns the next frame that wantedElsewhere did not cause.
func (p *peer) skipProbes() got {
	p.t.Helper()
	for {
		if f := p.next(); f.Kind() != wire.KindPublish || f.payloads()[0] != "probe" {
			return f
		}
	}
}

func TestLiveArtifactsCrossNodes(t *testing.T) {
	c := newCluster(t, "a", []string{"a", "b", "c"})
	sub := join(t, c.nodes["b"].Hub, "sub")
	sub.subscribe(1, "news.>", wire.Subscription{})
	sub.subscribe(2, "news.x", wire.Subscription{})
	c.nodes["a"].wantedElsewhere(t, "news.x")
	pub := join(t, c.nodes["a"].Hub, "pub")
	for i := range 100 {
		pub.publish(uint32(i+1), "news.x", fmt.Sprint(i))
	}
	next := map[uint32]int{1: 0, 2: 0}
	for range 200 {
		f := sub.skipProbes()
		if f.payloads()[0] != fmt.Sprint(next[f.Ref()]) {
			t.Fatalf("subscription %d: got %v, want %d", f.Ref(), f, next[f.Ref()])
		}
		next[f.Ref()]++
	}
}

func TestDirectCrossesNodes(t *testing.T) {
	for _, deaf := range []bool{false, true} { // without a word from the directory the nodes are asked
		t.Run(fmt.Sprintf("deaf=%v", deaf), func(t *testing.T) {
			c := newCluster(t, "a", []string{"a", "b", "c"})
			c.setDeaf(deaf)
			from, to := join(t, c.nodes["a"].Hub, "from"), join(t, c.nodes["b"].Hub, "to")
			for i := range 20 {
				from.write(frame(wire.KindSend, wire.FlagAck, uint32(i+1), "to", "from", fmt.Sprint(i)))
			}
			for i := range 20 {
				if f := to.expect(wire.KindSend, uint32(i+1)); f.payloads()[0] != fmt.Sprint(i) {
					t.Fatalf("got %v, want %d", f, i)
				}
				from.expect(wire.KindAck, uint32(i+1))
			}
			from.write(frame(wire.KindSend, wire.FlagAck, 99, "nobody", "from", "x"))
			from.expectFault(wire.KindError, 99, wire.CodeNoClient)

			ask := wire.Header{Kind: wire.KindSend, Flags: wire.FlagRequest, Count: 1, Ref: 100}
			from.write(wire.AppendFrame(nil, ask, "to", "from", run("?")))
			to.expect(wire.KindSend, 100)
			to.write(frame(wire.KindReply, 0, 100, "from", "to", "!"))
			if f := from.expect(wire.KindReply, 100); f.payloads()[0] != "!" {
				t.Errorf("got %v", f)
			}
			if n, err := c.nodes["c"].Route(t.Context(), &wire.Artifact{To: "to", Payload: []byte("routed")}); n != 1 || err != nil {
				t.Errorf("Route = %d, %v", n, err)
			}
			to.expect(wire.KindSend, 0)
			var none *hub.NoClientError
			if _, err := c.nodes["c"].Route(t.Context(), &wire.Artifact{To: "nobody"}); !errors.As(err, &none) {
				t.Errorf("Route = %v, want NoClientError", err)
			}
		})
	}
}

// The directory may be wrong: the node that it names answers that the client is
// not there.
func TestDirectToAClientThatHasLeft(t *testing.T) {
	c := newCluster(t, "a", []string{"a", "b"})
	from := join(t, c.nodes["a"].Hub, "from")
	c.mu.Lock()
	c.clients["ghost"] = placement{"b", 1}
	c.mu.Unlock()
	from.write(frame(wire.KindSend, wire.FlagAck, 1, "ghost", "from", "x"))
	from.expectFault(wire.KindError, 1, wire.CodeNoClient)
}

func TestHistoryAtAnotherNode(t *testing.T) {
	c := newCluster(t, "b", []string{"a", "b", "c"}, hub.WithHistory("kept.>", 1000))
	pub := join(t, c.nodes["a"].Hub, "pub")
	for i := range 50 {
		if f := pub.publish(uint32(i+1), "kept.x", fmt.Sprint(i+1)); f.Sequence() != wire.Sequence(i+1) {
			t.Fatalf("published as %v, want sequence %d", f, i+1)
		}
	}
	for _, name := range []string{"a", "b", "c"} {
		for _, pattern := range []string{"kept.x", "kept.>", ">"} {
			sub := join(t, c.nodes[name].Hub, "late-"+name)
			sub.write(control(wire.KindSubscribe, 1, pattern, wire.Subscription{Since: wire.SinceAll}))
			for next := wire.Sequence(1); next <= 50; {
				if f := sub.next(); f.Kind() == wire.KindPublish {
					if f.Sequence() != next {
						t.Fatalf("%s on %s: got %v, want %d", pattern, name, f, next)
					}
					next++
				}
			}
		}
	}
	if n, err := c.nodes["a"].Route(t.Context(), &wire.Artifact{Topic: "kept.y"}); err != nil {
		t.Errorf("Route = %d, %v", n, err)
	}
}

func TestALeaderThatIsAwayIsSaid(t *testing.T) {
	c := newCluster(t, "b", []string{"a", "b"}, hub.WithHistory("kept", 1000))
	pub := join(t, c.nodes["a"].Hub, "pub")
	c.disconnect(c.nodes["a"], c.nodes["b"])
	pub.write(frame(wire.KindPublish, wire.FlagAck, 1, "kept", "pub", "x"))
	pub.expectFault(wire.KindError, 1, wire.CodeUnavailable)
	var coded *wire.Error
	if _, err := c.nodes["a"].Route(t.Context(), &wire.Artifact{Topic: "kept"}); !errors.As(err, &coded) || coded.Code != wire.CodeUnavailable {
		t.Errorf("Route = %v, want code Unavailable", err)
	}
}

// The seam across nodes: publishers and subscribers everywhere, and a link that
// is cut again and again.
func TestSeamAcrossNodes(t *testing.T) {
	c := newCluster(t, "b", []string{"a", "b", "c"}, hub.WithHistory("kept", 1<<20))
	const publishers, each = 3, 200
	var publishing, reading sync.WaitGroup
	for i, name := range []string{"a", "b", "c"} {
		for k, pattern := range []string{"kept", ">"} {
			sub := join(t, c.nodes[name].Hub, fmt.Sprintf("sub-%d-%d", i, k), hub.WithoutBroadcast())
			sub.write(control(wire.KindSubscribe, 1, pattern, wire.Subscription{Since: wire.SinceAll}))
			reading.Go(func() {
				for next := wire.Sequence(1); next <= publishers*each; {
					f := sub.next()
					if f.Kind() != wire.KindPublish {
						continue
					}
					if f.Sequence() != next {
						t.Errorf("%s: got %d, want %d", sub.id, f.Sequence(), next)
						return
					}
					next += wire.Sequence(f.Count())
				}
			})
		}
	}
	for i := range publishers {
		pub := join(t, c.nodes["b"].Hub, fmt.Sprintf("pub-%d", i), hub.WithoutBroadcast())
		publishing.Go(func() {
			for ref := range uint32(each) {
				pub.write(frame(wire.KindPublish, wire.FlagAck, ref+1, "kept", pub.id, "x"))
				pub.expect(wire.KindAck, ref+1)
			}
		})
	}
	for range 10 {
		c.disconnect(c.nodes["a"], c.nodes["b"])
		c.connect(c.nodes["a"], c.nodes["b"])
		c.connect(c.nodes["b"], c.nodes["a"])
	}
	publishing.Wait()
	reading.Wait()
}

// A topic gets another leader: what the one before had stored, and not brought to
// everybody, arrives all the same.
func TestSubscribersFollowTheLeader(t *testing.T) {
	c := newCluster(t, "a", []string{"a", "b", "c"}, hub.WithHistory("kept", 1000))
	sub := join(t, c.nodes["c"].Hub, "sub")
	sub.subscribe(1, "kept", wire.Subscription{})
	pub := join(t, c.nodes["c"].Hub, "pub")
	pub.publish(1, "kept", "1")
	sub.expect(wire.KindPublish, 1)
	undelivered := history.Run{First: 2, Count: 1, From: "pub", Body: run("2")}
	if err := c.store.Append(time.Now(), "kept", history.Limits{MaxArtifacts: 1000}, undelivered); err != nil {
		t.Fatal(err)
	}
	c.move("b")
	if f := sub.expect(wire.KindPublish, 1); f.Sequence() != 2 {
		t.Fatalf("got %v, want 2", f)
	}
	pub.publish(3, "kept", "3")
	if f := sub.expect(wire.KindPublish, 1); f.Sequence() != 3 {
		t.Fatalf("got %v, want 3", f)
	}
	sub.quiet()
}

// What was there before a subscription to what is new is not for it, also when nobody could say
// what that is.
func TestWhatIsOldStaysAwayFromWhoCouldNotAskForIt(t *testing.T) {
	for name, test := range map[string]struct{ away, back func(*cluster) }{
		"nobody leads": {
			func(c *cluster) { c.move("") },
			func(c *cluster) { c.move("b") },
		},
		"the link to the leader is broken": {
			func(c *cluster) { c.disconnect(c.nodes["a"], c.nodes["b"]) },
			func(c *cluster) { c.connect(c.nodes["a"], c.nodes["b"]); c.connect(c.nodes["b"], c.nodes["a"]) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, "b", []string{"a", "b"}, hub.WithHistory("kept", 1000))
			pub := join(t, c.nodes["b"].Hub, "pub")
			for i := range 5 {
				pub.publish(uint32(i+1), "kept", "old")
			}
			test.away(c)
			sub := join(t, c.nodes["a"].Hub, "sub", hub.WithPermit(may(wire.ActionSubscribe)))
			sub.subscribe(1, ">", wire.Subscription{})
			test.back(c)
			eventually(t, "b knows of the subscriber", func() bool {
				n, err := c.nodes["b"].Route(t.Context(), &wire.Artifact{Topic: "probe", Payload: []byte("x")})
				if err != nil {
					t.Fatal(err)
				}
				return n == 1
			})
			sub.expect(wire.KindPublish, 1)
			pub.publish(6, "kept", "new")
			if f := sub.expect(wire.KindPublish, 1); f.Sequence() != 6 {
				t.Errorf("got %v, want 6", f)
			}
			sub.quiet()
		})
	}
}

// What was lost with a link is found when it comes back, though nothing is
// published any more.
func TestSubscribersCatchUpWhenALinkComesBack(t *testing.T) {
	c := newCluster(t, "b", []string{"a", "b"}, hub.WithHistory("kept", 1000))
	sub := join(t, c.nodes["a"].Hub, "sub")
	sub.subscribe(1, "kept", wire.Subscription{})
	pub := join(t, c.nodes["b"].Hub, "pub")
	pub.publish(1, "kept", "1")
	// The interest may still be on its way, but what comes next is not lost.
	c.disconnect(c.nodes["a"], c.nodes["b"])
	pub.publish(2, "kept", "2")
	c.connect(c.nodes["b"], c.nodes["a"])
	c.connect(c.nodes["a"], c.nodes["b"])
	for next := wire.Sequence(1); next <= 2; next++ {
		if f := sub.expect(wire.KindPublish, 1); f.Sequence() != next {
			t.Fatalf("got %v, want %d", f, next)
		}
	}
	sub.quiet()
}

func TestGroupsSpanNodes(t *testing.T) {
	c := newCluster(t, "a", []string{"a", "b", "c"})
	workers := []*peer{join(t, c.nodes["b"].Hub, "w-b"), join(t, c.nodes["c"].Hub, "w-c")}
	for _, w := range workers {
		w.subscribe(1, "jobs", wire.Subscription{Group: "g"})
	}
	pub := join(t, c.nodes["a"].Hub, "pub")
	eventually(t, "a knows of both members", func() bool {
		n, err := c.nodes["a"].Route(t.Context(), &wire.Artifact{Topic: "jobs", Payload: []byte("probe")})
		if err != nil || n != 1 {
			return false
		}
		for _, w := range workers {
			if len(w.frames) == 0 {
				return false
			}
		}
		return true
	})
	const jobs = 100
	for i := range jobs {
		pub.publish(uint32(i+1), "jobs", fmt.Sprint(i))
	}
	seen := make(map[string]int)
	timeout := time.After(patience)
	for len(seen) < jobs {
		var f got
		select {
		case f = <-workers[0].frames:
		case f = <-workers[1].frames:
		case <-timeout:
			t.Fatalf("%d of %d jobs were delivered", len(seen), jobs)
		}
		if job := f.payloads()[0]; job != "probe" {
			if seen[job]++; seen[job] > 1 {
				t.Errorf("job %s was delivered twice", job)
			}
		}
	}
}

// What the filters of one node's members refuse is for those of another one,
// whichever the publisher's node asks first.
func TestGroupsOfFiltersSpanNodes(t *testing.T) {
	compile := func(text string) (hub.Filter, error) { return payloadFilter(text), nil }
	c := newCluster(t, "a", []string{"a", "b", "c", "d", "e"}, hub.WithFilterCompiler(compile))
	wanted := map[string]string{"b": "neither", "c": "odd", "d": "even", "e": "odd"}
	workers := make(map[string]*peer)
	for node, filter := range wanted {
		workers[node] = join(t, c.nodes[node].Hub, "w-"+node)
		workers[node].subscribe(1, "jobs", wire.Subscription{Group: "g", Filter: filter})
	}
	pub := join(t, c.nodes["a"].Hub, "pub")
	for node := range c.nodes {
		for member := range wanted {
			if member != node {
				c.nodes[node].PeerInterest(member, "jobs\x00g", true) // it is on its way, too
			}
		}
	}
	const jobs = 60
	want := make(map[string]bool)
	for i := range jobs {
		job := fmt.Sprintf("even %d", i)
		if i%2 == 1 {
			job = fmt.Sprintf("odd %d", i)
		}
		want[job] = true
		pub.publish(uint32(i+1), "jobs", job)
	}
	pub.publish(jobs+1, "jobs", "wanted by nobody") // must not go round for ever
	timeout := time.After(patience)
	for len(want) > 0 {
		var f got
		var filter string
		select {
		case f = <-workers["c"].frames:
			filter = "odd"
		case f = <-workers["d"].frames:
			filter = "even"
		case f = <-workers["e"].frames:
			filter = "odd"
		case <-timeout:
			t.Fatalf("these did not come: %v", want)
		}
		for _, job := range f.payloads() {
			if !want[job] || !strings.HasPrefix(job, filter) {
				t.Errorf("%q came to a member that wants what is %s", job, filter)
			}
			delete(want, job)
		}
	}
	for _, w := range workers {
		w.quiet()
	}
}

func TestQuestionsReachAllNodes(t *testing.T) {
	c := newCluster(t, "b", []string{"a", "b"}, hub.WithHistory("kept", 10))
	one := join(t, c.nodes["a"].Hub, "one")
	two := join(t, c.nodes["b"].Hub, "two")
	two.publish(1, "kept", "x")
	for question, want := range map[string][]string{
		"$hub.clients": {`"id":"one"`, `"id":"two"`, `"node":"b"`},
		"$hub.topics":  {`"topic":"kept"`, `"node":"b"`, `"topic":"broadcast","subscribers":2`},
	} {
		one.write(frame(wire.KindSend, wire.FlagRequest, 5, question, "one", ""))
		answer := one.expect(wire.KindReply, 5).payloads()[0]
		for _, w := range want {
			if !strings.Contains(answer, w) {
				t.Errorf("%s: %s does not contain %s", question, answer, w)
			}
		}
	}
	if _, err := c.nodes["a"].Answer(t.Context(), "weather", nil); err == nil {
		t.Error("an unknown question is answered")
	}
	for _, question := range []string{"history.read", "history.list"} {
		if _, err := c.nodes["a"].Answer(t.Context(), question, []byte("{")); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", question, err)
		}
	}
}

func (k keeper) ShardOf(string) int { return 0 }

func (k keeper) ShardCount() int { return 1 }

func (k keeper) Replicas() []hub.ReplicaState { return nil }
