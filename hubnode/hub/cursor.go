package hub

import (
	"math"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

// cursor is where a subscription is in one topic with history. A live one gets
// artifacts as they are published. One that lags ignores them and reads from
// history instead, page by page. The seam has neither gap nor repeat, since
// what was published after a page was asked for is either in that page or
// heard of, and the cursor goes live only when it has both.
type cursor struct {
	topic string
	live  bool
	next  wire.Sequence // the next one to deliver
	past  wire.Sequence // what comes before was there before the subscription; unknownPast: its leader has not said
	heard wire.Sequence // while it lags: the end of what was published since the latest page was asked for
	quiet bool          // it starts wherever the history starts: nothing before past is missed
	retry time.Time     // its history could not be read: not before then
	wait  time.Duration // between such tries
}

const unknownPast = wire.Sequence(math.MaxUint64)

// startAt puts the cursors where a subscription begins and starts to catch up.
// What was published while the listing was under way has been heard of.
func (s *subscription) startAt(starts []topicStart, complete bool, want wire.Subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listing = false
	s.fromOne = complete || want.Positions != nil && !want.Others || want.Since == wire.SinceAll
	s.knows = complete
	if !complete && (want.Positions == nil || want.Others) {
		s.since, s.sequence = want.Since, want.Sequence
	}
	listed := make(map[string]bool, len(starts))
	for _, at := range starts {
		listed[at.Topic] = true
		c := s.cursorLocked(at.Topic)
		c.next, c.past = at.Start, min(c.past, at.End)
		c.live = c.next >= max(c.heard, at.End)
	}
	for name, c := range s.cursors { // heard of during the listing, but not listed
		if !listed[name] {
			s.beginLocked(c, c.past)
		}
	}
	if !complete {
		s.startUnlistedLocked(listed, want)
	}
	s.catchUpLocked()
}

// startUnlistedLocked adds cursors for topics that the subscription knows of
// itself, when their leader could not be asked: it is asked again until it
// answers.
func (s *subscription) startUnlistedLocked(listed map[string]bool, want wire.Subscription) {
	start := func(name string, next wire.Sequence, quiet bool) {
		if !listed[name] {
			c := s.cursorLocked(name)
			c.next, c.quiet = max(next, 1), quiet
		}
	}
	for name, next := range want.Positions {
		start(name, next, false)
	}
	if s.since == wire.SinceAll && s.literal() && want.Positions[s.pattern] == 0 {
		start(s.pattern, 1, true)
	}
}

// beginLocked puts a cursor where the subscription begins in a topic of which it was not told,
// and of which first is what it heard of first.
func (s *subscription) beginLocked(c *cursor, first wire.Sequence) {
	c.next, c.past = first, first
	if s.knows { // the topic is newer
		c.past = 1
	}
	switch {
	case s.fromOne:
		c.next, c.quiet = 1, s.since == wire.SinceAll
	case s.since == wire.SinceLast:
		c.next, c.quiet = max(first-1, 1), true
	case s.since == wire.SinceSequence:
		c.next = min(max(s.sequence, 1), first)
	}
}

func (s *subscription) cursorLocked(name string) *cursor {
	c := s.cursors[name]
	if c == nil {
		c = &cursor{topic: name, past: unknownPast}
		if s.cursors == nil {
			s.cursors = make(map[string]*cursor)
		}
		s.cursors[name] = c
	}
	return c
}

// deliverStored delivers an artifact of a topic with history if it is the next
// one that the subscription wants, and returns 1 when it did.
func (s *subscription) deliverStored(in *intake, name string, p *parcel) int {
	first, end := p.seq, p.seq+wire.Sequence(p.frame.Count())
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.cursors[name]
	if c == nil { // the topic is newer than the subscription, or than its listing
		c = s.cursorLocked(name)
		c.live = !s.listing
		s.beginLocked(c, first)
	}
	switch {
	case !c.live:
		c.heard, c.past = max(c.heard, end), min(c.past, first)
		return 0
	case end <= c.next: // had it
		return 0
	case first > c.next || s.crowded():
		s.lagLocked(c, end)
		return 0
	}
	n, ok := s.pushFrom(in, c, p)
	if !ok {
		s.lagLocked(c, end)
	}
	return n
}

// lagLocked makes a live cursor go on from history.
func (s *subscription) lagLocked(c *cursor, heard wire.Sequence) {
	c.live, c.heard = false, heard
	s.catchUpLocked()
}

// crowded reports whether so much waits for the client that it had better read
// from history at its own pace. The rest of its queue is for what has no
// history to fall back to.
func (s *subscription) crowded() bool {
	return s.client.out.Pending() > s.client.hub.settings.Load().PendingBytes/2
}

// pushFrom queues what of a frame lies at or behind the cursor, and moves it.
// It reports false when there was no room for all of it; the cursor is then
// where the next page has to begin.
func (s *subscription) pushFrom(in *intake, c *cursor, p *parcel) (n int, ok bool) {
	end := p.seq + wire.Sequence(p.frame.Count())
	if c.next > p.seq {
		rest, err := cutParcel(p, int(c.next-p.seq))
		if err != nil {
			return 0, false
		}
		p = rest
	}
	if s.filter == nil {
		if !s.pushPart(in, c, p) {
			return 0, false
		}
		return 1, true
	}
	for _, part := range in.passing(s.filter, p) {
		if !s.pushPart(in, c, part) {
			return n, false
		}
		n = 1
	}
	c.next = end
	return n, true
}

func (s *subscription) pushPart(in *intake, c *cursor, p *parcel) bool {
	count := p.frame.Count()
	head := in.stamp(p, wire.KindPublish, 0, s.id)
	if !queued(in.push(s.client.out, head, p.frame[wire.HeaderSize:], p.slab)) {
		return false
	}
	s.client.hub.metrics.sent.Add(uint64(count))
	c.next = p.seq + wire.Sequence(count)
	return true
}

// cutParcel returns the frame without its first artifacts.
func cutParcel(p *parcel, skip int) (*parcel, error) {
	body, err := wire.SkipRun(p.frame.Body(), skip)
	if err != nil {
		return nil, err
	}
	h := p.frame.Header()
	h.Count -= uint16(skip)
	return &parcel{frame: wire.AppendFrame(nil, h, p.frame.Target(), p.frame.From(), body), seq: p.seq + wire.Sequence(skip)}, nil
}
