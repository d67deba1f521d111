package hubnode

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/cluster"
	"github.com/switchboardhub/switchboard/hubnode/directory"
	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/hubnode/mesh"
	"github.com/switchboardhub/switchboard/hubnode/outbox"
	"github.com/switchboardhub/switchboard/hubnode/seldom"
	"github.com/switchboardhub/switchboard/wire"
)

const (
	// logKept is how many changes of its own part of the directory a node
	// keeps for others that missed some; who missed more gets a snapshot.
	logKept = 1 << 16
	// announceBytes bounds one announcement.
	announceBytes = 256 << 10
	// batchTime is how long changes are gathered before they are announced.
	// A question to another node is always preceded by what came before it.
	batchTime = 2 * time.Millisecond
	// beatTime is how often each link is told the version when nothing
	// changes: whoever missed something asks for it.
	beatTime = 5 * time.Second
)

// view is what this node knows of the others, and what it tells them: the hub's
// Remote and the mesh's Handler.
type view struct {
	node  *Node
	owner directory.Owner
	own   *directory.Log
	table *directory.Table
	poked chan struct{} // holds one: there is something to announce

	presence *presenceFeed

	refused atomic.Uint64 // announcements
	wrong   seldom.Log    // those refused, by their peers

	// learning is held from a change of the table until the hub knows of it:
	// the hub hears of what comes and goes in the table's order. It is taken
	// before mu and the hub's lock.
	learning sync.Mutex

	lately lately

	mu    sync.Mutex // guards the fields below
	told  map[*mesh.Link]*directory.Telling
	links map[string]*mesh.Link // of told, by their nodes
}

func newView(n *Node, name string, incarnation uint64) *view {
	owner := directory.Owner{Node: name, Incarnation: incarnation}
	v := &view{
		node: n, owner: owner,
		own: directory.NewLog(owner, logKept), table: directory.NewTable(name),
		poked: make(chan struct{}, 1), told: make(map[*mesh.Link]*directory.Telling), links: make(map[string]*mesh.Link),
	}
	v.presence = newPresenceFeed(v)
	return v
}

// Self returns this node's name.
func (v *view) Self() string { return v.owner.Node }

// sibling returns the name of the node with an ordinal.
func (v *view) sibling(ordinal int) string {
	base := v.owner.Node
	if i := strings.LastIndexByte(base, '-'); i >= 0 {
		base = base[:i]
	}
	return base + "-" + strconv.Itoa(ordinal)
}

func (v *view) linked(node string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.links[node] != nil
}

// peers returns the nodes that there is a link to.
func (v *view) peers() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Collect(maps.Keys(v.links))
}

// Carry queues a frame for a node, for the shards.
func (v *view) Carry(node string, parts ...[]byte) bool {
	v.mu.Lock()
	link := v.links[node]
	v.mu.Unlock()
	if link == nil {
		return false
	}
	switch link.PushParts(parts...) {
	case outbox.QueuedCold:
		link.Flush()
		return true
	case outbox.Queued:
		return true
	case outbox.Full, outbox.Closed:
	}
	return false
}

// takesBundles reports whether a node takes the shards' frames also as bundles.
func (v *view) takesBundles(node string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	link := v.links[node]
	return link != nil && link.Version() >= mesh.VersionBundles
}

// Locate returns where a client is by what the directory says.
func (v *view) Locate(id wire.ClientID) (string, uint64, bool) {
	at, ok := v.table.Locate(id)
	return at.Node, at.Epoch, ok
}

// Ask puts a question to another node, behind everything that this node has to
// announce.
func (v *view) Ask(ctx context.Context, node, question string, body []byte) ([]byte, error) {
	v.announceAll()
	return v.node.mesh.Ask(ctx, node, question, body)
}

// ClientUp records that a client is here.
func (v *view) ClientUp(id wire.ClientID, epoch uint64) {
	v.own.ClientUp(id, epoch)
	v.presence.note(directory.Event{Kind: directory.ClientAppeared, Node: v.owner.Node, Name: id, Epoch: epoch})
	v.poke()
}

// ClientDown records that a client has left, and why.
func (v *view) ClientDown(id wire.ClientID, epoch uint64, reason wire.LeaveReason) {
	v.own.ClientDown(id, epoch, reason)
	v.lately.note(id, was{v.owner.Node, epoch}, time.Now())
	v.presence.note(directory.Event{Kind: directory.ClientVanished, Node: v.owner.Node, Name: id, Epoch: epoch, Reason: reason})
	v.poke()
}

// InterestUp records that this node wants to hear a pattern.
func (v *view) InterestUp(name string) {
	if isPresence(name) {
		v.presence.interest(1)
		return
	}
	v.own.InterestUp(name)
	v.poke()
}

// InterestDown records that it no longer does.
func (v *view) InterestDown(name string) {
	if isPresence(name) {
		v.presence.interest(-1)
		return
	}
	v.own.InterestDown(name)
	v.poke()
}

func (v *view) poke() {
	select {
	case v.poked <- struct{}{}:
	default:
	}
}

// announce tells the linked nodes what changed here, until ctx ends.
func (v *view) announce(ctx context.Context) error {
	batch := time.NewTimer(batchTime)
	defer batch.Stop()
	beat := time.NewTicker(beatTime)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-beat.C:
			v.tellAll((*directory.Telling).Beat)
			continue
		case <-v.poked:
		}
		batch.Reset(batchTime)
		select {
		case <-ctx.Done():
			return nil
		case <-batch.C:
		}
		v.announceAll()
	}
}

func (v *view) announceAll() { v.tellAll((*directory.Telling).News) }

func (v *view) tellAll(what func(*directory.Telling) []directory.Announcement) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for link, telling := range v.told {
		say(link, what(telling))
	}
}

func say(link *mesh.Link, as []directory.Announcement) {
	for i := range as {
		link.Say(announcement(&as[i]))
	}
}

func announcement(a *directory.Announcement) []byte {
	return wire.AppendFrame(nil, wire.Header{Kind: wire.KindAnnounce}, "", "", a.AppendTo(nil))
}

// Linked begins to talk to a peer: with a snapshot.
func (v *view) Linked(peer mesh.Peer, link *mesh.Link) mesh.Taker {
	v.mu.Lock()
	telling := directory.NewTelling(v.own, announceBytes)
	v.told[link], v.links[peer.Name] = telling, link
	say(link, telling.Whole())
	v.mu.Unlock()
	v.node.hub.SetPeer(peer.Name, link)
	v.node.keeper.Linked(peer.Name)
	return &taker{view: v, peer: peer, link: link, in: v.node.hub.Inbound(peer.Name)}
}

// Unlinked ends the talk with a peer. What it said stays until it leaves the
// gossip.
func (v *view) Unlinked(peer mesh.Peer, link *mesh.Link) {
	v.mu.Lock()
	v.untellLocked(link)
	v.mu.Unlock()
	v.node.keeper.Unlinked(peer.Name)
	v.node.hub.SetPeer(peer.Name, nil)
	v.node.assess()
}

// untellLocked forgets a link.
func (v *view) untellLocked(link *mesh.Link) {
	delete(v.told, link)
	if name := link.Peer().Name; v.links[name] == link {
		delete(v.links, name)
	}
}

// Answer answers a peer's question.
func (v *view) Answer(ctx context.Context, question string, body []byte) ([]byte, error) {
	if answer, ok, err := v.node.keeper.Answer(ctx, question, body); ok {
		return answer, err
	}
	switch question {
	case questionShares:
		return json.Marshal(v.node.shares.led())
	case hub.QuestionPassed, hub.QuestionSettled:
		v.announceAll()
	}
	return v.node.hub.Answer(ctx, question, body)
}

// Waits reports whether the answer to a question may wait for something to happen.
func (v *view) Waits(question string) bool { return hub.Waits(question) }

// forget drops the parts of nodes that are no longer members, and deafens this
// node to their links: a straggler would bring a part back for good, and a link
// that stayed would not begin with a snapshot again. Those that had said that they
// drain have left in order.
func (v *view) forget(members, drained map[string]bool) {
	v.learning.Lock()
	defer v.learning.Unlock()
	v.mu.Lock()
	for link := range v.told {
		if !members[link.Peer().Name] {
			v.untellLocked(link)
			link.Break()
		}
	}
	v.mu.Unlock()
	for owner := range v.table.Versions() {
		reason := wire.LeaveNodeDied
		switch {
		case members[owner.Node]:
			continue
		case drained[owner.Node]:
			reason = wire.LeaveNodeLeft
		}
		v.happened(v.table.Drop(owner.Node, reason))
	}
}

// listens reports whether what a link says still counts.
func (v *view) listens(link *mesh.Link) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.told[link] != nil
}

// happened tells the hub what the directory learned.
func (v *view) happened(events []directory.Event) {
	h := v.node.hub
	v.presence.note(events...)
	for _, e := range events {
		switch e.Kind {
		case directory.ClientAppeared:
			h.Supersede(e.Name, func(epoch uint64) bool {
				return directory.Newer(e.Epoch, e.Node, epoch, v.owner.Node)
			})
		case directory.ClientVanished:
		case directory.InterestAdded:
			h.PeerInterest(e.Node, e.Name, true)
		case directory.InterestRemoved:
			h.PeerInterest(e.Node, e.Name, false)
		}
	}
}

// taker takes the frames of one peer.
type taker struct {
	view *view
	peer mesh.Peer
	link *mesh.Link
	in   *hub.Inbound
}

// Take handles one frame.
func (t *taker) Take(f wire.Frame, slab *wire.Slab) {
	switch f.Kind() {
	case wire.KindAnnounce:
		t.announced(f)
	case wire.KindRepair:
		t.view.mu.Lock()
		if telling := t.view.told[t.link]; telling != nil {
			say(t.link, telling.Repair(directory.Version(f.Sequence())))
		}
		t.view.mu.Unlock()
	default:
		if !t.view.node.keeper.Take(t.peer.Name, f, slab) {
			t.in.Take(f, slab)
		}
	}
}

// Flush passes on what was taken.
func (t *taker) Flush() { t.in.Flush() }

// announced applies a part of the peer's directory. A peer speaks for itself
// only.
func (t *taker) announced(f wire.Frame) {
	v := t.view
	a, err := directory.ParseAnnouncement(f.Body())
	if err != nil || a.Owner.Node != t.peer.Name {
		v.refused.Add(1)
		if due, silent := v.wrong.Due(t.peer.Name, time.Now()); due {
			v.node.log.Warn("announcement refused", slog.String("peer", t.peer.Name), slog.String("owner", a.Owner.Node), slog.Any("error", err), slog.Int("more_since_last_told", silent))
		}
		return
	}
	v.learn(t.link, a)
	v.node.assess()
}

// learn takes in what a link says, and tells the hub.
func (v *view) learn(link *mesh.Link, a directory.Announcement) {
	v.learning.Lock()
	defer v.learning.Unlock()
	if !v.listens(link) {
		return
	}
	now := time.Now()
	v.lately.turn(now)
	for from, ids := range v.moves(a) {
		v.node.hub.Moving(ids, from, a.Owner.Node)
	}
	result := v.table.Apply(a)
	if result.Hole {
		link.Say(wire.AppendFrame(nil, wire.Header{Kind: wire.KindRepair, Sequence: wire.Sequence(result.Have)}, "", "", nil))
	}
	v.remember(result.Events, now)
	v.happened(result.Events)
}

// IsMember reports whether the gossip knows a node as being there.
func (v *view) IsMember(node string) bool {
	return slices.ContainsFunc(*v.node.members.Load(), func(m cluster.Member) bool { return m.Name == node })
}

// remember notes which node the clients were on that have left it.
func (v *view) remember(events []directory.Event, now time.Time) {
	for _, e := range events {
		if e.Kind == directory.ClientVanished && e.Reason != wire.LeaveGoodbye {
			v.lately.note(e.Name, was{e.Node, e.Epoch}, now)
		}
	}
}

// moves returns the clients that an announcement moves to its owner, by the node
// that they were on: that may have announced already that they left.
func (v *view) moves(a directory.Announcement) map[string][]wire.ClientID {
	var moves map[string][]wire.ClientID
	for _, c := range a.Changes {
		if c.Op != directory.ClientUp {
			continue
		}
		at, ok := v.table.Locate(c.Name)
		if ok && !directory.Newer(c.Epoch, a.Owner.Node, at.Epoch, at.Node) {
			continue
		}
		from := was{at.Node, at.Epoch}
		if last, left := v.lately.at(c.Name); left && (!ok || last.epoch > at.Epoch) {
			from, ok = last, true
		}
		if !ok || from.node == a.Owner.Node {
			continue
		}
		if moves == nil {
			moves = make(map[string][]wire.ClientID)
		}
		moves[from.node] = append(moves[from.node], c.Name)
	}
	return moves
}

// Settled reports whether this node has a link to every node that it knows of,
// having found the others: before that, what one of them holds of a topic could
// be overlooked.
func (v *view) Settled() bool {
	if !v.node.cluster.Joined() {
		return false
	}
	for _, m := range *v.node.members.Load() {
		if m.State != cluster.Draining && !v.linked(m.Name) {
			return false
		}
	}
	return true
}
