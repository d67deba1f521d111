package hub

import (
	"context"
	"sync"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/durable"
	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
)

// local is the [Keeper] of a hub on its own: everything is in its memory, and
// stored before Append returns.
type local struct {
	hub      *Hub
	store    *history.Memory
	durables *durable.Set
	locks    [64]sync.Mutex // by topic: the order of sequences is the order of deliveries
}

func newLocal(h *Hub) *local {
	return &local{hub: h, store: history.NewMemory(), durables: durable.NewSet()}
}

// Leader implements [Keeper].
func (l *local) Leader(string) (node string, self bool) { return l.hub.remote.Self(), true }

// Leaderless implements [Keeper].
func (l *local) Leaderless(topic string) error { return &wire.NoQuorumError{Topic: topic} }

// Append implements [Keeper].
func (l *local) Append(f wire.Frame, skip int, by Publisher, done func(*Stage, wire.Sequence, error)) error {
	name := string(f.Target())
	lock := &l.locks[groupHash(name)%uint32(len(l.locks))]
	st := l.hub.NewStage()
	defer st.Flush()
	lock.Lock()
	defer lock.Unlock()
	b, _, err := l.store.Bounds(name)
	if err != nil {
		return err
	}
	if by.At != 0 && by.At != b.Next {
		return history.ErrMoved
	}
	now := time.Now()
	run := history.Run{First: b.Next, Count: f.Count(), From: string(f.From()), Time: now, Body: f.Body()[skip:]}
	if err := l.store.Append(now, name, l.hub.LimitsOf(name), run); err != nil {
		return err
	}
	l.durables.Grew(name)
	h := f.Header()
	st.Deliver(wire.AppendFrame(nil, h, f.Target(), f.From(), run.Body), run.First)
	done(st, run.First, nil)
	return nil
}

// Bounds implements [Keeper].
func (l *local) Bounds(_ context.Context, topic string) (history.Bounds, error) {
	b, _, err := l.store.Bounds(topic)
	return b, err
}

// Led implements [Keeper].
func (l *local) Led(_ context.Context, visit func(string, history.Bounds)) (shards []int, err error) {
	return []int{0}, l.store.Topics(func(topic string, b history.Bounds) bool {
		visit(topic, b)
		return true
	})
}

// Purge implements [Keeper].
func (l *local) Purge(_ context.Context, topic string, before wire.Sequence) error {
	return l.store.Purge(topic, before)
}

// Begin implements [Keeper]: there is no backup of one program's memory.
func (l *local) Begin(context.Context, string, wire.Sequence) error {
	return &wire.Error{Code: wire.CodeInvalidRequest, Detail: "this hub is a part of a program, and takes no backups"}
}

// Fetch implements [Keeper].
func (l *local) Fetch(_ context.Context, topic, name string, r durable.Request) (durable.Grant, error) {
	b, _, err := l.store.Bounds(topic)
	if err != nil {
		return durable.Grant{}, err
	}
	r.First = b.First
	return l.durables.Do(durable.Key{Topic: topic, Name: name}, time.Now(), b.Next, r)
}

// AwaitFetch implements [Keeper].
func (l *local) AwaitFetch(topic, name, member string) (o durable.Outlook, news <-chan struct{}, err error) {
	o, news = l.durables.Await(durable.Key{Topic: topic, Name: name}, member, time.Now(), func() wire.Sequence { return l.next(topic) })
	return o, news, nil
}

// Durables implements [Keeper].
func (l *local) Durables() []wire.DurableInfo { return l.durables.Infos(time.Now(), l.extent) }

func (l *local) extent(topic string) (first, end wire.Sequence) {
	b, _, _ := l.store.Bounds(topic) // in memory: never fails
	return b.First, b.Next
}

func (l *local) next(topic string) wire.Sequence {
	_, end := l.extent(topic)
	return end
}

// ShardOf implements [Keeper].
func (l *local) ShardOf(string) int { return 0 }

// ShardCount implements [Keeper].
func (l *local) ShardCount() int { return 1 }

// Replicas implements [Keeper].
func (l *local) Replicas() []ReplicaState {
	return []ReplicaState{{Node: l.hub.remote.Self(), Leads: true}}
}

// Held implements [Keeper].
func (l *local) Held(string) (history.Store, bool) { return l.store, true }

// Size implements [Keeper].
func (l *local) Size() (artifacts int, bytes int64) {
	_, _ = l.Led(context.Background(), func(_ string, b history.Bounds) { // in memory: never fails
		artifacts += b.Artifacts
		bytes += b.Bytes
	})
	return artifacts, bytes
}

// Retain implements [Keeper].
func (l *local) Retain(now time.Time) { _ = l.store.Retain(now, l.hub.LimitsOf) } // in memory: never fails
