package hub_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/wire"
)

// roads carry what the nodes of a cluster say to each other in the way that real
// links do: questions, their answers, and news of clients go behind the frames that
// were sent before, and each direction can be held up.
type roads struct {
	*cluster

	mu      sync.Mutex // guards the fields below
	cargo   map[uint32]func()
	blocks  map[[2]string]*block            // by from and to
	asked   func(to, question string)       // called before a question is answered; may be nil
	answers func(by, question string)       // called before an answer is sent; may be nil
	refuses func(by, question string) error // called before both; an error is the answer; may be nil
	known   map[string]map[wire.ClientID]placement
	members bool                                   // nodes stay members when they lose a link
	lately  map[string]map[wire.ClientID]placement // where clients were last that are nowhere
}

// block holds up what goes from one node to another.
type block struct {
	way     chan struct{} // closed when it is free
	reached chan struct{} // closed when something is held up
	once    sync.Once
}

func newRoads(t *testing.T, names ...string) *roads {
	t.Helper()
	r := &roads{
		cargo: make(map[uint32]func()), blocks: make(map[[2]string]*block),
		known: make(map[string]map[wire.ClientID]placement), lately: make(map[string]map[wire.ClientID]placement),
	}
	for _, name := range names {
		r.known[name], r.lately[name] = make(map[wire.ClientID]placement), make(map[wire.ClientID]placement)
	}
	r.cluster = &cluster{t: t, roads: r, nodes: make(map[string]*node), home: names[0], opts: []hub.Option{
		hub.WithSettings(hub.Settings{ResumeWindow: time.Minute}),
	}}
	t.Cleanup(r.asking.Wait)
	for _, name := range names {
		r.add(name)
	}
	return r
}

// block holds up what goes from one node to another, until free is called. reached is
// closed when there is something.
func (r *roads) block(from, to string) (reached <-chan struct{}, free func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := &block{way: make(chan struct{}), reached: make(chan struct{})}
	r.blocks[[2]string{from, to}] = b
	free = sync.OnceFunc(func() { close(b.way) })
	r.t.Cleanup(free)
	return b.reached, free
}

// arrive handles a frame that carries something else than artifacts; it returns
// once the way is free. What comes from a link that was cut meanwhile is lost.
func (r *roads) arrive(from, to string, f wire.Frame, severed <-chan struct{}) (handled bool) {
	r.mu.Lock()
	b := r.blocks[[2]string{from, to}]
	r.mu.Unlock()
	if b != nil {
		b.once.Do(func() { close(b.reached) })
		select {
		case <-b.way:
		case <-severed:
			return true
		}
	}
	if f.Kind() != wire.KindPing {
		return false
	}
	r.mu.Lock()
	unload := r.cargo[f.Ref()]
	delete(r.cargo, f.Ref())
	r.mu.Unlock()
	unload()
	return true
}

// carry runs f at the far end of a link, behind what was sent over it before.
func (r *roads) carry(l *link, f func()) {
	r.mu.Lock()
	ref := uint32(len(r.cargo) + 1)
	for r.cargo[ref] != nil {
		ref++
	}
	r.cargo[ref] = f
	r.mu.Unlock()
	l.PushControl(wire.AppendFrame(nil, wire.Header{Kind: wire.KindPing, Ref: ref}, "", "", nil))
	l.FlushAside()
}

func (r *roads) link(from, to string) *link {
	r.cluster.mu.Lock()
	defer r.cluster.mu.Unlock()
	return r.nodes[from].links[to]
}

func (r *roads) ask(ctx context.Context, from *node, to, question string, body []byte) ([]byte, error) {
	there := r.link(from.name, to)
	lost := &wire.Error{Code: wire.CodeUnavailable, Detail: "no link to " + to}
	if there == nil {
		return nil, lost
	}
	type result struct {
		body []byte
		err  error
	}
	got := make(chan result, 1)
	r.carry(there, func() {
		r.asking.Go(func() {
			r.mu.Lock()
			asked, answers, refuses := r.asked, r.answers, r.refuses
			r.mu.Unlock()
			if asked != nil {
				asked(to, question)
			}
			var answer []byte
			var err error
			if refuses != nil {
				err = refuses(to, question)
			}
			if err == nil {
				answer, err = r.nodes[to].Answer(ctx, question, body)
			}
			if answers != nil {
				answers(to, question)
			}
			if back := r.link(to, from.name); back != nil {
				r.carry(back, func() { got <- result{answer, err} })
			}
		})
	})
	select {
	case a := <-got:
		return a.body, a.err
	case <-there.done:
		return nil, lost
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// onQuestion calls f before each question is answered.
func (r *roads) onQuestion(f func(to, question string)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = f
}

// onAnswer calls f before each answer is sent.
func (r *roads) onAnswer(f func(by, question string)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answers = f
}

// onQuestionRefuse makes nodes refuse the questions that f returns an error for.
func (r *roads) onQuestionRefuse(f func(by, question string) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuses = f
}

// tell carries news of a client to the other nodes.
func (r *roads) tell(by *node, id wire.ClientID, epoch uint64, up bool) {
	r.cluster.mu.Lock()
	defer r.cluster.mu.Unlock()
	at := placement{by.name, epoch}
	for to, l := range by.links {
		other := r.nodes[to]
		r.carry(l, func() { r.learn(other, id, at, up) })
	}
}

func (r *roads) learn(n *node, id wire.ClientID, at placement, up bool) {
	before, ok := r.locate(n, id)
	if !ok {
		r.mu.Lock()
		before, ok = r.lately[n.name][id]
		r.mu.Unlock()
	}
	if up && ok && before.node != at.node {
		n.Moving([]wire.ClientID{id}, before.node, at.node)
	}
	r.mu.Lock()
	if up {
		r.known[n.name][id] = at
	} else if before == at {
		delete(r.known[n.name], id)
		r.lately[n.name][id] = at
	}
	r.mu.Unlock()
	if up {
		n.Supersede(id, func(epoch uint64) bool { return at.epoch > epoch })
	}
}

func (r *roads) locate(n *node, id wire.ClientID) (placement, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, ok := r.known[n.name][id]
	return at, ok
}

// knows waits until a node has heard where the client "to" is.
func (r *roads) knows(name, at string) {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("%s knows that the client is on %s", name, at), func() bool {
		p, _ := r.locate(r.nodes[name], "to")
		return p.node == at
	})
}

// leave cuts the links of a node, as the others do when they hear that it left.
func (r *roads) leave(name string) {
	for other := range r.nodes {
		if other != name {
			r.disconnect(r.nodes[name], r.nodes[other])
		}
	}
}

// guest is a client with a session.
type guest struct {
	*peer
	resume hub.Resume
}

// visit connects the client "to" to a node: anew, or to go on with the session that
// it has.
func (r *roads) visit(name string, before hub.Resume) *guest {
	r.t.Helper()
	return r.visitAs("to", name, before)
}

func (r *roads) visitAs(id wire.ClientID, name string, before hub.Resume) *guest {
	r.t.Helper()
	g, err := r.tryVisit(id, name, before)
	if err != nil {
		r.t.Fatal(err)
	}
	return g
}

// tryVisit is visitAs for a node that may refuse.
func (r *roads) tryVisit(id wire.ClientID, name string, before hub.Resume, opts ...hub.ClientOption) (*guest, error) {
	r.t.Helper()
	before.Attempt++
	g := &guest{resume: hub.Resume{Node: name, Attempt: before.Attempt}}
	hubs, clients := pair(r.t, "pipe")
	err := r.nodes[name].RegisterClient(id, hubs, append(opts, hub.WithSession(before), hub.WithGreeting(func(greeting hub.Greeting) []byte {
		g.resume.Key = greeting.Session
		return control(wire.KindWelcome, 0, "", wire.Welcome{})
	}))...)
	if err != nil {
		return nil, err
	}
	g.peer = newPeer(r.t, id, clients)
	g.expect(wire.KindWelcome, 0)
	return g, nil
}

// What a client was asked it may answer wherever it is by then, and that it was asked while it
// was away, too.
func TestWhoeverWasAskedMayAnswerElsewhere(t *testing.T) {
	r := newRoads(t, "a", "b")
	from := join(t, r.nodes["a"].Hub, "from")
	visit := func(name string, before hub.Resume) *guest {
		t.Helper()
		g, err := r.tryVisit("to", name, before, hub.WithPermit(may()))
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	ask := func(ref uint32) { from.write(frame(wire.KindSend, wire.FlagRequest, ref, "to", "from", "question")) }
	to := visit("a", hub.Resume{})
	ask(1)
	to.expect(wire.KindSend, 1)
	to.resume.Received++
	_ = to.conn.Close()
	<-to.done
	ask(2)
	ask(3)
	to = visit("b", to.resume)
	to.expect(wire.KindSend, 2)
	to.expect(wire.KindSend, 3)
	for ref := uint32(1); ref <= 3; ref++ {
		to.write(frame(wire.KindReply, wire.FlagAck, ref, "from", "to", "answer"))
		to.expect(wire.KindAck, ref)
		from.expect(wire.KindReply, ref)
	}
	to.write(frame(wire.KindReply, wire.FlagAck, 1, "from", "to", "again"))
	to.expectFault(wire.KindError, 1, wire.CodePermission)
}

func (p *peer) send(ref uint32) {
	p.t.Helper()
	p.write(frame(wire.KindSend, wire.FlagAck, ref, "to", p.id, fmt.Sprint(ref)))
}

// What is on its way to a node that leaves, by who has not heard yet where its
// clients went, is passed on and answered before the others close their links to it.
func TestANodeThatLeavesWaitsForWhatIsOnItsWay(t *testing.T) {
	r := newRoads(t, "a", "b", "c")
	from := join(t, r.nodes["c"].Hub, "from")
	to := r.visit("a", hub.Resume{})
	r.knows("c", "a")

	var arrive func()
	r.onAnswer(func(_, question string) {
		if question == "session.take" {
			var sent <-chan struct{}
			sent, arrive = r.block("c", "a")
			from.send(1)
			<-sent
		}
	})
	moved := r.visit("b", to.resume)
	r.onQuestion(func(to, question string) {
		if to == "c" && question == "node.leaving" {
			arrive()
		}
	})
	leaving := r.nodes["a"]
	leaving.HandOverSessions(t.Context(), []string{"b", "c"})
	leaving.Settle(t.Context())
	r.leave("a")

	if f := moved.expect(wire.KindSend, 1); f.payloads()[0] != "1" {
		t.Errorf("got %v", f)
	}
	from.expect(wire.KindAck, 1)
}

// A session is handed over with all that comes for its client meanwhile, in order.
func TestASessionIsHandedOverWithWhatComesMeanwhile(t *testing.T) {
	r := newRoads(t, "a", "b", "c")
	from := join(t, r.nodes["c"].Hub, "from")
	to := r.visit("a", hub.Resume{})
	r.knows("c", "a")
	_ = to.conn.Close()
	<-to.done
	eventually(t, "the client is away", func() bool { return len(r.nodes["a"].Clients()) == 0 })

	ref := uint32(0)
	send := func() {
		ref++
		from.send(ref)
	}
	send()
	from.expect(wire.KindAck, 1)
	r.onQuestion(func(to, question string) {
		if to == "b" && question == "session.keep" {
			send()
			from.expect(wire.KindAck, 2)
		}
	})
	r.onAnswer(func(by, question string) {
		if by == "a" && question == "session.take" {
			send()
			eventually(t, "it has arrived", func() bool { return r.nodes["a"].Metrics().ArtifactsForwarded == 3 })
		}
	})
	leaving := r.nodes["a"]
	leaving.HandOverSessions(t.Context(), []string{"b"})
	leaving.Settle(t.Context())
	r.leave("a")
	send()

	moved := r.visit("c", to.resume)
	for want := uint32(1); want <= ref; want++ {
		moved.expect(wire.KindSend, want)
	}
	from.expect(wire.KindAck, 3)
	from.expect(wire.KindAck, 4)
	if ref != 4 {
		t.Errorf("%d artifacts were sent, want one before the session is asked for, one after, one once it is given, one at last", ref)
	}
}

func TestASessionGoesToTheFirstNodeThatTakesIt(t *testing.T) {
	r := newRoads(t, "a", "b", "c")
	to := r.visit("a", hub.Resume{})
	from := join(t, r.nodes["c"].Hub, "from")
	from.send(1)
	from.expect(wire.KindAck, 1)
	r.nodes["b"].HandOverSessions(t.Context(), nil) // so it leaves as well
	r.nodes["a"].HandOverSessions(t.Context(), []string{"b", "c"})
	r.nodes["a"].Settle(t.Context())
	r.leave("a")
	r.visit("c", to.resume).expect(wire.KindSend, 1)
}

func TestANodeThatHasHandedOverTakesNoSession(t *testing.T) {
	r := newRoads(t, "a", "b")
	r.nodes["a"].HandOverSessions(t.Context(), []string{"b"})
	hubs, _ := pair(t, "pipe")
	if err := r.nodes["a"].RegisterClient("late", hubs, hub.WithSession(hub.Resume{})); !errors.Is(err, hub.ErrNotRunning) {
		t.Errorf("RegisterClient = %v, want ErrNotRunning", err)
	}
}

// Who sent by way of a node that passed it on hears of it when the next one is lost.
func TestSenderHearsThatTheNodeBehindTheNextOneWasLost(t *testing.T) {
	r := newRoads(t, "a", "b", "c")
	from := join(t, r.nodes["c"].Hub, "from")
	to := r.visit("a", hub.Resume{})
	r.knows("c", "a")
	r.onAnswer(func(_, question string) {
		if question == "session.take" {
			r.block("b", "a")
			from.send(1)
		}
	})
	moved := r.visit("b", to.resume)
	moved.expect(wire.KindSend, 1)
	r.nodes["a"].SetPeer("b", nil)
	from.expectFault(wire.KindError, 1, wire.CodeUnavailable)
}

// A node that does not answer may have the client: nobody is told that there is none.
func TestWhoDoesNotAnswerMayHaveTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoads(t, "a", "b", "c")
		from := join(t, r.nodes["a"].Hub, "from")
		_, free := r.block("c", "a")
		from.send(1)
		from.expectFault(wire.KindError, 1, wire.CodeUnavailable)
		free()
		from.send(2)
		from.expectFault(wire.KindError, 2, wire.CodeNoClient)
	})
}
