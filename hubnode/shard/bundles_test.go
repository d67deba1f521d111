package shard

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/switchboardhub/switchboard/wire"
)

// post is a Carrier that keeps what it is given.
type post struct {
	mu     sync.Mutex // guards the fields below
	cut    bool       // there is no link
	frames []wire.Frame
}

func (p *post) Carry(_ string, parts ...[]byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.cut {
		p.frames = append(p.frames, slices.Concat(parts...))
	}
	return !p.cut
}

// sent returns of each frame so far what it is: a kind, or the shards that are in a bundle.
func (p *post) sent(t *testing.T) []string {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for _, f := range p.frames {
		all = append(all, whatItIs(t, f))
	}
	return all
}

func whatItIs(t *testing.T, f wire.Frame) string {
	t.Helper()
	switch f.Kind() {
	case wire.KindRaft, wire.KindRafted:
		return string(rune('0' + f.Sequence()))
	case wire.KindBundle:
		frames, _, err := unbundled(f.Body())
		if err != nil {
			t.Error(err)
		}
		var in []string
		for _, f := range frames {
			in = append(in, whatItIs(t, f))
		}
		slices.Sort(in) // they come in any order
		return strings.Join(in, "+")
	default:
		t.Errorf("a frame of kind %d was sent", f.Kind())
		return ""
	}
}

// caller is the transports of some shards of n-0, whose next heartbeats to n-1 are due in an hour.
type caller struct {
	*post
	t          *testing.T
	bundles    *bundles
	transports []*transport
	errs       chan error // of heartbeats
	beating    sync.WaitGroup
}

func newCaller(t *testing.T, shards int, takes bool) *caller {
	t.Helper()
	c := &caller{post: &post{}, t: t, errs: make(chan error, 100)}
	c.bundles = newBundles(Config{Carrier: c.post, Bundles: func(string) bool { return takes }})
	c.bundles.pause = time.Hour
	for n := range shards {
		tr := newTransport(n, "n-0/1", "n-0", c.bundles)
		tr.beats["n-1"] = time.Now().Add(time.Hour)
		c.transports = append(c.transports, tr)
	}
	t.Cleanup(func() {
		for _, tr := range c.transports {
			_ = tr.Close()
		}
		c.beating.Wait()
		c.bundles.close()
	})
	return c
}

// beat makes a shard's heartbeat.
func (c *caller) beat(n int) {
	c.beating.Go(func() {
		c.errs <- c.transports[n].AppendEntries("n-1/1", "", &raft.AppendEntriesRequest{Term: 1}, &raft.AppendEntriesResponse{})
	})
}

// wait waits until so many calls wait, and everything that was sent is as it should be.
func (c *caller) wait(what string, waiting int, want ...string) {
	c.t.Helper()
	eventually(c.t, what, func() bool {
		c.bundles.mu.Lock()
		defer c.bundles.mu.Unlock()
		to := c.bundles.nodes["n-1"]
		return (to == nil && waiting == 0 || to != nil && len(to.calls) == waiting) && slices.Equal(c.sent(c.t), want)
	})
}

func TestHeartbeatsThatWaitGoTogether(t *testing.T) {
	c := newCaller(t, 4, true)
	c.beat(0)
	c.beat(1)
	c.wait("two wait", 2)
	c.transports[2].beats["n-1"] = time.Now().Add(time.Millisecond)
	c.beat(2)
	c.wait("three go when the first is due", 0, "0+1+2")
	c.beat(3)
	c.wait("one waits", 1, "0+1+2")
	c.transports[0].mu.Lock()
	delete(c.transports[0].beats, "n-1") // as when nothing was answered yet
	c.transports[0].mu.Unlock()
	c.beat(0)
	c.wait("the first one ever goes at once, and takes it along", 0, "0+1+2", "0+3")
}

// Who asks whether it leads waits for heartbeats: those of its shard go, and go alone.
func TestHeartbeatsThatAreInAHurryWaitForNobody(t *testing.T) {
	c := newCaller(t, 2, true)
	c.beat(0)
	c.beat(1)
	c.wait("two wait", 2)
	c.bundles.hurry(c.transports[1])
	c.wait("one has gone", 1, "1")
	c.bundles.hurry(c.transports[1])
	c.bundles.calm(c.transports[1])
	c.beat(1)
	c.wait("the next one has gone", 1, "1", "1")
	c.bundles.calm(c.transports[1])
	c.beat(1)
	c.wait("now it waits", 2, "1", "1")
}

func TestANodeOfTheVersionBeforeGetsNoBundles(t *testing.T) {
	c := newCaller(t, 1, false)
	c.beat(0)
	c.wait("it goes", 0, "0")
	c.beat(0)
	c.wait("so does the next one", 0, "0", "0")
}

func TestABundleWithoutALinkFails(t *testing.T) {
	c := newCaller(t, 2, true)
	c.cut = true
	c.beat(0)
	c.beat(1)
	c.wait("two wait", 2)
	c.bundles.carry("n-1", c.bundles.take("n-1")...)
	for range 2 {
		if err := <-c.errs; !errors.Is(err, errNoLink) {
			t.Errorf("a heartbeat: %v, want %v", err, errNoLink)
		}
	}
}

// What waits for a link that is lost does not go over the next one.
func TestWhatWaitsIsForgottenWithTheLink(t *testing.T) {
	c := newCaller(t, 1, true)
	c.beat(0)
	c.wait("it waits", 1)
	c.bundles.forget("n-1")
	c.transports[0].fail("n-1", errNoLink)
	if err := <-c.errs; !errors.Is(err, errNoLink) {
		t.Errorf("the heartbeat: %v, want %v", err, errNoLink)
	}
	c.wait("nothing was sent", 0)
}

// An empty append tells what is committed: it waits when nothing else is on its way.
func TestAnEmptyAppendWaitsAtRest(t *testing.T) {
	c := newCaller(t, 1, true)
	p, err := c.transports[0].AppendEntriesPipeline("n-1/1", "")
	if err != nil {
		t.Fatal(err)
	}
	add := func(a *raft.AppendEntriesRequest) {
		if _, err := p.AppendEntries(a, &raft.AppendEntriesResponse{}); err != nil {
			t.Error(err)
		}
	}
	add(&raft.AppendEntriesRequest{LeaderCommitIndex: 1})
	c.wait("it waits", 1)
	add(&raft.AppendEntriesRequest{LeaderCommitIndex: 1, Entries: []*raft.Log{{Index: 2}}})
	c.wait("an entry does not", 1, "0")
	add(&raft.AppendEntriesRequest{LeaderCommitIndex: 1})
	c.wait("nor does what follows it", 1, "0", "0")
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// called returns shards of n-1 that take calls of n-0, with replicas 0 to count-1 whose Raft
// answers a heartbeat with how.
func called(t *testing.T, count int, how func(shard int, call raft.RPC)) (*Shards, *post) {
	t.Helper()
	p := &post{}
	s := New(Config{Self: "n-1", Shards: count + 1, Carrier: p, Timing: quick, Log: slog.New(slog.DiscardHandler)})
	for n := range count {
		r := &replica{s: s, n: n, id: "n-1/1", trans: newTransport(n, "n-1/1", "n-1", s.bundles)}
		r.trans.SetHeartbeatHandler(func(call raft.RPC) { how(n, call) })
		s.replicas[n] = r
		t.Cleanup(func() { _ = r.trans.Close() })
	}
	return s, p
}

// calls returns a bundle of heartbeats to the first shards of n-1.
func calls(count int) wire.Frame {
	var frames [][]byte
	for n := range count {
		body := slices.Concat(encodeAppend(&raft.AppendEntriesRequest{Term: 1})...)
		frames = append(frames, append(head(wire.KindRaft, n, uint32(n), "n-1/1", "n-0/1", len(body)), body...))
	}
	return slices.Concat(bundled(frames)...)
}

func succeeds(call raft.RPC) { call.Respond(&raft.AppendEntriesResponse{Success: true}, nil) }

// Answers go back together, that of a replica which is not there too. One that is slow
// holds up none of them.
func TestAnswersGoBackTogether(t *testing.T) {
	goOn := make(chan struct{})
	s, p := called(t, 3, func(shard int, call raft.RPC) {
		if shard == 1 {
			<-goOn
		}
		succeeds(call)
	})
	if !s.Take("n-0", calls(4), nil) {
		t.Fatal("a bundle is nothing for the shards")
	}
	eventually(t, "three answers", func() bool { // mostly in one frame, but that is up to the machine
		return len(strings.Split(strings.Join(p.sent(t), "+"), "+")) == 3
	})
	before := p.sent(t)
	if slices.ContainsFunc(before, func(s string) bool { return strings.Contains(s, "1") }) {
		t.Errorf("answers %q: shard 1 has answered nothing", before)
	}
	close(goOn)
	eventually(t, "the slow one's answer", func() bool { return slices.Equal(p.sent(t), append(before, "1")) })
}

func TestAnswersThatAreAllThereGoAtOnce(t *testing.T) {
	s, p := called(t, 3, func(_ int, call raft.RPC) { succeeds(call) })
	s.bundles.pause = time.Hour * gatherPart // what is missing would be waited for
	s.Take("n-0", calls(4), nil)
	eventually(t, "the answers", func() bool { return slices.Equal(p.sent(t), []string{"0+1+2+3"}) })
	frames, _, err := unbundled(p.frames[0].Body())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range frames {
		err := decodeAnswer(f.Body(), &raft.AppendEntriesResponse{})
		if missing := f.Sequence() == 3; absent(err) != missing || !missing && err != nil {
			t.Errorf("shard %d answers %v", f.Sequence(), err)
		}
	}
}

func TestAMalformedBundleIsRefusedWhole(t *testing.T) {
	good := calls(2)
	for what, body := range map[string][]byte{
		"ends within a frame":         good.Body()[:len(good.Body())-1],
		"ends within a length":        append(slices.Clone(good.Body()), 0, 0),
		"holds a frame that is none":  append(slices.Clone(good.Body()), 0, 0, 0, 1, 1),
		"holds another bundle":        append(slices.Clone(good.Body()), good...),
		"holds a frame of no replica": wire.AppendFrame(slices.Clone(good.Body()), wire.Header{Kind: wire.KindLeads}, "", "", nil),
	} {
		if _, _, err := unbundled(body); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("a bundle that %s: %v, want %v", what, err, wire.ErrMalformed)
		}
		s, _ := called(t, 2, func(shard int, _ raft.RPC) { t.Errorf("a bundle that %s: shard %d is called", what, shard) })
		if !s.Take("n-0", wire.AppendFrame(nil, wire.Header{Kind: wire.KindBundle}, "", "", body), nil) {
			t.Errorf("a bundle that %s is nothing for the shards", what)
		}
	}
}

// At rest the heartbeats of all shards that a node leads come to go together, and nobody
// loses the leadership for it.
func TestHeartbeatsComeToGoTogether(t *testing.T) {
	g := newGroup(t, 3, 9, "")
	most := func(from, to *member) int {
		count := 0
		for n := range 9 {
			r := from.shards.replica(n)
			if r != nil && r.servesNow() && to.shards.replica(n) != nil {
				count++
			}
		}
		return count
	}
	eventually(t, "nine shards with leaders where they stay", func() bool {
		for n := range 9 {
			leader, _ := g.node("n-0").shards.leaderOf(n)
			if g.voters(n) != 3 || leader != g.desired(n)[0] {
				return false
			}
		}
		return true
	})
	for _, from := range g.members() {
		for _, to := range g.members() {
			if from != to && most(from, to) > 1 {
				eventually(t, from.name+" sends the heartbeats to "+to.name+" together", func() bool { return from.together(to.name) >= most(from, to) })
			}
		}
	}
}

// A read asks the other replicas whether this one leads still. It does not wait until they
// are to hear a heartbeat, which here is in minutes.
func TestReadsDoNotWaitForHeartbeats(t *testing.T) {
	g := newGroupWith(t, 3, 2, "", Timing{Heartbeat: time.Hour, Commit: quick.Commit, Tend: quick.Tend})
	g.publish("a", "x", Publisher{})
	eventually(t, "three voters", func() bool { return g.voters(g.leader("a").shards.Of("a")) == 3 })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 10 {
		if b, err := g.leader("a").shards.Bounds(ctx, "a"); err != nil || b.Artifacts != 1 {
			t.Fatalf("bounds %+v: %v", b, err)
		}
	}
}

// Nodes of the version before are in the group: they get what they know, and all goes on.
func TestNodesOfTheVersionBeforeTakePart(t *testing.T) {
	storages(t, func(t *testing.T, dir string) {
		t.Helper()
		g := (&group{t: t, dir: dir, old: "n-1"}).begin(3, 6)
		topics := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
		publish := func(what string) {
			for i, topic := range topics {
				g.publish(topic, what, Publisher{ID: uint64(i + 1), Number: uint64(len(what))})
			}
		}
		whole := func() {
			eventually(t, "three voters everywhere", func() bool {
				for n := range 6 {
					if g.voters(n) != 3 {
						return false
					}
				}
				return true
			})
		}
		publish("1")
		whole()
		eventually(t, "n-0 and n-2 send each other bundles", func() bool { return g.node("n-0").together("n-2")+g.node("n-2").together("n-0") > 0 })
		g.kill("n-0")
		publish("22")
		g.start("n-0")
		whole()
		g.kill("n-1")
		g.old = "" // it was updated
		publish("333")
		g.start("n-1")
		publish("4444")
		for _, topic := range topics {
			for i := range 3 {
				eventually(t, "all of "+topic+" on "+name(i), func() bool { return slices.Equal(g.node(name(i)).held(topic), []string{"1", "22", "333", "4444"}) })
			}
		}
	})
}
