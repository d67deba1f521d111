package shard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/hubnode/history/disk"
	"github.com/switchboardhub/switchboard/hubnode/placement"
	"github.com/switchboardhub/switchboard/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quick is the timing of tests.
var quick = Timing{Heartbeat: 100 * time.Millisecond, Commit: 20 * time.Millisecond, Tend: 20 * time.Millisecond}

// group is the shards of several nodes with links in memory.
type group struct {
	t        *testing.T
	timing   Timing
	dir      string // empty: in memory, or on disks
	disks    *disks // nil: in memory, or in dir
	onChange func() // called after each change of one of the disks; may be nil
	interval time.Duration
	ahead    bool // stores are written when they like, as those of a version before were
	shards   int
	replicas int
	keeps    int                              // artifacts of each topic; 0: a million
	weighs   func() bool                      // nil: nobody wants to know
	old      string                           // a node of the version before, which neither sends nor takes bundles, and knows no owners and no questionStretch
	owners   func() func(topic string) string // nil: topics are nobody's
	asking   func(from, to, question string)  // called before a question is put, which it may hold up; may be nil

	// wrap puts something around a node's store in memory; may be nil.
	wrap func(node string, s history.Store) history.Store

	unnamed atomic.Uint64 // publishers of which a test says nothing
	mu      sync.Mutex    // guards the fields below
	size    int           // nodes that the hub has
	nodes   map[string]*member
}

// member is one node.
type member struct {
	g       *group
	name    string
	old     bool // of the version before
	shards  *Shards
	stop    context.CancelFunc
	running sync.WaitGroup
	looks   atomic.Int64 // at its replicas
	db      *disk.DB     // nil: in memory
	use     sync.RWMutex // held by who reads from the stores, and when they are closed
	closed  bool         // guarded by use
	still   sync.RWMutex // held while the node stands still: it neither hears nor says anything
	mu      sync.Mutex   // guards the fields below
	links   map[string]*pipe
	stores  map[int]history.Store
	heard   map[string][]wire.Sequence // what was delivered
	bundled map[string]int             // by nodes: how many calls were in the largest bundle for it
}

// pipe is one direction of a link.
type pipe struct {
	frames chan []byte
	lost   atomic.Bool // what is sent does not arrive
	end    chan struct{}
	done   sync.WaitGroup
}

func newGroup(t *testing.T, nodes, shards int, dir string) *group {
	t.Helper()
	return newGroupWith(t, nodes, shards, dir, quick)
}

func newGroupWith(t *testing.T, nodes, shards int, dir string, timing Timing) *group {
	t.Helper()
	return (&group{t: t, timing: timing, dir: dir}).begin(nodes, shards)
}

// begin starts the nodes of a group that is empty.
func (g *group) begin(nodes, shards int) *group {
	t := g.t
	t.Helper()
	if g.timing == (Timing{}) {
		g.timing = quick
	}
	g.shards, g.replicas, g.size, g.nodes = shards, 3, nodes, make(map[string]*member)
	for i := range nodes {
		g.start(name(i))
	}
	t.Cleanup(func() {
		for i := range 9 {
			g.kill(name(i))
		}
	})
	return g
}

func name(i int) string { return fmt.Sprintf("n-%d", i) }

func (g *group) start(node string) {
	m := &member{g: g, name: node, old: node == g.old, bundled: make(map[string]int), links: make(map[string]*pipe), stores: make(map[int]history.Store), heard: make(map[string][]wire.Sequence)}
	var (
		dir string
		fs  files
	)
	switch {
	case g.dir != "":
		dir = filepath.Join(g.dir, node)
		m.db = openHistory(g.t, vfs.Default, dir, m.syncLogs)
	case g.disks != nil:
		machine := g.disks.of(node)
		dir, fs = "node", memFiles{machineDisk: machine, onChange: g.onChange}
		m.db = openHistory(g.t, machine.files, dir, m.syncLogs)
	}
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("SHARD_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With(slog.String("node", node))
	}
	owners := g.owners
	if m.old {
		owners = nil
	}
	m.shards = New(Config{
		Self: node, Shards: g.shards, Dir: dir, SyncInterval: g.interval, Timing: g.timing, Log: log, files: fs, segment: 8 << 10,
		Store:   m.store,
		Limits:  func(string) history.Limits { return history.Limits{MaxArtifacts: cmp.Or(g.keeps, 1<<20)} },
		Weighs:  g.weighs,
		Owners:  owners,
		Outlet:  func() Outlet { return m },
		Desired: g.desired, Linked: m.linked, Settled: func() bool { return len(m.linked()) == g.count()-1 },
		Ask: m.ask, Carrier: m, Bundles: func(to string) bool { return !m.old && !g.node(to).isOld() }, Moved: func(int) {}, Looked: func() { m.looks.Add(1) },
	})
	m.shards.Want(true)
	ctx, cancel := context.WithCancel(context.Background())
	m.stop = cancel
	m.running.Go(func() { m.shards.Run(ctx) })
	g.mu.Lock()
	others := make([]*member, 0, len(g.nodes))
	for _, o := range g.nodes {
		others = append(others, o)
	}
	g.nodes[node] = m
	g.mu.Unlock()
	for _, o := range others {
		g.link(m, o)
	}
}

// syncLogs is called by the member's database, while it is opened before there are shards.
func (m *member) syncLogs() error {
	if m.shards == nil || m.g.ahead {
		return nil
	}
	return m.shards.SyncLogs()
}

func (g *group) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.nodes)
}

func (g *group) desired(n int) []string {
	g.mu.Lock()
	size := g.size
	g.mu.Unlock()
	var names []string
	for _, ordinal := range placement.Replicas(n, size, g.replicas) {
		names = append(names, name(ordinal))
	}
	return names
}

func (g *group) node(node string) *member {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.nodes[node]
}

func (g *group) link(a, b *member) {
	a.connect(b)
	b.connect(a)
	a.shards.Linked(b.name)
	b.shards.Linked(a.name)
}

func (g *group) unlink(a, b *member) {
	a.disconnect(b.name)
	b.disconnect(a.name)
	a.shards.Unlinked(b.name)
	b.shards.Unlinked(a.name)
}

// members returns the nodes that run.
func (g *group) members() []*member {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make([]*member, 0, len(g.nodes))
	for _, m := range g.nodes {
		all = append(all, m)
	}
	return all
}

// cutOff cuts a node's links to all others, rejoin brings them back.
func (g *group) cutOff(m *member) {
	for _, o := range g.members() {
		if o != m {
			g.unlink(m, o)
		}
	}
}

func (g *group) rejoin(m *member) {
	for _, o := range g.members() {
		if o != m {
			g.link(m, o)
		}
	}
}

// kill ends a node without farewell.
func (g *group) kill(node string) {
	g.mu.Lock()
	m := g.nodes[node]
	delete(g.nodes, node)
	others := make([]*member, 0, len(g.nodes))
	for _, o := range g.nodes {
		others = append(others, o)
	}
	g.mu.Unlock()
	if m == nil {
		return
	}
	for _, o := range others {
		g.unlink(m, o)
	}
	m.stop()
	m.running.Wait()
	m.use.Lock()
	defer m.use.Unlock()
	m.closed = true
	if m.db != nil {
		if err := m.db.Close(); err != nil {
			g.t.Errorf("node %s: %v", node, err)
		}
	}
}

// read reads all from the member's replica of a topic's shard.
func (m *member) read(topic string, visit func(history.Run)) error {
	m.use.RLock()
	defer m.use.RUnlock()
	store, ok := m.shards.Held(topic)
	if !ok || m.closed {
		return errNotLeader
	}
	_, err := store.Read(topic, 1, 1<<30, visit)
	return err
}

func (m *member) connect(to *member) {
	p := &pipe{frames: make(chan []byte, 1<<14), end: make(chan struct{})}
	m.mu.Lock()
	m.links[to.name] = p
	m.mu.Unlock()
	p.done.Go(func() {
		for {
			select {
			case f := <-p.frames:
				to.goesOn()
				m.countBundle(to, f)
				to.shards.Take(m.name, wire.Frame(f), nil)
			case <-p.end:
				return
			}
		}
	})
}

func (m *member) disconnect(node string) {
	m.mu.Lock()
	p := m.links[node]
	delete(m.links, node)
	m.mu.Unlock()
	if p != nil {
		close(p.end)
		p.done.Wait()
	}
}

func (m *member) linked() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for n := range m.links {
		names = append(names, n)
	}
	return names
}

// countBundle looks at a frame that a node gets.
func (m *member) countBundle(to *member, f wire.Frame) {
	if f.Kind() != wire.KindBundle {
		return
	}
	if m.old || to.old {
		m.g.t.Errorf("%s sends a bundle to %s", m.name, to.name)
	}
	_, calls, _ := unbundled(f.Body())
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bundled[to.name] = max(m.bundled[to.name], calls)
}

// together returns how many calls were in the largest bundle for a node.
func (m *member) together(to string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.bundled[to]
}

// isOld reports whether a node is of the version before, or not there.
func (m *member) isOld() bool { return m == nil || m.old }

// goesOn returns once the node does not stand still.
func (m *member) goesOn() {
	m.still.RLock()
	defer m.still.RUnlock()
}

// linkTo returns the way to a node, once this one does not stand still.
func (m *member) linkTo(node string) *pipe {
	m.still.RLock()
	defer m.still.RUnlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.links[node]
}

func (m *member) Carry(node string, parts ...[]byte) bool {
	p := m.linkTo(node)
	if p == nil {
		return false
	}
	if p.lost.Load() {
		return true
	}
	select {
	case p.frames <- slices.Concat(parts...):
		return true
	default:
		return false
	}
}

func (m *member) ask(ctx context.Context, node, question string, body []byte) ([]byte, error) {
	if m.g.asking != nil {
		m.g.asking(m.name, node, question)
	}
	p, to := m.linkTo(node), m.g.node(node)
	if p == nil || to == nil || ctx.Err() != nil || p.lost.Load() {
		return nil, errors.New("no link to " + node)
	}
	back := to.linkTo(m.name)
	if back == nil || back.lost.Load() {
		return nil, errors.New("no answer from " + node)
	}
	to.goesOn()
	to.use.RLock()
	defer to.use.RUnlock()
	if to.closed {
		return nil, errStopped
	}
	if m.old || to.old {
		switch question {
		case questionStretch:
			return nil, &wire.Error{Code: wire.CodeInvalidRequest, Detail: "unknown question: " + question}
		case questionPage:
			if to.old {
				return to.oldPage(body)
			}
		}
	}
	answer, _, err := to.shards.Answer(ctx, question, body)
	return answer, err
}

// oldPage answers questionPage as the version before does: with what the replica holds that
// is there now, be it nothing.
func (m *member) oldPage(body []byte) ([]byte, error) {
	f := &fields{rest: body}
	r, from := m.shards.replica(int(f.uint32())), wire.Sequence(f.uint64())
	if r == nil {
		return nil, errNotLeader
	}
	var b []byte
	_, err := r.store.Read(string(f.rest), from, pullBytes, func(run history.Run) { b = appendRun(b, run) })
	return b, err
}

func (m *member) store(n int) (history.Store, error) {
	if m.db != nil {
		return m.db.Shard(uint32(n)), nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stores[n] == nil {
		m.stores[n] = history.NewMemory()
		if m.g.wrap != nil {
			m.stores[n] = m.g.wrap(m.name, m.stores[n])
		}
	}
	return m.stores[n], nil
}

// Deliver implements Outlet.
func (m *member) Deliver(topic string, _ wire.Frame, first wire.Sequence) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heard[topic] = append(m.heard[topic], first)
}

// Flush implements Outlet.
func (m *member) Flush() {}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// leader returns the node that leads a topic's shard, once there is one that
// says so itself.
func (g *group) leader(topic string) *member {
	g.t.Helper()
	var found *member
	eventually(g.t, "a leader for "+topic, func() bool {
		g.mu.Lock()
		nodes := make([]*member, 0, len(g.nodes))
		for _, m := range g.nodes {
			nodes = append(nodes, m)
		}
		g.mu.Unlock()
		for _, m := range nodes {
			if _, self := m.shards.Leader(topic); self {
				found = m
				return true
			}
		}
		return false
	})
	return found
}

func frame(topic, payload string) wire.Frame {
	var run wire.Run
	a := wire.Artifact{ID: (&wire.IDs{}).Next(), Time: time.Now(), Payload: []byte(payload)}
	if err := run.Append(&a, 1<<20); err != nil {
		panic(err)
	}
	return wire.AppendFrame(nil, wire.Header{Kind: wire.KindPublish, Count: 1}, topic, "pub", run.Body())
}

// publish stores one artifact through whoever leads, however often that takes. That of no
// publisher gets one of its own: a leader that is replaced may have stored it, and say
// that it failed.
func (g *group) publish(topic, payload string, by Publisher) wire.Sequence {
	g.t.Helper()
	if by == (Publisher{}) {
		by = Publisher{ID: 1<<32 + g.unnamed.Add(1), Number: 1}
	}
	var seq wire.Sequence
	eventually(g.t, "publish to "+topic, func() bool {
		result := make(chan Result, 1)
		err := g.leader(topic).shards.Append(frame(topic, payload), 0, by, func(_ Outlet, r Result) { result <- r })
		if err != nil {
			return false
		}
		r := <-result
		seq = r.First
		return r.Err == nil
	})
	return seq
}

// held returns the payloads that a node's replica holds.
func (m *member) held(topic string) []string {
	var all []string
	err := m.read(topic, func(run history.Run) {
		r := wire.NewRunReader(run.Body)
		for {
			var a wire.Artifact
			ok, err := r.Next(&a)
			if err != nil || !ok {
				return
			}
			all = append(all, string(a.Payload))
		}
	})
	if err != nil {
		return nil
	}
	return all
}

func storages(t *testing.T, test func(t *testing.T, dir string)) {
	t.Helper()
	t.Run("memory", func(t *testing.T) { test(t, "") })
	t.Run("disk", func(t *testing.T) { test(t, t.TempDir()) })
}

func TestWhatIsAcknowledgedReachesAllReplicas(t *testing.T) {
	storages(t, func(t *testing.T, dir string) {
		t.Helper()
		g := newGroup(t, 3, 2, dir)
		var want []string
		for i := range 100 {
			payload := fmt.Sprint(i)
			want = append(want, payload)
			if seq := g.publish("a", payload, Publisher{}); seq != wire.Sequence(i+1) {
				t.Fatalf("artifact %d got sequence %d", i, seq)
			}
		}
		for i := range 3 {
			eventually(t, "all artifacts on "+name(i), func() bool { return slices.Equal(g.node(name(i)).held("a"), want) })
		}
	})
}

func TestAFrameSentTwiceIsStoredOnce(t *testing.T) {
	g := newGroup(t, 3, 1, "")
	first := g.publish("a", "one", Publisher{ID: 7, Number: 1})
	g.publish("a", "two", Publisher{ID: 7, Number: 2})
	old := g.leader("a")
	if again := g.publish("a", "one", Publisher{ID: 7, Number: 1}); again != first {
		t.Errorf("stored at %d, said to be at %d when sent again", first, again)
	}
	g.kill(old.name)
	if again := g.publish("a", "one", Publisher{ID: 7, Number: 1}); again != first {
		t.Errorf("after a change of leaders: stored at %d, said to be at %d when sent again", first, again)
	}
	if got := g.leader("a").held("a"); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("held: %q", got)
	}
}

func TestALeaderThatDiesLosesNothingAcknowledged(t *testing.T) {
	storages(t, func(t *testing.T, dir string) {
		t.Helper()
		g := newGroup(t, 3, 1, dir)
		var want []string
		number := uint64(0)
		for round := range 4 {
			for i := range 20 {
				number++
				payload := fmt.Sprintf("%d.%d", round, i)
				want = append(want, payload)
				g.publish("a", payload, Publisher{ID: 1, Number: number})
			}
			l := g.leader("a")
			g.kill(l.name)
			number++
			want = append(want, "between")
			g.publish("a", "between", Publisher{ID: 1, Number: number})
			g.start(l.name)
			eventually(t, "three voters again", func() bool { return g.voters(0) == 3 })
		}
		for i := range 3 {
			eventually(t, "all artifacts on "+name(i), func() bool { return slices.Equal(g.node(name(i)).held("a"), want) })
		}
	})
}

// voters returns how many voters the leader of a shard counts that are there.
func (g *group) voters(n int) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, m := range g.nodes {
		r := m.shards.replica(n)
		if r == nil || !r.servesNow() {
			continue
		}
		count := 0
		for _, s := range r.members() {
			if o := g.nodes[nodeOf(s.ID)]; o != nil {
				if there := o.shards.replica(n); there != nil && there.id == s.ID && s.Suffrage == 0 {
					count++
				}
			}
		}
		if count == len(r.members()) {
			return count
		}
	}
	return 0
}

func TestScalingMovesReplicas(t *testing.T) {
	g := newGroup(t, 1, 4, "")
	topics := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	for _, topic := range topics {
		g.publish(topic, "first", Publisher{})
	}
	for _, size := range []int{3, 5, 3, 1} {
		g.mu.Lock()
		g.size = size
		g.mu.Unlock()
		for i := range size {
			if g.node(name(i)) == nil {
				g.start(name(i))
			}
		}
		eventually(t, fmt.Sprintf("replicas where they belong among %d", size), func() bool {
			for n := range 4 {
				if g.voters(n) != min(3, size) {
					return false
				}
				for i := range 5 {
					m := g.node(name(i))
					if m != nil && !slices.Contains(g.desired(n), m.name) && m.shards.replica(n) != nil {
						return false
					}
				}
			}
			return true
		})
		for i := size; i < 5; i++ {
			g.kill(name(i))
		}
		for _, topic := range topics {
			g.publish(topic, fmt.Sprint(size), Publisher{})
		}
	}
	for _, topic := range topics {
		if got := g.leader(topic).held(topic); !slices.Equal(got, []string{"first", "3", "5", "3", "1"}) {
			t.Errorf("topic %s holds %q", topic, got)
		}
	}
}

func TestAMajorityThatLostItsMemoryDoesNotStopTheRest(t *testing.T) {
	g := newGroup(t, 3, 1, "")
	g.publish("a", "kept", Publisher{})
	for i := range 3 {
		eventually(t, "the artifact on "+name(i), func() bool { return len(g.node(name(i)).held("a")) == 1 })
	}
	g.kill("n-0")
	g.kill("n-1")
	g.start("n-0")
	g.start("n-1")
	g.publish("a", "more", Publisher{ID: 1, Number: 1}) // it may take more than one try, of which the first may be stored
	eventually(t, "three voters again", func() bool { return g.voters(0) == 3 })
	for i := range 3 {
		eventually(t, "both artifacts on "+name(i), func() bool { return slices.Equal(g.node(name(i)).held("a"), []string{"kept", "more"}) })
	}
}

// A leader has just given a vote to a successor, and stored something with it, and loses its
// memory before the third replica has heard of the vote: that gives the successor none, and
// can't be elected itself. The successor goes on, with all that was acknowledged.
func TestWhoHasJustGotItsVoteGoesOn(t *testing.T) {
	var from, to, deaf atomic.Pointer[member]
	g := &group{t: t, asking: func(asker, asked, question string) {
		leader, successor := from.Load(), to.Load()
		if question != questionState || successor == nil || asker != leader.name || asked != successor.name {
			return
		}
		var of []raft.ServerSuffrage
		for _, m := range leader.shards.replica(0).members() {
			if nodeOf(m.ID) == asked {
				of = append(of, m.Suffrage)
			}
		}
		if slices.Equal(of, []raft.ServerSuffrage{raft.Nonvoter}) { // it gets its vote next
			leader.linkTo(deaf.Load().name).lost.Store(true)
		}
	}}
	g.begin(3, 1)
	g.publish("a", "first", Publisher{})
	eventually(t, "three voters", func() bool { return g.voters(0) == 3 })
	leader := g.leader("a")
	var others []*member
	for _, m := range g.members() {
		if m != leader {
			others = append(others, m)
		}
	}
	g.kill(others[0].name)
	deaf.Store(others[1])
	from.Store(leader)
	g.start(others[0].name)
	to.Store(g.node(others[0].name))
	votes := func(m *member) bool {
		st := m.shards.replica(0).state()
		return st.votesFor(st.ID)
	}
	eventually(t, "a vote for the successor", func() bool { return to.Load().shards.replica(0) != nil && votes(to.Load()) })
	g.publish("a", "second", Publisher{})
	if st := others[1].shards.replica(0).state(); st.votesFor(to.Load().shards.replica(0).id) {
		t.Fatal("the third replica has heard of the vote")
	}
	to.Store(nil)
	g.kill(leader.name)
	g.start(leader.name)
	g.publish("a", "third", Publisher{})
	eventually(t, "three voters again", func() bool { return g.voters(0) == 3 })
	for i := range 3 {
		m := g.node(name(i))
		eventually(t, "all artifacts on "+m.name, func() bool { return slices.Equal(m.held("a"), []string{"first", "second", "third"}) })
		if n := m.shards.Recovered(); n > 0 {
			t.Errorf("%s says that acknowledged artifacts may be lost", m.name)
		}
	}
}

// leaveBehind cuts a follower off, while so much is published to topic a that the others cut
// their logs: it has to fetch a snapshot. It returns the follower, and all that was published.
func (g *group) leaveBehind() (away *member, all []string) {
	g.t.Helper()
	publish := func(n int) {
		g.t.Helper()
		for range n {
			all = append(all, fmt.Sprintf("%d %s", len(all), strings.Repeat("x", 16<<10)))
			g.publish("a", all[len(all)-1], Publisher{ID: 1, Number: uint64(len(all))})
		}
	}
	publish(3)
	g.allHold(all)
	away = g.node(follower(g))
	g.cutOff(away)
	publish(2 * trailingLogs)
	for _, m := range g.members() {
		if m != away {
			m.cutLog(g.t)
		}
	}
	return away, all
}

// resize makes the group belong on the first nodes.
func (g *group) resize(size int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.size = size
}

// A node is away while its replica is removed, and comes back with its old disk: as a
// new member where one belongs, with nothing where none does.
func TestAnOldDiskDoesNoHarm(t *testing.T) {
	for what, size := range map[string]int{"the hub has grown again": 3, "the hub has not": 2} {
		t.Run(what, func(t *testing.T) {
			g := newGroup(t, 3, 1, t.TempDir())
			g.publish("a", "before", Publisher{})
			eventually(t, "three voters", func() bool { return g.voters(0) == 3 })
			eventually(t, "n-2 has it", func() bool { return len(g.node("n-2").held("a")) == 1 }) // and knows of the group
			old := g.node("n-2").shards.replica(0).id
			g.kill("n-2")
			g.resize(2)
			for i := range 2 { // who leads next goes by it, too
				eventually(t, name(i)+" knows two members", func() bool { return len(g.node(name(i)).shards.replica(0).members()) == 2 })
			}
			g.publish("a", "meanwhile", Publisher{})
			g.resize(size)
			g.start("n-2")
			if size == 2 {
				eventually(t, "the old replica is gone", func() bool { return g.node("n-2").shards.replica(0) == nil })
			} else {
				eventually(t, "three voters again", func() bool { return g.voters(0) == 3 })
				if got := g.node("n-2").shards.replica(0).id; got == old {
					t.Errorf("n-2 is a member again as %s, which was removed", got)
				}
			}
			g.publish("a", "after", Publisher{})
			want := []string{"before", "meanwhile", "after"}
			for i := range size {
				eventually(t, "all artifacts on "+g.node(name(i)).name, func() bool { return slices.Equal(g.node(name(i)).held("a"), want) })
			}
			for i := range 3 {
				eventually(t, "everybody says that it is settled", func() bool { return g.node(name(i)).shards.Unsettled() == 0 })
			}
		})
	}
}

// What is not where it belongs is known to some node until it is.
func TestUnsettled(t *testing.T) {
	g := newGroup(t, 3, 1, "")
	g.publish("a", "x", Publisher{})
	unsettled := func() int {
		most := 0
		for i := range 3 {
			most = max(most, g.node(name(i)).shards.Unsettled())
		}
		return most
	}
	eventually(t, "it is settled", func() bool { return unsettled() == 0 })
	g.resize(2)
	if unsettled() == 0 { // at once, whatever the leader has done
		t.Error("three members are settled on two nodes")
	}
	eventually(t, "it is settled again", func() bool { return unsettled() == 0 })
	eventually(t, "n-2 has no replica any more", func() bool { return g.node("n-2").shards.replica(0) == nil })
}
