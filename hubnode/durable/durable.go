package durable

import (
	"slices"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

const (
	// openMax bounds the stretches that are given out and not settled: while there
	// are so many, nothing new is given out.
	openMax = 4096
	// buryTime is how long whoever buries the dead has for it.
	buryTime = 30 * time.Second
	// gravedigger is the member that has what was given out too often.
	gravedigger = "\x00dead"
	// retryMin is how long a failed artifact rests the first time; then twice as
	// long each time, up to the policy's AckWait.
	retryMin = 100 * time.Millisecond
)

// Subscription is the state of one durable subscription. Make it with [New].
type Subscription struct {
	Policy wire.DurablePolicy // of the latest request
	Next   wire.Sequence      // nothing from here on was ever given out
	Open   []Span             // given out and not settled, in order
	Holder string             // the member that has it to itself, unless the policy is Shared
	Until  time.Time          // when Holder has to have been heard of
	Used   time.Time          // of the latest request
	Lost   uint64             // artifacts that retention took before they were done
}

// Span is artifacts From to To, both included, that are not settled.
type Span struct {
	From, To   wire.Sequence
	Member     string    // who has them; empty: nobody
	Until      time.Time // they are the member's until then; without one: they rest until then
	Deliveries int       // how often they were given out
}

// Request is what a member says and wants.
type Request struct {
	Member string             `json:"member,omitempty"`
	Policy wire.DurablePolicy `json:"policy"`
	Start  wire.Sequence      `json:"start,omitempty"` // where the subscription begins when it is new; 0: it has to be there

	Acked    []wire.Range `json:"acked,omitempty"`    // done
	Failed   []wire.Range `json:"failed,omitempty"`   // not done: somebody else's turn, after a rest
	Released []wire.Range `json:"released,omitempty"` // not begun: as if they had not been given out
	Held     []wire.Range `json:"held,omitempty"`     // still at work on them
	// All says that Held is all that the member has: what else it was given was
	// lost on the way.
	All   bool `json:"all,omitempty"`
	Leave bool `json:"leave,omitempty"` // the member goes; what it holds is released
	Max   int  `json:"max,omitempty"`   // artifacts wanted
	// Until bounds what may be given that never was: before it, what the filter lets
	// pass is all but Refused, which is settled. 0: everything passes.
	Until   wire.Sequence `json:"until,omitempty"`
	Refused []wire.Range  `json:"refused,omitempty"`
	Drop    bool          `json:"drop,omitempty"` // the subscription is deleted

	First wire.Sequence `json:"first,omitempty"` // the oldest artifact that the topic keeps
}

// Frees reports whether the request may let others have something.
func (r *Request) Frees() bool {
	return r.Leave || r.All || len(r.Failed) > 0 || len(r.Released) > 0
}

// Grant is what a member is given.
type Grant struct {
	Given []wire.Work
	Dead  []wire.Work  // was given out too often: to be buried, and then settled with [Bury]
	Lost  []wire.Range // retention took it before it was done
}

// New returns a subscription that begins at a sequence.
func New(start wire.Sequence) *Subscription { return &Subscription{Next: max(start, 1)} }

// Bury returns the request that settles what was buried.
func Bury(policy wire.DurablePolicy, dead []wire.Work) Request {
	r := Request{Member: gravedigger, Policy: policy}
	for _, w := range dead {
		r.Acked = append(r.Acked, w.Range)
	}
	return r
}

// Do does what a request says at a time. end is the sequence that the topic's next
// artifact gets.
func (s *Subscription) Do(now time.Time, end wire.Sequence, r Request) Grant {
	var g Grant
	s.Policy, s.Used = r.Policy.WithDefaults(), now
	s.settle(now, r)
	s.hold(now, r)
	if r.Leave {
		s.leave(r.Member)
		return g
	}
	if r.Max > 0 && s.admits(now, r.Member) { // who is given nothing is told of no losses either
		g.Lost = s.forget(now, r.First)
		s.give(now, end, r, &g)
	}
	return g
}

// forget drops what retention took, and returns and counts what is lost with it. What
// a member is at work on is not: it may be done yet.
func (s *Subscription) forget(now time.Time, first wire.Sequence) (lost []wire.Range) {
	lost, s.Open = s.lost(now, first)
	s.Next = max(s.Next, first)
	s.Lost += count(lost)
	return lost
}

// lost returns what is lost when retention took everything before first, and what is
// still open then.
func (s *Subscription) lost(now time.Time, first wire.Sequence) (lost []wire.Range, open []Span) {
	if first <= 1 {
		return nil, s.Open
	}
	open = change(s.Open, []wire.Range{{From: 1, To: first - 1}}, func(part *Span) bool {
		if part.Member != "" && now.Before(part.Until) {
			return true
		}
		lost = append(lost, wire.Range{From: part.From, To: part.To})
		return false
	})
	return normal(append(lost, wire.Range{From: s.Next, To: first - 1})), open
}

func count(ranges []wire.Range) (n uint64) {
	for _, r := range ranges {
		n += uint64(size(r.From, r.To))
	}
	return n
}

// settle takes in what became of artifacts. Done is done, whoever says so: also
// when the artifact was given to somebody else in the meantime.
func (s *Subscription) settle(now time.Time, r Request) {
	s.Open = change(s.Open, r.Acked, func(*Span) bool { return false })
	s.Open = change(s.Open, r.Failed, func(part *Span) bool {
		if part.Member == r.Member {
			part.Member, part.Until = "", now.Add(s.rest(part.Deliveries))
		}
		return true
	})
	s.Open = change(s.Open, r.Released, func(part *Span) bool {
		if part.Member == r.Member {
			part.release()
		}
		return true
	})
}

func (s *Subscription) rest(deliveries int) time.Duration {
	const doublings = 20
	return min(retryMin<<min(max(deliveries-1, 0), doublings), s.Policy.AckWait)
}

// release undoes that a span was given out.
func (p *Span) release() {
	p.Member, p.Until = "", time.Time{}
	p.Deliveries--
}

// hold renews what the member is at work on, and with All releases what else it has.
func (s *Subscription) hold(now time.Time, r Request) {
	s.Open = change(s.Open, r.Held, func(part *Span) bool {
		if part.Member == r.Member {
			part.Until = now.Add(s.Policy.AckWait)
		}
		return true
	})
	if s.Holder == r.Member && r.Member != "" {
		s.Until = now.Add(s.Policy.AckWait)
	}
	if r.All {
		s.releaseAll(r.Member, normal(r.Held))
	}
}

// releaseAll releases what a member has but for some.
func (s *Subscription) releaseAll(member string, but []wire.Range) {
	var others []wire.Range
	at := wire.Sequence(1)
	for _, r := range but {
		others = append(others, wire.Range{From: at, To: r.From - 1})
		at = r.To + 1
	}
	others = append(others, wire.Range{From: at, To: s.Next})
	s.Open = change(s.Open, others, func(part *Span) bool {
		if part.Member == member {
			part.release()
		}
		return true
	})
}

func (s *Subscription) leave(member string) {
	s.releaseAll(member, nil)
	if s.Holder == member {
		s.Holder, s.Until = "", time.Time{}
	}
}

// admits reports whether a member may be given something. Where the subscription is
// not shared the first one has it, until it has not been heard of for too long.
func (s *Subscription) admits(now time.Time, member string) bool {
	switch {
	case s.Policy.Shared:
		s.Holder = ""
		return true
	case s.Holder == member:
	case s.Holder != "" && now.Before(s.Until):
		return false
	case s.Holder != "":
		s.releaseAll(s.Holder, nil)
	}
	s.Holder, s.Until = member, now.Add(s.Policy.AckWait)
	return true
}

// give gives out what is free, the oldest first, then what is new.
func (s *Subscription) give(now time.Time, end wire.Sequence, r Request, g *Grant) {
	left, until := r.Max, now.Add(s.Policy.AckWait)
	var all []Span
	for _, span := range s.Open {
		if left == 0 || now.Before(span.Until) {
			all = joined(all, span)
			continue
		}
		n := min(left, size(span.From, span.To))
		left -= n
		given, rest := span, span
		given.To = span.From + wire.Sequence(n) - 1
		rest.From = given.To + 1
		if tries := s.Policy.MaxDeliveries; tries > 0 && span.Deliveries >= tries {
			given.Member, given.Until = gravedigger, now.Add(buryTime)
			g.Dead = append(g.Dead, given.work())
		} else {
			given.Member, given.Until = r.Member, until
			given.Deliveries++
			g.Given = append(g.Given, given.work())
		}
		all = joined(all, given)
		if rest.From <= rest.To {
			all = joined(all, rest)
		}
	}
	s.Open = all
	if r.Until > 0 {
		end = min(end, r.Until)
	}
	s.giveNew(end, left, r, Span{Member: r.Member, Until: until, Deliveries: 1}, g)
}

// giveNew gives out what is new before end and not refused, as spans like fresh.
func (s *Subscription) giveNew(end wire.Sequence, left int, r Request, fresh Span, g *Grant) {
	for _, part := range without(wire.Range{From: s.Next, To: end - 1}, r.Refused) {
		n := min(left, size(part.From, part.To))
		if n == 0 || len(s.Open) >= openMax {
			return
		}
		left -= n
		fresh.From, fresh.To = part.From, part.From+wire.Sequence(n)-1
		s.Next = fresh.To + 1
		s.Open = joined(s.Open, fresh)
		g.Given = append(g.Given, fresh.work())
		if fresh.To < part.To {
			return
		}
	}
	s.Next = max(s.Next, end)
}

func (p *Span) work() wire.Work {
	return wire.Work{Range: wire.Range{From: p.From, To: p.To}, Deliveries: p.Deliveries}
}

// Outlook is what there is for a member.
type Outlook struct {
	Again bool // what was given out before, and is free
	New   bool // what never was
	// Due is when something may be free again though nothing happens; zero: never, or
	// now.
	Due       time.Time
	Next, End wire.Sequence // what is new is from Next up to End
}

// Look returns what there is for a member. end is the sequence that the topic's next
// artifact gets.
func (s *Subscription) Look(now time.Time, end wire.Sequence, member string) Outlook {
	o := Outlook{Next: s.Next, End: end}
	if !s.Policy.Shared && s.Holder != "" && s.Holder != member && now.Before(s.Until) {
		o.Due = s.Until
		return o
	}
	for _, span := range s.Open {
		if !now.Before(span.Until) {
			o.Again, o.Due = true, time.Time{}
			break
		}
		if o.Due.IsZero() || span.Until.Before(o.Due) {
			o.Due = span.Until
		}
	}
	o.New = s.Next < end && len(s.Open) < openMax
	return o
}

// Info returns what people are told of the subscription to a topic that keeps what is
// from first up to end.
func (s *Subscription) Info(now time.Time, topic, name string, first, end wire.Sequence) wire.DurableInfo {
	lost, open := s.lost(now, first)
	next := max(s.Next, first)
	info := wire.DurableInfo{Topic: topic, Name: name, Policy: s.Policy, Position: next, Used: s.Used, Lost: s.Lost + count(lost)}
	members := make(map[string]bool)
	for i, span := range open {
		if i == 0 {
			info.Position = span.From
		}
		n := size(span.From, span.To)
		if span.Member != "" && now.Before(span.Until) {
			info.InFlight += n
			if span.Member != gravedigger {
				members[span.Member] = true
			}
		} else {
			info.Pending += uint64(n)
		}
		if span.Deliveries > 1 {
			info.Redelivered += n
		}
	}
	if end > next {
		info.Pending += uint64(end - next)
	}
	if s.Holder != "" && now.Before(s.Until) {
		members[s.Holder] = true
	}
	for m := range members {
		info.Members = append(info.Members, m)
	}
	slices.Sort(info.Members)
	return info
}
