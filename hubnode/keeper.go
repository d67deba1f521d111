package hubnode

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/hubnode/placement"
	"github.com/switchboardhub/switchboard/hubnode/shard"
	"github.com/switchboardhub/switchboard/hubnode/tenancy"
	"github.com/switchboardhub/switchboard/wire"
)

// keeper is the hub's Keeper: the shards keep what it keeps.
type keeper struct {
	*shard.Shards
	node *Node
}

// outlet is a shard's Outlet: it delivers through the hub.
type outlet struct{ *hub.Stage }

// Deliver brings a stored frame to those who listen.
func (o outlet) Deliver(_ string, f wire.Frame, first wire.Sequence) { o.Stage.Deliver(f, first) }

// Leaderless says that a topic's shard has no leader.
func (k keeper) Leaderless(topic string) error {
	return &wire.NoQuorumError{Topic: topic, Shard: k.Of(topic)}
}

// Append stores a frame's artifacts, while there is room.
func (k keeper) Append(f wire.Frame, skip int, by hub.Publisher, done func(*hub.Stage, wire.Sequence, error)) error {
	if err := k.node.room.take(len(f)); err != nil {
		return err
	}
	if k.node.shares.on() {
		return k.appendShared(f, skip, by, done)
	}
	return k.Shards.Append(f, skip, shard.Publisher(by), func(out shard.Outlet, r shard.Result) {
		o, _ := out.(outlet) // the only kind there is
		done(o.Stage, r.First, r.Err)
	})
}

// appendShared is Append while tenants have a limit. What its publisher sends again, and
// is stored already, takes no room and is answered as ever.
func (k keeper) appendShared(f wire.Frame, skip int, by hub.Publisher, done func(*hub.Stage, wire.Sequence, error)) error {
	shares, bytes := k.node.shares, len(f.Body())-skip
	at, err := shares.take(f.Target(), placement.ShardOf(f.Target(), k.node.stores.shards), bytes)
	if err != nil && !k.Stored(string(f.Target()), shard.Publisher(by)) {
		shares.refused.Add(uint64(f.Count()))
		return err
	}
	err = k.Shards.Append(f, skip, shard.Publisher(by), func(out shard.Outlet, r shard.Result) {
		shares.settle(at, r.Grown) // before the publisher hears
		o, _ := out.(outlet)       // the only kind there is
		done(o.Stage, r.First, r.Err)
	})
	if err != nil {
		shares.settle(at, 0)
	}
	return err
}

// Purge takes what a topic holds before a sequence, which makes room for others of its
// tenant.
func (k keeper) Purge(ctx context.Context, topic string, before wire.Sequence) error {
	grown, err := k.Shards.Purge(ctx, topic, before)
	k.node.shares.purged(topic, k.Of(topic), grown)
	return err
}

// Retain applies what topics keep now, which may make room.
func (k keeper) Retain(now time.Time) {
	k.Shards.Retain(now)
	k.node.shares.wake()
}

// ShardOf returns the number of a topic's shard.
func (k keeper) ShardOf(topic string) int { return k.Of(topic) }

// Replicas returns how this node's replicas of shards are.
func (k keeper) Replicas() []hub.ReplicaState {
	stats := k.Stats()
	all := make([]hub.ReplicaState, len(stats))
	for i, st := range stats {
		all[i] = hub.ReplicaState{Shard: st.Shard, Node: k.node.self.Name, Leads: st.Leads, Logged: st.Logged, DiskFull: k.node.room.full.Load()}
	}
	return all
}

// newShards returns the node's shards.
func (n *Node) newShards() *shard.Shards {
	s := n.Config().Storage
	return shard.New(shard.Config{
		Self: n.view.owner.Node, Shards: s.Shards, Dir: s.Dir, SyncInterval: syncInterval(s),
		Store:   n.stores.store,
		Limits:  func(topic string) history.Limits { return n.hub.LimitsOf(topic) },
		Weighs:  n.shares.on,
		Owners:  n.owners,
		Outlet:  func() shard.Outlet { return outlet{n.hub.NewStage()} },
		Desired: n.replicasOf,
		Linked:  n.view.peers, Settled: n.view.Settled, Ask: n.view.Ask, Carrier: n.view, Bundles: n.view.takesBundles,
		Moved: func(moved int) {
			n.hub.LeaderMoved(func(topic string) bool { return n.keeper.Of(topic) == moved })
			n.shares.wake()
			n.assess()
		},
		Looked: n.assess,
		Timing: n.timing,
		Log:    n.log,
	})
}

// owners returns what says whose a topic is, nil while there are no tenants.
func (n *Node) owners() func(topic string) string {
	if n.Config().Tenancy != config.TenancyNamespace {
		return nil
	}
	return tenancy.OwnerOf[string]
}

// replicasOf returns the nodes that a shard's replicas belong on.
func (n *Node) replicasOf(shard int) []string {
	c := n.Config()
	ordinals := placement.Replicas(shard, c.Replicas, c.Storage.Replicas)
	names := make([]string, len(ordinals))
	for i, ordinal := range ordinals {
		names[i] = n.view.sibling(ordinal)
	}
	return names
}

// keepsHistory reports whether some topic is to keep history.
func (n *Node) keepsHistory() bool {
	c := n.Config()
	if c.History.MaxArtifacts > 0 {
		return true
	}
	for _, t := range c.Topics {
		if c.History.With(t.History).MaxArtifacts > 0 {
			return true
		}
	}
	return false
}

// runShards runs the shards' replicas until ctx ends. While their disk can't be opened the
// node does without: it serves live topics, and brings what is for others to their leaders.
func (n *Node) runShards(ctx context.Context) error {
	err := n.stores.awaitOpen(ctx, func() {
		n.room.look()
		n.assess()
	})
	if err != nil || ctx.Err() != nil {
		return errors.Join(err, n.stores.close())
	}
	watching, stop := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() { n.room.watch(watching) })
	n.keeper.Run(ctx)
	stop()
	watcher.Wait()
	return n.stores.close()
}
