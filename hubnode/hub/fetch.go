package hub

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/durable"
	"github.com/switchboardhub/switchboard/hubnode/topic"
	"github.com/switchboardhub/switchboard/wire"
)

// fetchingMax bounds the Fetches of one client that are answered at a time: each of
// its durable subscriptions has one.
const fetchingMax = 256

// fetchQuestion is a client's Fetch on its way to the topic's leader.
type fetchQuestion struct {
	Topic    string     `json:"topic"`
	Member   string     `json:"member"`
	Fetch    wire.Fetch `json:"fetch"`
	Poll     string     `json:"poll,omitempty"`     // names this Fetch among those of all clients
	Withdraw bool       `json:"withdraw,omitempty"` // the client of Poll is gone: nobody waits for its answer
}

// fetched is what a member is given, with the artifacts.
type fetched struct {
	wire.Fetched
	frames []byte
}

func (f *fetched) encode() ([]byte, error) {
	text, err := json.Marshal(f.Fetched)
	if err != nil {
		return nil, err
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(len(text)))
	return append(append(b, text...), f.frames...), nil
}

func decodeFetched(b []byte) (*fetched, error) {
	if len(b) < 4 || uint64(len(b)-4) < uint64(binary.BigEndian.Uint32(b)) {
		return nil, fmt.Errorf("%w: what a member was given", wire.ErrMalformed)
	}
	n := 4 + int(binary.BigEndian.Uint32(b))
	f := &fetched{frames: b[n:]}
	return f, wire.DecodeJSON(b[4:n], &f.Fetched)
}

// fetch answers a client's Fetch. It may wait, so it does not hold up the
// connection.
func (c *Client) fetch(in *intake, f wire.Frame) error {
	q := fetchQuestion{Topic: string(f.Target()), Member: c.id}
	if err := wire.DecodeControl(f, &q.Fetch); err != nil {
		return err
	}
	ref := f.Ref()
	err := q.Fetch.Check()
	if err == nil {
		err = c.mayFetch(&q)
	}
	if err != nil {
		c.deny(in, ref, err)
		return nil
	}
	if c.fetching.Add(1) > fetchingMax {
		c.fetching.Add(-1)
		c.deny(in, ref, overloaded(fmt.Sprintf("a client may wait for %d durable subscriptions at a time", fetchingMax)))
		return nil
	}
	q.Poll = fmt.Sprintf("%s/%d", c.hub.remote.Self(), c.hub.polls.Add(1))
	c.hub.spawn(func() {
		defer c.fetching.Add(-1)
		in := c.hub.newIntake()
		defer in.flush()
		ctx, cancel := context.WithCancel(c.hub.life)
		defer cancel()
		c.hub.spawn(func() {
			select {
			case <-c.gone:
				cancel()
			case <-ctx.Done():
			}
		})
		got, err := c.hub.fetch(ctx, q)
		if ctx.Err() != nil {
			c.hub.withdraw(q)
		}
		if err == nil && len(got.Given) > 0 {
			if err = c.mayFetch(&q); err != nil { // by now: it may have waited
				_, all := split(got.Given, 0)
				c.hub.release(q, all)
			}
		}
		if err != nil {
			c.deny(in, ref, err)
			return
		}
		if released := c.hand(in, ref, got); len(released) > 0 {
			c.hub.release(q, released)
		}
	})
	return nil
}

// mayFetch returns nil, or why the client may not fetch.
func (c *Client) mayFetch(q *fetchQuestion) error {
	if err := c.mayUse(q.Topic); err != nil {
		return err
	}
	if letters := q.Fetch.Policy.DeadLetter; letters != "" { // the hub publishes there what this client has it give up
		return c.may(wire.ActionPublish, letters)
	}
	return nil
}

// hand queues for the client what it was given. It returns what there was no room
// for, or everything when the client is gone.
func (c *Client) hand(in *intake, ref uint32, got *fetched) (released []wire.Range) {
	select {
	case <-c.gone:
		for _, w := range got.Given {
			released = append(released, w.Range)
		}
		return released
	default:
	}
	p := page{frames: got.frames}
	full := wire.Sequence(0) // of the first frame that there was no room for
	err := p.each(func(f wire.Frame) error {
		stamped := &parcel{frame: f, seq: f.Sequence()}
		if !queued(in.push(c.out, in.stamp(stamped, wire.KindPublish, 0, ref), f[wire.HeaderSize:], nil)) {
			full = f.Sequence()
			return errNoRoom
		}
		c.hub.metrics.sent.Add(uint64(f.Count()))
		return nil
	})
	if err != nil {
		got.Given, released = split(got.Given, full)
	}
	c.pushControl(in, wire.AppendControl(nil, wire.Header{Kind: wire.KindAck, Ref: ref}, "", got.Fetched))
	return released
}

// split divides work before a sequence.
func split(given []wire.Work, at wire.Sequence) (kept []wire.Work, rest []wire.Range) {
	for _, w := range given {
		if w.From < at {
			before := w
			before.To = min(w.To, at-1)
			kept = append(kept, before)
		}
		if w.To >= at {
			rest = append(rest, wire.Range{From: max(w.From, at), To: w.To})
		}
	}
	return kept, rest
}

// withdraw tells the leader that nobody waits for an answer any more.
func (h *Hub) withdraw(q fetchQuestion) {
	gone := fetchQuestion{Topic: q.Topic, Member: q.Member, Poll: q.Poll, Withdraw: true, Fetch: wire.Fetch{Name: q.Fetch.Name, Policy: q.Fetch.Policy}}
	if _, err := h.fetch(h.life, gone); err != nil {
		h.log.Debug("poll of a client that is gone not withdrawn: it ends by itself", logError(err))
	}
}

// release gives back what a client was given and will not have.
func (h *Hub) release(q fetchQuestion, released []wire.Range) {
	back := fetchQuestion{Topic: q.Topic, Member: q.Member, Fetch: wire.Fetch{Name: q.Fetch.Name, Policy: q.Fetch.Policy, Released: released}}
	if _, err := h.fetch(h.life, back); err != nil {
		h.log.Debug("artifacts not given back: they wait until their time is up", logError(err))
	}
}

// fetch brings a member's request to the topic's leader.
func (h *Hub) fetch(ctx context.Context, q fetchQuestion) (*fetched, error) {
	node, self := h.keeper.Leader(q.Topic)
	switch {
	case self:
		return h.fetchHere(ctx, q)
	case node == "":
		return nil, h.keeper.Leaderless(q.Topic)
	}
	body, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, q.Fetch.Wait+askTime)
	defer cancel()
	answer, err := h.remote.Ask(ctx, node, QuestionFetch, body)
	if err != nil {
		return nil, err
	}
	return decodeFetched(answer)
}

// answerFetch answers another node's question for one of its clients.
func (h *Hub) answerFetch(ctx context.Context, body []byte) ([]byte, error) {
	var q fetchQuestion
	if err := wire.DecodeJSON(body, &q); err != nil {
		return nil, err
	}
	if err := q.Fetch.Check(); err != nil {
		return nil, err
	}
	got, err := h.fetchHere(ctx, q)
	if err != nil {
		return nil, err
	}
	return got.encode()
}

// fetchHere does what a member says and wants, on the topic's leader. ctx ends when
// nobody waits for the answer any more.
func (h *Hub) fetchHere(ctx context.Context, q fetchQuestion) (*fetched, error) {
	if q.Withdraw || q.Fetch.Leave {
		h.desks.withdraw(q)
	}
	if q.Withdraw {
		return &fetched{}, nil
	}
	r := durable.Request{
		Member: q.Member, Policy: q.Fetch.Policy,
		Acked: q.Fetch.Acked, Failed: q.Fetch.Failed, Held: q.Fetch.Held, Released: q.Fetch.Released,
		All: q.Fetch.Max > 0, Max: q.Fetch.Max, Leave: q.Fetch.Leave,
	}
	if r.Max == 0 && q.Fetch.Since == "" {
		_, err := h.request(ctx, q, r)
		if isDeleted(err) {
			err = nil // there is nothing to settle any more
		}
		return &fetched{}, err
	}
	if err := h.checkDurable(q); err != nil {
		return nil, err
	}
	sieve, err := h.sieve(q)
	if err != nil {
		return nil, err
	}
	ctx, done := h.desks.poll(ctx, q)
	defer done()
	grant, err := h.take(ctx, q, r, sieve)
	if err == nil && len(grant.Given) == 0 && len(grant.Lost) == 0 && q.Fetch.Wait > 0 {
		if grant, err = h.await(ctx, q, sieve); isDeleted(err) {
			err = nil // the next Fetch begins a new one
		}
	}
	if err != nil {
		return nil, err
	}
	got := &fetched{Fetched: wire.Fetched{Given: grant.Given, Lost: grant.Lost}}
	var rest []wire.Range
	if ctx.Err() != nil {
		got.Given, rest = split(got.Given, 0)
	} else if rest, err = h.readWork(q.Topic, got); err != nil {
		_, rest = split(grant.Given, 0)
	}
	if len(rest) > 0 {
		h.release(q, rest)
	}
	return got, errors.Join(err, context.Cause(ctx))
}

// take gives a member what there is, and begins the subscription when it is new.
func (h *Hub) take(ctx context.Context, q fetchQuestion, r durable.Request, sieve *sieve) (grant durable.Grant, err error) {
	o, _, err := h.keeper.AwaitFetch(q.Topic, q.Fetch.Name, q.Member)
	if err == nil && o.New {
		err = sieve.look(ctx, o.Next, o.End, r.Max)
	}
	if err != nil {
		return grant, err
	}
	grant, err = h.request(ctx, q, sieve.narrow(r))
	if !isDeleted(err) {
		return grant, err
	}
	if r.Start, err = h.startOf(ctx, q); err != nil {
		return grant, err
	}
	return h.request(ctx, q, sieve.narrow(r)) // what it has to look through comes with the next one
}

// isDeleted reports whether an error says that there is no such subscription.
func isDeleted(err error) bool {
	coded, ok := errors.AsType[*wire.Error](err)
	return ok && coded.Code == wire.CodeNoDurable
}

// checkDurable refuses what can't be a durable subscription here.
func (h *Hub) checkDurable(q fetchQuestion) error {
	invalid := func(format string, args ...any) error {
		return &wire.Error{Code: wire.CodeInvalidRequest, Detail: "durable subscription: " + fmt.Sprintf(format, args...)}
	}
	for what, name := range map[string]string{"topic": q.Topic, "dead-letter topic": q.Fetch.Policy.DeadLetter} {
		switch {
		case name == "":
		case topic.CheckPattern(name) == nil && !topic.IsLiteral(name):
			return invalid("%s %q is a pattern, whose topics are in several shards: subscribe to each topic", what, name)
		case checkTopic(name) != nil:
			return invalid("%s %q: %s", what, name, checkTopic(name).Error())
		case h.LimitsOf(name).MaxArtifacts == 0:
			return invalid("%s %q keeps no history", what, name)
		}
	}
	if q.Topic == q.Fetch.Policy.DeadLetter {
		return invalid("topic %q can't be its own dead-letter topic", q.Topic)
	}
	return nil
}

// request has the shard do what a member says and wants. Once begun it is not given
// up: nobody would know what the member has.
func (h *Hub) request(ctx context.Context, q fetchQuestion, r durable.Request) (durable.Grant, error) {
	if ctx.Err() != nil {
		return durable.Grant{}, context.Cause(ctx)
	}
	ctx, cancel := context.WithTimeout(h.life, askTime)
	defer cancel()
	grant, err := h.keeper.Fetch(ctx, q.Topic, q.Fetch.Name, r)
	if len(grant.Dead) > 0 {
		h.spawn(func() { h.bury(q, grant.Dead) })
	}
	return grant, err
}

// startOf returns where a new durable subscription begins.
func (h *Hub) startOf(ctx context.Context, q fetchQuestion) (wire.Sequence, error) {
	b, err := h.keeper.Bounds(ctx, q.Topic)
	if err != nil {
		return 0, err
	}
	want := wire.Subscription{Since: q.Fetch.Since, Sequence: q.Fetch.Sequence, Age: q.Fetch.Age}
	if want.Since == "" {
		want.Since = wire.SinceAll
	}
	at, err := h.startIn(q.Topic, b, want)
	return max(at.Start, 1), err
}

// await waits until there is something for a member, and returns an empty grant when
// that takes too long. Members that share wait in line: what one takes there is no
// sense in waking the others for.
func (h *Hub) await(ctx context.Context, q fetchQuestion, sieve *sieve) (durable.Grant, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, q.Fetch.Wait, errWaited)
	defer cancel()
	leave, ok := h.desks.line(ctx, q)
	if !ok {
		return durable.Grant{}, orWaited(ctx)
	}
	defer leave()
	r := durable.Request{Member: q.Member, Policy: q.Fetch.Policy, Max: q.Fetch.Max}
	for {
		o, news, err := h.keeper.AwaitFetch(q.Topic, q.Fetch.Name, q.Member)
		if err == nil && o.New {
			err = sieve.look(ctx, o.Next, o.End, r.Max)
		}
		if err != nil {
			return durable.Grant{}, err
		}
		if sieve.finds(o) && ctx.Err() == nil {
			grant, err := h.request(ctx, q, sieve.narrow(r))
			if err != nil || len(grant.Given)+len(grant.Lost) > 0 {
				return grant, err
			}
			continue
		}
		if pauseUntil(ctx, o.Due, news) {
			continue
		}
		if err := orWaited(ctx); err != nil || len(sieve.refused) == 0 {
			return durable.Grant{}, err
		}
		return h.request(h.life, q, sieve.narrow(r)) // the time is over: what was refused is settled
	}
}

// errWaited ends a wait that was as long as the member wanted.
var errWaited = errors.New("nothing came")

// orWaited returns why ctx ended, unless it was time.
func orWaited(ctx context.Context) error {
	if err := context.Cause(ctx); !errors.Is(err, errWaited) {
		return err
	}
	return nil
}

// pauseUntil waits for news or, unless it is zero, a time. It reports false when ctx
// ended first.
func pauseUntil(ctx context.Context, due time.Time, news <-chan struct{}) bool {
	var timer <-chan time.Time
	if !due.IsZero() {
		t := time.NewTimer(time.Until(due))
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-news:
		return true
	case <-timer:
		return true
	case <-ctx.Done():
		return false
	}
}

// readWork adds the artifacts to what a member was given. It leaves out, and returns,
// what would be too much for one answer, and what retention took in the meantime: once nobody
// has that any more it is lost, and counted.
func (h *Hub) readWork(name string, got *fetched) (rest []wire.Range, err error) {
	store, held := h.keeper.Held(name)
	if !held {
		return nil, unavailable(name, h.remote.Self())
	}
	b, _, err := store.Bounds(name)
	if err != nil {
		return nil, err
	}
	average := b.Bytes/int64(max(b.Artifacts, 1)) + 1
	given := got.Given
	got.Given = nil
	for i, w := range given {
		next := w.From
		for next <= w.To && len(got.frames) < pageBytes {
			most := min(int64(pageBytes-len(got.frames)), average*int64(w.To-next+1))
			after, gone, err := got.add(store, name, next, w.To, int(most))
			if err != nil {
				return nil, err
			}
			got.give(w, next, after-1, gone)
			rest = append(rest, gone...)
			next = after
		}
		if next <= w.To {
			_, left := split(given[i:], next)
			return append(rest, left...), nil
		}
	}
	return rest, nil
}

// give adds a part of some work to what a member was given, but for what is gone.
func (f *fetched) give(w wire.Work, from, to wire.Sequence, gone []wire.Range) {
	for _, g := range append(gone, wire.Range{From: to + 1}) {
		part := w
		part.From, part.To = from, g.From-1
		from = g.To + 1
		if part.From > part.To {
			continue
		}
		if n := len(f.Given); n > 0 && f.Given[n-1].To+1 == part.From && f.Given[n-1].Deliveries == part.Deliveries {
			f.Given[n-1].To = part.To
			continue
		}
		f.Given = append(f.Given, part)
	}
}
