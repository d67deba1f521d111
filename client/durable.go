package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

// DefaultPrefetch is how many artifacts of a durable subscription a client has at a
// time, unless [Prefetch] says otherwise.
const DefaultPrefetch = 256

// Durable makes a subscription to one topic with history durable: the hub keeps its
// position under that name, wherever its clients are and whether there are any. An
// artifact is done when the handler has returned nil; one whose handler failed, or
// whose client is gone, is given out again, after others behind it. So each is
// handled at least once, and most often once.
//
// One client has the subscription; a second one waits until the first has left or
// was not heard of for the time of [AckWait]. With [Shared] all of them work at a
// time. A new subscription begins at the oldest artifact that the topic keeps unless
// Since, SinceNew, SinceLast or SinceAge says otherwise; one that exists goes on where it was.
// Unsubscribe ends this client's part in it and nothing else, and waits for the handlers
// that run. A handler that calls it itself passes on its own context: then Unsubscribe
// does not wait, and the part ends once the handlers have returned.
//
// With [Filter] the hub gives out what matches and settles the rest; all clients of the
// subscription, for its whole life, have to give the same one. It takes no Group, and no
// pattern: topics of a pattern are kept by several shards, so have a durable
// subscription to each.
func Durable(name string) SubscribeOption {
	return func(s *Subscription) { s.durableOptions().name = name }
}

// Shared lets all clients of a durable subscription work at a time, each on artifacts
// of its own: a work queue.
func Shared() SubscribeOption {
	return func(s *Subscription) { s.durableOptions().policy.Shared = true }
}

// AckWait is how long a handler of a durable subscription may take, and how long a
// client that is gone keeps its artifacts from the others. The default is 30 s.
func AckWait(d time.Duration) SubscribeOption {
	return func(s *Subscription) { s.durableOptions().policy.AckWait = d }
}

// MaxDeliveries gives an artifact of a durable subscription up that was given out n
// times and never done: it goes to the topic deadLetter, which has to keep history
// too, with the attributes "switchboard-dead-…" that say where it is from. With an
// empty deadLetter it is dropped. The default is to try for as long as the topic
// keeps it.
func MaxDeliveries(n int, deadLetter string) SubscribeOption {
	return func(s *Subscription) {
		p := &s.durableOptions().policy
		p.MaxDeliveries, p.DeadLetter = n, deadLetter
	}
}

// Prefetch bounds the artifacts of a durable subscription that this client has at a
// time; the default is [DefaultPrefetch]. Fewer share long work better.
func Prefetch(n int) SubscribeOption {
	return func(s *Subscription) { s.durableOptions().prefetch = min(max(n, 1), wire.MaxFetch) }
}

// Concurrent lets up to n handlers of a durable subscription run at a time. The
// default is 1: one after another.
func Concurrent(n int) SubscribeOption {
	return func(s *Subscription) { s.durableOptions().handlers = max(n, 1) }
}

type taskKey struct{}

// taskOf returns what a handler of a durable subscription was called for whose ctx this
// is, or that is made of; nothing elsewhere.
func taskOf(ctx context.Context) task {
	if t, ok := ctx.Value(taskKey{}).(*task); ok {
		return task{subscription: t.subscription, deliveries: t.deliveries} // the rest is guarded
	}
	return task{}
}

// Deliveries returns how often the artifact was given out for whose handler ctx is, by
// a durable subscription: 1 the first time. It returns 0 elsewhere.
func Deliveries(ctx context.Context) int { return taskOf(ctx).deliveries }

// durable is a client's part in a durable subscription.
type durable struct {
	name     string
	policy   wire.DurablePolicy
	prefetch int
	handlers int

	work     chan *task
	room     chan struct{} // holds one: the fetcher looks whether it can fetch
	news     chan struct{} // holds one: something is to be told to the hub
	quit     chan struct{} // closed when nothing more is to be begun
	quitting sync.Once
	left     chan struct{}  // closed when the hub knows
	leaveErr error          // set before left is closed
	working  sync.WaitGroup // the handlers' goroutines
	fetching sync.WaitGroup

	mu   sync.Mutex              // guards the fields below, and the tasks
	held map[wire.Sequence]*task // given to this client, and not known to be settled
	size int                     // bytes of those that are not done
}

// task is an artifact that was given to this client, or a gap to be told of.
type task struct {
	subscription *Subscription
	artifact     *wire.Artifact
	deliveries   int
	gap          *HistoryGapError
	outcome      outcome
	deadline     time.Time // of its handler; zero before that runs
}

type outcome uint8

const (
	underWay outcome = iota
	done
	failed
	givenBack
)

// ErrGiveBack is what a handler of a durable subscription returns for an artifact that
// it has not begun to work on, as when the program is about to end: it is given out
// again, at once, as if it had not been.
var ErrGiveBack = errors.New("not begun: for another client")

func (s *Subscription) durableOptions() *durable {
	if s.durable == nil {
		s.durable = &durable{prefetch: DefaultPrefetch, handlers: 1}
	}
	return s.durable
}

// subscribeDurable begins this client's part in a durable subscription.
func (c *Client) subscribeDurable(ctx context.Context, s *Subscription) error {
	d := s.durable
	switch {
	case d.name == "":
		return errors.New("Shared, AckWait, MaxDeliveries, Prefetch and Concurrent are for a subscription with Durable")
	case s.want.Group != "":
		return errors.New("a durable subscription takes no Group: use Shared")
	}
	d.policy = d.policy.WithDefaults()
	d.policy.Filter = s.want.Filter
	d.work = make(chan *task, d.prefetch)
	d.room, d.news, d.quit, d.left = make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	d.held = make(map[wire.Sequence]*task)
	c.mu.Lock()
	for other := range c.durables {
		if other.durable.name == d.name && other.pattern == s.pattern {
			c.mu.Unlock()
			return fmt.Errorf("this client has the durable subscription %q already: use Concurrent for several handlers", d.name)
		}
	}
	if c.subs == nil {
		defer c.mu.Unlock()
		return c.err // Err says it once all has ended
	}
	c.durables[s] = struct{}{}
	c.mu.Unlock()
	for round := 0; ; round++ {
		tasks, err := s.fetchOnce(ctx, 0)
		if err == nil {
			s.begin(tasks) //nolint:contextcheck // ctx bounds the first fetch alone
			return nil
		}
		if !errors.Is(err, errLinkLost) && !temporary(err) || !sleep(ctx, c.wait(round)) {
			c.forgetDurable(s)
			return err
		}
	}
}

func (c *Client) forgetDurable(s *Subscription) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.durables, s)
}

// begin starts what a durable subscription runs.
func (s *Subscription) begin(first []*task) {
	d, c := s.durable, s.client
	for range d.handlers {
		d.working.Go(s.handleTasks)
	}
	d.fetching.Go(func() { s.fetchTasks(first) })
	c.wg.Go(d.working.Wait)
	c.wg.Go(d.fetching.Wait)
	c.wg.Go(s.settleTasks)
}

// fetchTasks fetches artifacts whenever there is room.
func (s *Subscription) fetchTasks(tasks []*task) {
	d := s.durable
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	d.fetching.Go(func() {
		select {
		case <-d.quit:
			cancel()
		case <-ctx.Done():
		}
	})
	for round := 0; ; {
		for _, t := range tasks {
			select {
			case d.work <- t:
			case <-ctx.Done():
				return
			}
		}
		for !d.hasRoom(s.client.opts.queueBytes) {
			select {
			case <-d.room:
			case <-ctx.Done():
				return
			}
		}
		var err error
		tasks, err = s.fetchOnce(ctx, wire.MaxFetchWait)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			round = 0
			continue
		case !errors.Is(err, errLinkLost) && !temporary(err):
			s.client.forgetDurable(s)
			s.client.report(fmt.Errorf("durable subscription %q to %q: %w", d.name, s.pattern, err))
			s.end(err)
			return
		case round > 0 && !errors.Is(err, errLinkLost):
			s.client.report(fmt.Errorf("durable subscription %q to %q: %w", d.name, s.pattern, err))
		}
		if !sleep(ctx, s.client.wait(round)) {
			return
		}
		round++
	}
}

func (d *durable) hasRoom(bytes int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.held) <= d.prefetch/2 && d.size < bytes
}

// fetchOnce fetches what there is room for.
func (s *Subscription) fetchOnce(ctx context.Context, wait time.Duration) ([]*task, error) {
	d := s.durable
	q := wire.Fetch{Name: d.name, Policy: d.policy, Since: s.want.Since, Sequence: s.want.Sequence, Age: s.want.Age, Wait: wait}
	d.mu.Lock()
	var held []wire.Sequence
	for seq := range d.held {
		held = append(held, seq)
	}
	q.Max = d.prefetch - len(d.held)
	d.mu.Unlock()
	q.Held = rangesOf(held)
	p, got := s.exchange(ctx, q)
	if p.err != nil {
		return nil, p.err
	}
	return s.tasksOf(p, got), nil
}

// exchange sends a Fetch and waits for its answer.
func (s *Subscription) exchange(ctx context.Context, q wire.Fetch) (p *page, got wire.Fetched) {
	body, err := json.Marshal(q)
	if err != nil {
		return &page{err: err}, got
	}
	if q.Wait > 0 { // for what is to come: no call waits for that
		s.client.out.expect(-1)
		defer s.client.out.expect(1)
	}
	p = s.client.exchange(ctx, wire.KindFetch, s.pattern, body, &got)
	return p, got
}

// tasksOf makes tasks of what the hub gave, in order.
func (s *Subscription) tasksOf(p *page, got wire.Fetched) []*task {
	d := s.durable
	artifacts := make(map[wire.Sequence]*wire.Artifact)
	for _, f := range p.frames {
		run := wire.NewRunReader(f.Body())
		for i := range f.Count() {
			a := &wire.Artifact{}
			if ok, err := run.Next(a); err != nil || !ok {
				s.client.report(fmt.Errorf("artifacts on %q can't be read: %w", s.pattern, orMalformed(err)))
				break
			}
			a.Topic, a.From, a.Sequence = s.pattern, wire.ClientID(f.From()), f.Sequence()+wire.Sequence(i)
			a.Payload = slices.Clip(a.Payload) // its neighbour's bytes follow
			artifacts[a.Sequence] = a
		}
	}
	var tasks []*task
	for _, lost := range got.Lost {
		tasks = append(tasks, &task{gap: &HistoryGapError{Topic: s.pattern, From: lost.From, To: lost.To}})
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range got.Given {
		for seq := w.From; seq <= w.To; seq++ {
			a := artifacts[seq]
			t := &task{subscription: s, artifact: a, deliveries: w.Deliveries}
			if a == nil { // retention took it just now
				t.gap, t.outcome = &HistoryGapError{Topic: s.pattern, From: seq, To: seq}, done
				tell(d.news)
			} else {
				d.size += len(a.Payload)
			}
			d.held[seq] = t
			tasks = append(tasks, t)
		}
	}
	return tasks
}

// handleTasks handles one artifact after another.
func (s *Subscription) handleTasks() {
	for {
		select {
		case <-s.durable.quit:
			return
		case <-s.ctx.Done():
			return
		default:
		}
		select {
		case t := <-s.durable.work:
			s.handleTask(t)
		case <-s.durable.quit:
			return
		case <-s.ctx.Done():
			return
		}
	}
}

func (s *Subscription) handleTask(t *task) {
	d := s.durable
	if t.gap != nil {
		s.handle(delivery{gap: t.gap})
		return
	}
	ctx, cancel := context.WithTimeout(context.WithValue(s.ctx, taskKey{}, t), d.policy.AckWait)
	defer cancel()
	deadline, _ := ctx.Deadline()
	d.mu.Lock()
	t.deadline = deadline
	d.mu.Unlock()
	result := done
	switch err := s.handler(ctx, t.artifact); {
	case err == nil:
	case errors.Is(err, ErrGiveBack):
		result = givenBack
	default:
		result = failed
		s.client.report(fmt.Errorf("handler of %q: %w", s.pattern, err))
	}
	d.mu.Lock()
	d.size -= len(t.artifact.Payload)
	t.outcome = result
	if d.held[t.artifact.Sequence] != t && result == done { // it took too long, and was given up: done all the same
		d.held[t.artifact.Sequence] = t
	}
	d.mu.Unlock()
	tell(d.news)
}

// settleTasks tells the hub what became of artifacts, and that this client is still
// at work on others.
func (s *Subscription) settleTasks() {
	d := s.durable
	renew := time.NewTicker(d.policy.AckWait / 3)
	defer renew.Stop()
	for round := 0; ; {
		renewing := false
		select {
		case <-d.news:
		case <-renew.C:
			renewing = true
		case <-d.quit:
			s.sayLeave()
			return
		case <-s.ctx.Done():
			return
		}
		q, settled := d.outcomes(time.Now(), renewing)
		if len(settled) == 0 && len(q.Held) == 0 {
			continue
		}
		p, _ := s.exchange(s.ctx, q)
		err := p.err
		if err == nil || !errors.Is(err, errLinkLost) && !temporary(err) {
			round = 0
			d.forget(settled)
			if err != nil {
				s.client.report(fmt.Errorf("durable subscription %q to %q: %w", d.name, s.pattern, err))
			}
			continue
		}
		tell(d.news)
		if !sleep(s.ctx, s.client.wait(round)) {
			return
		}
		round++
	}
}

// outcomes returns what is to be told to the hub, and the tasks that it settles.
func (d *durable) outcomes(now time.Time, renewing bool) (wire.Fetch, []*task) {
	d.mu.Lock()
	defer d.mu.Unlock()
	q := wire.Fetch{Name: d.name, Policy: d.policy}
	var settled []*task
	var acked, refused, released, held []wire.Sequence
	for seq, t := range d.held {
		if t.outcome == underWay && !t.deadline.IsZero() && now.After(t.deadline) {
			t.outcome = failed // its handler takes too long
		}
		switch t.outcome {
		case done:
			acked = append(acked, seq)
			settled = append(settled, t)
		case failed:
			refused = append(refused, seq)
			settled = append(settled, t)
		case givenBack:
			released = append(released, seq)
			settled = append(settled, t)
		case underWay:
			held = append(held, seq)
		}
	}
	q.Acked, q.Failed, q.Released = rangesOf(acked), rangesOf(refused), rangesOf(released)
	if renewing {
		q.Held = rangesOf(held)
	}
	return q, settled
}

// forget drops tasks that the hub knows to be settled.
func (d *durable) forget(settled []*task) {
	d.mu.Lock()
	for _, t := range settled {
		seq := t.sequence()
		if d.held[seq] == t {
			delete(d.held, seq)
		}
	}
	d.mu.Unlock()
	tell(d.room)
}

func (t *task) sequence() wire.Sequence {
	if t.artifact == nil {
		return t.gap.From
	}
	return t.artifact.Sequence
}

// sayLeave waits until nothing is handled any more, says what came of it and gives the
// rest to others.
func (s *Subscription) sayLeave() {
	d := s.durable
	d.working.Wait()
	d.fetching.Wait()
	q, _ := d.outcomes(time.Now(), false)
	q.Leave = true
	if p, _ := s.exchange(s.ctx, q); p.err != nil && s.ctx.Err() == nil {
		d.leaveErr = fmt.Errorf("leave durable subscription %q: %w", d.name, p.err)
	}
	close(d.left)
}

// leave ends this client's part in a durable subscription: what is being handled is
// waited for until stop, the rest is given to others.
func (s *Subscription) leave(stop <-chan struct{}) error {
	d := s.durable
	s.client.forgetDurable(s)
	d.quitting.Do(func() { close(d.quit) })
	defer s.end(nil)
	select {
	case <-d.left:
		return d.leaveErr
	case <-s.ctx.Done():
		return nil
	case <-stop:
		return fmt.Errorf("leave durable subscription %q: handlers still run, or no node answers", d.name)
	}
}

// leaveSoon is leave for a handler of the subscription: what is being handled, that one
// included, is waited for on another goroutine.
func (s *Subscription) leaveSoon() {
	d, c := s.durable, s.client
	d.quitting.Do(func() { close(d.quit) })
	c.wg.Go(func() {
		select {
		case <-d.left:
			c.report(d.leaveErr)
		case <-s.ctx.Done():
		}
		c.forgetDurable(s)
		s.end(nil)
	})
}

// leaveDurables ends this client's part in all durable subscriptions.
func (c *Client) leaveDurables(stop <-chan struct{}) {
	c.mu.Lock()
	all := make([]*Subscription, 0, len(c.durables))
	for s := range c.durables {
		all = append(all, s)
	}
	c.mu.Unlock()
	var leaving sync.WaitGroup
	for _, s := range all {
		leaving.Go(func() { c.report(s.leave(stop)) })
	}
	leaving.Wait()
}

// tell puts the one thing into a channel that it holds, unless it is there already.
func tell(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// rangesOf returns sequences as ranges, in order.
func rangesOf(all []wire.Sequence) []wire.Range {
	slices.Sort(all)
	var ranges []wire.Range
	for _, seq := range all {
		if n := len(ranges); n > 0 && ranges[n-1].To+1 == seq {
			ranges[n-1].To = seq
			continue
		}
		ranges = append(ranges, wire.Range{From: seq, To: seq})
	}
	return ranges
}
