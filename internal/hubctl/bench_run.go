package hubctl

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/wire"
)

// benchStall is how long nothing may arrive before the rest counts as lost.
const benchStall = 5 * time.Second

// crew are the clients of a measurement.
type crew []*client.Client

// gather connects n clients of a role.
func (b *bench) gather(ctx context.Context, role string, n int, opts func(i int) []client.Option) (crew, error) {
	var c crew
	for i := range n {
		var more []client.Option
		if opts != nil {
			more = opts(i)
		}
		one, err := b.connect(ctx, role, i, append(more, client.OnError(func(err error) { b.app.Tellf("%v", err) }))...)
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		c = append(c, one)
	}
	return c, nil
}

func (c crew) close() error {
	errs := make([]error, len(c))
	var g sync.WaitGroup
	for i, one := range c {
		g.Go(func() { errs[i] = one.Close() })
	}
	g.Wait()
	return errors.Join(errs...)
}

// arrivals counts what reaches one client. Its handler runs on one goroutine;
// the rest reads the histogram once the client is closed.
type arrivals struct {
	n     *atomic.Int64 // of all clients
	last  *atomic.Int64 // nanoseconds since 1970 of the latest one, of all clients
	first *atomic.Int64
	times histogram
}

func newArrivals(n int) []*arrivals {
	var total, last, first atomic.Int64
	all := make([]*arrivals, n)
	for i := range all {
		all[i] = &arrivals{n: &total, last: &last, first: &first}
	}
	return all
}

func (r *arrivals) take(a *wire.Artifact) {
	now := time.Now()
	r.times.add(now.Sub(a.Time))
	r.first.CompareAndSwap(0, now.UnixNano())
	r.last.Store(now.UnixNano())
	r.n.Add(1)
}

// await waits until so many have arrived, nothing has come for a while, or ctx
// ends. With patient set it waits for the first one without an end.
func (r *arrivals) await(ctx context.Context, want int64, patient bool) {
	const look = 2 * time.Millisecond
	start := time.Now().UnixNano()
	for r.n.Load() < want && pause(ctx, look) {
		if patient && r.n.Load() == 0 {
			continue
		}
		if time.Now().UnixNano()-max(start, r.last.Load()) > int64(benchStall) {
			return
		}
	}
}

func merge(all []*arrivals) *histogram {
	var h histogram
	for _, r := range all {
		h.merge(&r.times)
	}
	return &h
}

func (b *bench) pub(ctx context.Context) (*report, error) {
	publishers, err := b.gather(ctx, "pub", b.clients, nil)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	sent := make([]int, len(publishers))
	times := make([]histogram, len(publishers))
	g, running := errgroup.WithContext(ctx)
	for i, c := range publishers {
		acks := make(chan pendingAck, max(1, b.batch))
		g.Go(func() error { return times[i].addAcks(running, acks) })
		g.Go(func() error {
			defer close(acks)
			var err error
			sent[i], err = b.produce(running, i, len(publishers), func(ctx context.Context, a *wire.Artifact) error {
				ack, err := c.PublishAsync(ctx, b.topic, a)
				if err != nil {
					return err
				}
				acks <- pendingAck{ack, a.Time}
				return nil
			})
			return errors.Join(err, OrInterrupted(running, c.Flush(running)))
		})
	}
	err = g.Wait()
	r := b.report(time.Since(start))
	for i := range publishers {
		r.Messages += sent[i]
		r.times.merge(&times[i])
	}
	return r, errors.Join(OrInterrupted(ctx, err), publishers.close())
}

// pendingAck is an acknowledgement under way and when its artifact was due.
type pendingAck struct {
	ack client.Ack
	due time.Time
}

// addAcks adds the time until each acknowledgement. On live topics there are
// none to wait for, and no times.
func (h *histogram) addAcks(ctx context.Context, acks <-chan pendingAck) error {
	var failed error
	for p := range acks {
		if failed != nil || p.ack == (client.Ack{}) {
			continue
		}
		if _, err := p.ack.Wait(ctx); err != nil {
			failed = fmt.Errorf("not acknowledged: %w", err)
			continue
		}
		h.add(time.Since(p.due))
	}
	return failed
}

// subscribers connects clients that count what is published to the topic.
func (b *bench) subscribers(ctx context.Context) (crew, []*arrivals, error) {
	got := newArrivals(b.clients)
	subs, err := b.gather(ctx, "sub", b.clients, nil)
	if err != nil {
		return nil, nil, err
	}
	for i, c := range subs {
		_, err := c.Subscribe(ctx, b.topic, func(_ context.Context, a *wire.Artifact) error {
			got[i].take(a)
			return nil
		})
		if err != nil {
			return nil, nil, errors.Join(err, subs.close())
		}
	}
	return subs, got, nil
}

func (b *bench) sub(ctx context.Context) (*report, error) {
	subs, got, err := b.subscribers(ctx)
	if err != nil {
		return nil, err
	}
	measuring, cancel := ctx, context.CancelFunc(func() {})
	if b.duration > 0 {
		measuring, cancel = context.WithTimeout(ctx, b.duration)
	}
	defer cancel()
	b.app.Tellf("waiting for artifacts on %s", b.topic)
	got[0].await(measuring, int64(b.count), true)
	err = subs.close()
	r := b.report(time.Duration(got[0].last.Load() - got[0].first.Load()))
	r.Messages = int(got[0].n.Load())
	r.times = merge(got)
	return r, err
}

func (b *bench) fanout(ctx context.Context) (*report, error) {
	subs, got, err := b.subscribers(ctx)
	if err != nil {
		return nil, err
	}
	publisher, err := b.connect(ctx, "pub", 0)
	if err != nil {
		return nil, errors.Join(err, subs.close())
	}
	start := time.Now()
	sent, err := b.produce(ctx, 0, 1, func(ctx context.Context, a *wire.Artifact) error {
		_, err := publisher.PublishAsync(ctx, b.topic, a)
		return err
	})
	if err == nil {
		got[0].await(ctx, int64(sent)*int64(b.clients), false)
	}
	r := b.report(elapsed(start, got[0]))
	err = errors.Join(err, publisher.Close(), subs.close())
	r.Messages = int(got[0].n.Load())
	r.Lost = sent*b.clients - r.Messages
	r.times = merge(got)
	return r, err
}

func (b *bench) pair(ctx context.Context) (*report, error) {
	got := newArrivals(b.clients)
	receivers, err := b.gather(ctx, "to", b.clients, func(i int) []client.Option {
		return []client.Option{client.WithHandler(func(_ context.Context, a *wire.Artifact) (*wire.Artifact, error) {
			got[i].take(a)
			return nil, nil
		})}
	})
	if err != nil {
		return nil, err
	}
	senders := make(crew, b.clients)
	for i := range senders { // each on the address after its receiver's
		if senders[i], err = b.connect(ctx, "from", i+1); err != nil {
			return nil, errors.Join(err, senders[:i].close(), receivers.close())
		}
	}
	start := time.Now()
	sent := make([]int, b.clients)
	g, running := errgroup.WithContext(ctx)
	for i, c := range senders {
		g.Go(func() error {
			var err error
			sent[i], err = b.produce(running, i, len(senders), func(ctx context.Context, a *wire.Artifact) error {
				_, err := c.SendAsync(ctx, receivers[i].ID(), a)
				return err
			})
			return err
		})
	}
	err = g.Wait()
	total := 0
	for _, n := range sent {
		total += n
	}
	if err == nil {
		got[0].await(ctx, int64(total), false)
	}
	r := b.report(elapsed(start, got[0]))
	err = errors.Join(err, senders.close(), receivers.close())
	r.Messages = int(got[0].n.Load())
	r.Lost = total - r.Messages
	r.times = merge(got)
	return r, err
}

// elapsed is the time from the start to the last arrival.
func elapsed(start time.Time, got *arrivals) time.Duration {
	return max(0, time.Unix(0, got.last.Load()).Sub(start))
}

func (b *bench) request(ctx context.Context) (*report, error) {
	responder, err := b.connect(ctx, "to", 0, client.WithConcurrentRequests(1024), client.WithHandler(
		func(_ context.Context, a *wire.Artifact) (*wire.Artifact, error) {
			return &wire.Artifact{Payload: a.Payload}, nil
		}))
	if err != nil {
		return nil, err
	}
	requesters := make(crew, b.clients)
	for i := range requesters {
		if requesters[i], err = b.connect(ctx, "from", i+1); err != nil {
			return nil, errors.Join(err, requesters[:i].close(), responder.Close())
		}
	}
	start := time.Now()
	workers := b.clients * max(1, b.batch)
	sent := make([]int, workers)
	times := make([]histogram, workers)
	g, running := errgroup.WithContext(ctx)
	for i := range workers {
		c := requesters[i%b.clients]
		g.Go(func() error {
			var err error
			sent[i], err = b.produce(running, i, workers, func(ctx context.Context, a *wire.Artifact) error {
				if _, err := c.Request(ctx, responder.ID(), a); err != nil {
					return err
				}
				times[i].add(time.Since(a.Time))
				return nil
			})
			return err
		})
	}
	err = g.Wait()
	r := b.report(time.Since(start))
	for i := range workers {
		r.Messages += sent[i]
		r.times.merge(&times[i])
	}
	return r, errors.Join(err, requesters.close(), responder.Close())
}
