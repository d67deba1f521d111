package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// windowBytes bounds what a publisher is ahead of its subscribers, all
	// together, but for a few bursts: no hub keeps without end what one is behind
	// by.
	windowBytes = 4 << 20
	// burstBytes is about what a busy publisher writes at a time.
	burstBytes = 64 << 10
	// settleTime is how long what was published may take to arrive.
	settleTime = 30 * time.Second
)

// flow is one publisher and its subscribers.
type flow struct {
	from   int   // the publisher's server
	to     []int // the subscribers' servers
	inTurn int   // topics that messages go to in turn; 0 means one
	direct bool  // to the client by its id, instead of to a topic
	alone  bool  // nobody subscribes
}

// pump measures flows at full speed: each publisher publishes for a while, then
// everything has to arrive.
func pump(ctx context.Context, s system, flows []flow, size int, lasts time.Duration) (result, error) {
	var opened []conn
	defer func() {
		for _, c := range opened {
			c.close()
		}
	}()
	var works []*work
	for i, f := range flows {
		w := &work{flow: f, size: size, topics: topicsOf(i, f), target: fmt.Sprintf("flow-%d-sub-0", i), moved: make(chan struct{}, 1)}
		for j, server := range f.to {
			sub := &counter{size: size, work: w}
			c, err := s.connect(ctx, server, fmt.Sprintf("flow-%d-sub-%d", i, j), sub)
			if err != nil {
				return result{}, err
			}
			opened = append(opened, c)
			if err := w.join(ctx, c); err != nil {
				return result{}, err
			}
			w.subs = append(w.subs, sub)
		}
		c, err := s.connect(ctx, f.from, fmt.Sprintf("flow-%d-pub", i), nobody{})
		if err != nil {
			return result{}, err
		}
		opened = append(opened, c)
		w.pub = c
		if err := w.warmUp(ctx); err != nil {
			return result{}, err
		}
		works = append(works, w)
	}
	return pumpAll(ctx, s, works, lasts)
}

func pumpAll(ctx context.Context, s system, works []*work, lasts time.Duration) (result, error) {
	cpu, err := cpuOf(s)
	if err != nil {
		return result{}, err
	}
	start := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	for _, w := range works {
		g.Go(func() error { return w.run(gctx, start.Add(lasts)) })
	}
	if err := g.Wait(); err != nil {
		return result{}, err
	}
	r := result{metrics: make(map[string]float64)}
	var handled int64
	for _, w := range works {
		n, err := w.settle(ctx)
		handled += n
		if err != nil {
			r.wrong = err.Error()
		}
	}
	took := time.Since(start)
	used, err := cpuOf(s)
	if err != nil {
		return result{}, err
	}
	r.metrics[perSecond] = float64(handled) / took.Seconds()
	r.metrics[cpuPerMsg] = (used - cpu) / float64(handled) * 1e6
	return r, nil
}

// work is a flow under way.
type work struct {
	flow
	size   int
	topics []string
	turn   int // the topic that is next
	target string
	pub    conn
	subs   []*counter
	sent   int64
	moved  chan struct{} // holds one: a subscriber has read something
}

func topicsOf(i int, f flow) []string {
	topics := make([]string, max(1, f.inTurn))
	for j := range topics {
		topics[j] = fmt.Sprintf("bench.flow.%d.%d", i, j)
	}
	return topics
}

// join makes a connection receive what the flow sends.
func (w *work) join(ctx context.Context, c conn) error {
	if w.direct {
		return c.listen(ctx)
	}
	for _, topic := range w.topics {
		if err := c.subscribe(ctx, topic); err != nil {
			return err
		}
	}
	return nil
}

// put queues n messages.
func (w *work) put(payload []byte, n int) {
	switch {
	case w.direct:
		w.pub.send(w.target, payload, n)
	case len(w.topics) == 1:
		w.pub.publish(w.topics[0], payload, n)
	default:
		for range n {
			w.pub.publish(w.topics[w.turn], payload, 1)
			w.turn = (w.turn + 1) % len(w.topics)
		}
	}
}

// warmUp publishes until every subscriber has heard something: servers know of
// each other's subscriptions a little later.
func (w *work) warmUp(ctx context.Context) error {
	err := poll(ctx, func() error {
		w.put(make([]byte, w.size), 1)
		if err := w.pub.write(); err != nil {
			return err
		}
		if err := w.pub.sync(ctx); err != nil {
			return err
		}
		for i, s := range w.subs {
			if s.count.Load() == 0 {
				return fmt.Errorf("subscriber %d hears nothing", i)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	// The counters start over once what is under way has arrived: up to one that can be told
	// from those before it.
	last := make([]byte, w.size)
	last[0] = lastOfWarmUp
	w.put(last, len(w.topics)) // on each of its topics
	if err := w.pub.write(); err != nil {
		return err
	}
	if err := w.pub.sync(ctx); err != nil {
		return err
	}
	for i, s := range w.subs {
		err := poll(ctx, func() error {
			if s.warm.Load() < int64(len(w.topics)) {
				return fmt.Errorf("subscriber %d has not heard the end of the warm-up", i)
			}
			return nil
		})
		if err != nil {
			return err
		}
		s.base = s.count.Load()
	}
	return nil
}

// lastOfWarmUp is what the last messages of a warm-up begin with; all others begin with 0.
const lastOfWarmUp = 1

// run publishes until the deadline, within the window.
func (w *work) run(ctx context.Context, deadline time.Time) error {
	payload := make([]byte, w.size)
	burst := int64(max(1, burstBytes/(w.size+8)))
	window := max(4*burst, windowBytes/int64(max(1, len(w.subs)))/int64(w.size+64))
	for time.Now().Before(deadline) {
		if err := w.wait(ctx, window-burst); err != nil {
			return err
		}
		w.put(payload, int(burst))
		if err := w.pub.write(); err != nil {
			return err
		}
		w.sent += burst
	}
	return w.pub.sync(ctx)
}

// wait returns when every subscriber is behind by at most so many.
func (w *work) wait(ctx context.Context, most int64) error {
	for w.sent-w.slowest() > most && len(w.subs) > 0 {
		select {
		case <-w.moved:
		case <-time.After(time.Second): // a signal between look and wait may be another's
		case <-ctx.Done():
			return fmt.Errorf("the slowest subscriber has %d of %d: %w", w.slowest(), w.sent, ctx.Err())
		}
	}
	return nil
}

func (w *work) slowest() int64 {
	least := w.sent
	for _, s := range w.subs {
		least = min(least, s.count.Load()-s.base)
	}
	return least
}

// settle waits until all has arrived, and returns how much was handled.
func (w *work) settle(ctx context.Context) (int64, error) {
	if w.alone {
		return w.sent, nil
	}
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	err := w.wait(ctx, 0)
	var handled int64
	for i, s := range w.subs {
		got := s.count.Load() - s.base
		handled += got
		if err == nil && got != w.sent {
			err = fmt.Errorf("subscriber %d got %d of %d", i, got, w.sent)
		}
		if s.wrong.Load() {
			err = errors.Join(err, fmt.Errorf("subscriber %d got something of another size", i))
		}
	}
	return handled, err
}

// counter counts what one subscriber gets.
type counter struct {
	work  *work
	size  int
	fresh int64 // of this read
	ends  int64 // likewise, those that end the warm-up
	base  int64 // of the warm-up
	count atomic.Int64
	warm  atomic.Int64 // ends of the warm-up that came
	wrong atomic.Bool
}

func (c *counter) message(m message) {
	c.fresh++
	if len(m.payload) != c.size {
		c.wrong.Store(true)
	} else if m.payload[0] == lastOfWarmUp {
		c.ends++
	}
}

func (c *counter) drained() {
	if c.fresh == 0 {
		return
	}
	c.count.Add(c.fresh)
	c.warm.Add(c.ends) // behind count: who sees it counts them
	c.ends = 0
	c.fresh = 0
	select {
	case c.work.moved <- struct{}{}:
	default:
	}
}

// ring is a set of questions in flight, each asked anew when it is answered.
type ring struct {
	mu       sync.Mutex // guards the fields below: of answers that come on several goroutines
	asker    conn
	target   string
	payload  []byte
	answered int
	total    int
	fresh    int
	started  time.Time // of the only one in flight
	took     []time.Duration
	done     chan struct{}
	err      error
}

func (r *ring) message(message) {
	r.mu.Lock()
	r.fresh++
	r.mu.Unlock()
}

func (r *ring) drained() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fresh == 0 || r.done == nil {
		return
	}
	now := time.Now()
	r.took = append(r.took, now.Sub(r.started))
	r.started = now
	r.answered += r.fresh
	again := r.fresh
	r.fresh = 0
	if r.answered >= r.total {
		close(r.done)
		r.done = nil
		return
	}
	r.askLocked(again)
}

func (r *ring) askLocked(n int) {
	for range n {
		r.asker.request(r.target, r.payload)
	}
	if err := r.asker.write(); err != nil && r.err == nil {
		r.err = err
	}
}

// turn asks until total answers have come, with so many in flight.
func (r *ring) turn(ctx context.Context, total, inFlight int) error {
	r.mu.Lock()
	done := make(chan struct{})
	r.done, r.total, r.answered, r.took, r.started = done, total, 0, nil, time.Now()
	r.askLocked(inFlight)
	r.mu.Unlock()
	select {
	case <-done:
		return r.err
	case <-ctx.Done():
		return fmt.Errorf("%d of %d answers: %w", r.answered, total, ctx.Err())
	}
}

// echoer answers with what it is asked.
type echoer struct{ conn conn }

func (e *echoer) message(m message) { e.conn.reply(m, m.payload) }
func (e *echoer) drained()          { _ = e.conn.write() } // what is missing shows at the asker

// echo measures round trips between clients of two servers.
func echo(ctx context.Context, s system, from, to, size, count, inFlight int) (result, error) {
	answerer := &echoer{}
	var err error
	ready := make(chan struct{})
	gate := &gated{h: answerer, ready: ready}
	if answerer.conn, err = s.connect(ctx, to, "echo", gate); err != nil {
		return result{}, err
	}
	close(ready)
	defer answerer.conn.close()
	if err := answerer.conn.listen(ctx); err != nil {
		return result{}, err
	}
	r := &ring{target: "echo", payload: make([]byte, size)}
	if r.asker, err = s.connect(ctx, from, "asker", r); err != nil {
		return result{}, err
	}
	defer r.asker.close()
	if err := r.asker.listen(ctx); err != nil {
		return result{}, err
	}
	if err := reachEcho(ctx, r); err != nil {
		return result{}, err
	}
	if err := r.turn(ctx, count/10+inFlight, inFlight); err != nil { // warms both sides up
		return result{}, err
	}
	<-time.After(20 * time.Millisecond) // the last of the warm-up's answers come
	cpu, err := cpuOf(s)
	if err != nil {
		return result{}, err
	}
	start := time.Now()
	if err := r.turn(ctx, count, inFlight); err != nil {
		return result{}, err
	}
	took := time.Since(start)
	used, err := cpuOf(s)
	if err != nil {
		return result{}, err
	}
	metrics := map[string]float64{cpuPerMsg: (used - cpu) / float64(count) * 1e6}
	if inFlight == 1 {
		metrics[p50], metrics[p99] = percentiles(r.took)
	} else {
		metrics[perSecond] = float64(count) / took.Seconds()
	}
	return result{metrics: metrics}, nil
}

// reachEcho asks until an answer comes: servers know of each other's clients a
// little later.
func reachEcho(ctx context.Context, r *ring) error {
	return poll(ctx, func() error {
		short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		defer cancel()
		return r.turn(short, 1, 1)
	})
}

// gated holds up a handler until it is ready.
type gated struct {
	h     handler
	ready <-chan struct{}
}

func (g *gated) message(m message) { <-g.ready; g.h.message(m) }
func (g *gated) drained() {
	select {
	case <-g.ready:
		g.h.drained()
	default: // the handshake
	}
}
