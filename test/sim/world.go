package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/directory"
	"github.com/switchboardhub/switchboard/wire"
)

// What a node does by the clock, as in hubnode.
const (
	batchTime = 2 * time.Millisecond
	beatTime  = 5 * time.Second
)

// Config says what kind of world it is.
type Config struct {
	Seed          uint64
	Nodes         int
	LogKept       int // changes that a log keeps
	AnnounceBytes int
	Loss          float64       // of announcements, from 0 to 1
	Delay         time.Duration // the longest; each announcement has its own
}

// World is a hub's nodes and the network between them.
type World struct {
	cfg   Config
	rnd   *rand.Rand
	clock clock
	nodes []*node
	links map[[2]int]*link // by the two ends, the lower first
	cuts  map[[2]int]bool

	lastEpoch map[wire.ClientID]uint64 // what a client shows when it comes back
	newest    map[wire.ClientID]session
}

type session struct {
	epoch uint64
	node  string
}

// node is one node in one or several lives.
type node struct {
	world   *World
	ordinal int
	name    string
	up      bool
	lives   uint64
	log     *directory.Log
	table   *directory.Table
	members map[int]uint64 // the others, in the life that this node knows of
	talks   map[int]*talk
	batch   bool                       // a batch waits to be announced
	held    map[wire.ClientID]struct{} // the hub's clients
}

// talk is one node's half of a link.
type talk struct {
	telling *directory.Telling
	arrives time.Duration // of what was said last: what follows comes later
}

// link connects two nodes until it breaks.
type link struct{ broken bool }

// New returns a world in which every node is up and linked.
func New(cfg Config) *World {
	w := &World{
		cfg: cfg, rnd: rand.New(rand.NewPCG(cfg.Seed, 1)),
		links: make(map[[2]int]*link), cuts: make(map[[2]int]bool),
		lastEpoch: make(map[wire.ClientID]uint64), newest: make(map[wire.ClientID]session),
	}
	for i := range cfg.Nodes {
		w.nodes = append(w.nodes, &node{world: w, ordinal: i, name: fmt.Sprintf("node-%d", i)})
	}
	for _, n := range w.nodes {
		w.start(n)
	}
	return w
}

// Now returns the virtual time.
func (w *World) Now() time.Duration { return w.clock.now }

// Run lets time pass.
func (w *World) Run(d time.Duration) { w.clock.run(w.clock.now + d) }

// upTo returns a time from zero to d.
func (w *World) upTo(d time.Duration) time.Duration {
	return time.Duration(w.rnd.Int64N(int64(d) + 1))
}

func pair(a, b int) [2]int { return [2]int{min(a, b), max(a, b)} }

// start begins a node's next life, in which it knows nothing.
func (w *World) start(n *node) {
	n.up = true
	n.lives++
	n.log = directory.NewLog(directory.Owner{Node: n.name, Incarnation: n.lives}, w.cfg.LogKept)
	n.table = directory.NewTable(n.name)
	n.members, n.talks = make(map[int]uint64), make(map[int]*talk)
	n.held = make(map[wire.ClientID]struct{})
	n.batch = false
	for _, other := range w.nodes {
		w.meet(n, other)
	}
	n.beat(n.lives)
}

// meet lets two nodes hear of each other soon, each in its own time.
func (w *World) meet(a, b *node) {
	for _, ends := range [][2]*node{{a, b}, {b, a}} {
		from, to := ends[0], ends[1]
		w.clock.after(w.upTo(2*time.Second), func() {
			if from != to && from.up && to.up && !w.cuts[pair(from.ordinal, to.ordinal)] {
				from.learn(to)
			}
		})
	}
}

// learn makes other a member; a member in a new life is linked anew.
func (n *node) learn(other *node) {
	if n.members[other.ordinal] == other.lives {
		return
	}
	n.members[other.ordinal] = other.lives
	n.world.unlink(n, other)
	n.world.dial(n, other)
}

// lose makes other no member: its part is dropped whole.
func (n *node) lose(other *node) {
	delete(n.members, other.ordinal)
	n.world.unlink(n, other)
	n.table.Drop(other.name, wire.LeaveNodeDied)
}

// dial links two nodes that know each other and can reach each other.
func (w *World) dial(a, b *node) {
	key := pair(a.ordinal, b.ordinal)
	if w.links[key] != nil || !a.up || !b.up || w.cuts[key] ||
		a.members[b.ordinal] != b.lives || b.members[a.ordinal] != a.lives {
		return
	}
	l := &link{}
	w.links[key] = l
	for _, ends := range [][2]*node{{a, b}, {b, a}} {
		from, to := ends[0], ends[1]
		t := &talk{telling: directory.NewTelling(from.log, w.cfg.AnnounceBytes)}
		from.talks[to.ordinal] = t
		from.say(to, t.telling.Whole())
	}
}

// unlink breaks the link between two nodes, if any: what is under way on it is
// lost.
func (w *World) unlink(a, b *node) {
	key := pair(a.ordinal, b.ordinal)
	l := w.links[key]
	if l == nil {
		return
	}
	l.broken = true
	delete(w.links, key)
	delete(a.talks, b.ordinal)
	delete(b.talks, a.ordinal)
	w.clock.after(w.upTo(3*time.Second), func() { w.dial(a, b) })
}

// carry delivers something on the link from one node to another, after what was
// sent there before, unless it is lost or the link breaks.
func (n *node) carry(to *node, arrive func()) {
	w := n.world
	l, t := w.links[pair(n.ordinal, to.ordinal)], n.talks[to.ordinal]
	if l == nil || t == nil {
		return
	}
	t.arrives = max(t.arrives, w.clock.now+w.upTo(w.cfg.Delay))
	if w.rnd.Float64() < w.cfg.Loss {
		return
	}
	w.clock.after(t.arrives-w.clock.now, func() {
		if !l.broken {
			arrive()
		}
	})
}

func (n *node) say(to *node, as []directory.Announcement) {
	for i := range as {
		encoded := as[i].AppendTo(nil)
		n.carry(to, func() { to.hear(n, encoded) })
	}
}

// hear takes in what another node announces, asks for what is missing, and
// ends sessions that a newer one has replaced.
func (n *node) hear(from *node, encoded []byte) {
	a, err := directory.ParseAnnouncement(encoded)
	if err != nil {
		panic(err) // the owner's own encoding: there is nobody else to tell
	}
	result := n.table.Apply(a)
	if result.Hole {
		n.carry(from, func() {
			if t := from.talks[n.ordinal]; t != nil {
				from.say(n, t.telling.Repair(result.Have))
			}
		})
	}
	for _, e := range result.Events {
		if epoch, here := n.log.Client(e.Name); e.Kind == directory.ClientAppeared && here &&
			directory.Newer(e.Epoch, e.Node, epoch, n.name) {
			n.drop(e.Name)
		}
	}
}

// changed announces what is new in a while.
func (n *node) changed() {
	if n.batch {
		return
	}
	n.batch = true
	life := n.lives
	n.world.clock.after(batchTime, func() {
		if n.up && n.lives == life {
			n.batch = false
			n.tell((*directory.Telling).News)
		}
	})
}

// beat tells every listener the version from time to time.
func (n *node) beat(life uint64) {
	n.world.clock.after(beatTime, func() {
		if n.up && n.lives == life {
			n.tell((*directory.Telling).Beat)
			n.beat(life)
		}
	})
}

// tell says something to every linked node, in the order of names: a map's
// order would not come from the seed.
func (n *node) tell(what func(*directory.Telling) []directory.Announcement) {
	for _, to := range n.world.nodes {
		if t := n.talks[to.ordinal]; t != nil {
			n.say(to, what(t.telling))
		}
	}
}
