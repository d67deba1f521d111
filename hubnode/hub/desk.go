package hub

import (
	"context"
	"errors"
	"sync"

	"github.com/switchboardhub/switchboard/hubnode/durable"
)

// desks are where members of durable subscriptions wait for work.
type desks struct {
	mu    sync.Mutex // guards the fields below
	polls map[deskKey]*poll
	lines map[deskKey]*line
}

// deskKey is a durable subscription, or one member's place in it.
type deskKey struct {
	durable.Key
	member string
}

// poll is a member's request that is being answered.
type poll struct {
	name   string
	cancel context.CancelCauseFunc
}

// line is who waits for the next artifact.
type line struct {
	turn  chan struct{} // holds one: whoever put it there is at the head
	users int
}

// errAgain ends a request whose answer nobody reads.
var errAgain = errors.New("the member has gone, or asked again")

// poll begins a member's request and ends the one before. done ends it.
func (d *desks) poll(ctx context.Context, q fetchQuestion) (_ context.Context, done func()) {
	key := deskKey{durable.Key{Topic: q.Topic, Name: q.Fetch.Name}, q.Member}
	ctx, cancel := context.WithCancelCause(ctx)
	p := &poll{q.Poll, cancel}
	d.mu.Lock()
	defer d.mu.Unlock()
	if before := d.polls[key]; before != nil {
		before.cancel(errAgain)
	}
	if d.polls == nil {
		d.polls = make(map[deskKey]*poll)
	}
	d.polls[key] = p
	return ctx, func() {
		cancel(nil)
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.polls[key] == p {
			delete(d.polls, key)
		}
	}
}

// withdraw ends a request of a member that is gone, or that leaves.
func (d *desks) withdraw(q fetchQuestion) {
	key := deskKey{durable.Key{Topic: q.Topic, Name: q.Fetch.Name}, q.Member}
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.polls[key]; p != nil && (q.Fetch.Leave || p.name == q.Poll) {
		p.cancel(errAgain)
	}
}

// line waits until the member is at the head of its line, which it has to leave. It
// reports false when ctx ended first. Who has a subscription to itself, or waits to
// have it, stands alone.
func (d *desks) line(ctx context.Context, q fetchQuestion) (leave func(), ok bool) {
	key := deskKey{Key: durable.Key{Topic: q.Topic, Name: q.Fetch.Name}}
	if !q.Fetch.Policy.Shared {
		key.member = q.Member
	}
	d.mu.Lock()
	l := d.lines[key]
	if l == nil {
		l = &line{turn: make(chan struct{}, 1)}
		if d.lines == nil {
			d.lines = make(map[deskKey]*line)
		}
		d.lines[key] = l
	}
	l.users++
	d.mu.Unlock()
	out := func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(d.lines, key)
		}
	}
	select {
	case l.turn <- struct{}{}:
		return func() {
			<-l.turn
			out()
		}, true
	case <-ctx.Done():
		out()
		return nil, false
	}
}
