package shard

import (
	"context"
	"encoding/json"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/durable"
	"github.com/switchboardhub/switchboard/wire"
)

// Fetch does what a member of a durable subscription says and wants. This node must
// lead the topic's shard. What would begin one beyond its owner's share is refused before it
// is proposed: all replicas do what is in the log, also those of a version that knows no
// shares.
func (s *Shards) Fetch(ctx context.Context, topic, name string, q durable.Request) (durable.Grant, error) {
	r := s.replica(s.Of(topic))
	if r == nil {
		return durable.Grant{}, errNotLeader
	}
	b, err := r.bounds(topic)
	if err != nil {
		return durable.Grant{}, err
	}
	q.First = b.First
	key := durable.Key{Topic: topic, Name: name}
	entry, err := appendFetch(newEntry(0), time.Now(), key, q)
	if err != nil {
		return durable.Grant{}, err
	}
	release := func() {}
	if ownerOf := s.ownerOf(); ownerOf != nil && q.Start > 0 {
		if release, err = r.machine.durables.Claim(key, ownerOf); err != nil {
			return durable.Grant{}, err
		}
	}
	result, err := r.await(ctx, entry, release)
	if err != nil || result.Grant == nil {
		return durable.Grant{}, err
	}
	return *result.Grant, nil
}

// ownerOf returns what says whose a topic is, nil while topics are nobody's.
func (s *Shards) ownerOf() func(topic string) string {
	if s.cfg.Owners == nil {
		return nil
	}
	return s.cfg.Owners()
}

// AwaitFetch returns what there is for a member of a durable subscription; news is closed
// when there may be more.
func (s *Shards) AwaitFetch(topic, name, member string) (o durable.Outlook, news <-chan struct{}, err error) {
	r := s.replica(s.Of(topic))
	if r == nil || !r.servesNow() {
		return o, nil, errNotLeader
	}
	end := func() wire.Sequence { return r.machine.next(topic) }
	o, news = r.machine.durables.Await(durable.Key{Topic: topic, Name: name}, member, time.Now(), end)
	return o, news, nil
}

// Durables returns the durable subscriptions of the topics that this node leads.
func (s *Shards) Durables() []wire.DurableInfo {
	var all []wire.DurableInfo
	s.eachReplica(func(r *replica) {
		if r.servesNow() {
			all = append(all, r.machine.durables.Infos(time.Now(), r.extent)...)
		}
	})
	return all
}

// extent returns the oldest artifact that a topic keeps, 1 when that can't be told, and
// the one after the newest.
func (r *replica) extent(topic string) (first, end wire.Sequence) {
	b, err := r.bounds(topic)
	if err != nil {
		return 1, r.machine.next(topic)
	}
	return b.First, b.Next
}

// await proposes a record, as enqueue takes it, and waits for what comes of it. ended is
// called once that is known, which may be later than ctx lasts.
func (r *replica) await(ctx context.Context, entry []byte, ended func()) (Result, error) {
	done := make(chan Result, 1)
	err := r.enqueue(entry, func(_ Outlet, result Result) {
		ended()
		done <- result
	})
	if err != nil {
		ended()
		return Result{}, err
	}
	select {
	case result := <-done:
		return result, result.Err
	case <-ctx.Done():
		return Result{}, context.Cause(ctx)
	}
}

// fetchBody is a record of opFetch behind its time.
type fetchBody struct {
	Key     durable.Key     `json:"key"`
	Request durable.Request `json:"request"`
}

// appendFetch appends a record of what a member says and wants.
func appendFetch(entry []byte, now time.Time, key durable.Key, q durable.Request) ([]byte, error) {
	body, err := json.Marshal(fetchBody{key, q})
	if err != nil {
		return nil, err
	}
	return append(appendHeadOf(entry, opFetch, recordHead+len(body), now), body...), nil
}
