package hub

import (
	"context"
	"errors"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/outbox"
	"github.com/switchboardhub/switchboard/wire"
)

const (
	pageBytes = 256 << 10 // what a catching-up subscription reads at a time
	retryMin  = 100 * time.Millisecond
	retryMax  = 2 * time.Second
)

// cursor is where a subscription is in one topic with history. A live one gets
// artifacts as they are published; one that lags reads them from history until
// it has all that was published, so that there is neither gap nor repeat at the
// seam.
type cursor struct {
	topic string
	next  wire.Sequence // the next one to deliver
	head  wire.Sequence // the highest one known to exist, plus one
	live  bool
}

// startAt puts the cursors where a subscription begins and starts to catch up.
// Live artifacts that came while the listing was under way wait in the cursors'
// heads.
func (s *subscription) startAt(starts []topicStart, complete bool, want wire.Subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listing, s.complete = false, complete
	s.fromOne = complete || want.Positions != nil || want.Since == wire.SinceAll
	if s.cursors == nil {
		s.cursors = make(map[string]*cursor, len(starts))
	}
	for _, at := range starts {
		c := s.cursorLocked(at.Topic)
		c.next, c.head = at.Start, max(c.head, at.End)
		c.live = c.next >= c.head
	}
	for _, c := range s.cursors { // heard of during the listing, but not listed
		if c.next == 0 {
			c.next = 1
		}
	}
	s.catchUpLocked()
}

func (s *subscription) cursorLocked(name string) *cursor {
	c := s.cursors[name]
	if c == nil {
		c = &cursor{topic: name}
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
	first, end := p.seq, p.seq+wire.Sequence(p.frame.Count()) //nolint:gosec // counts are never negative
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.cursors[name]
	if c == nil {
		c = s.cursorLocked(name)
		if !s.listing { // the topic is newer than the subscription
			c.next, c.live = 1, true
			if !s.fromOne {
				c.next = first
			}
		}
	}
	switch {
	case !c.live || s.listing:
		c.head = max(c.head, end)
		return 0
	case end <= c.next: // had it
		return 0
	case first > c.next || s.crowded():
		c.head, c.live = max(c.head, end), false
		s.catchUpLocked()
		return 0
	}
	n, ok := s.pushFrom(in, c, p)
	if !ok {
		c.head, c.live = max(c.head, end), false
		s.catchUpLocked()
	}
	return n
}

// crowded reports whether the client has so much to read that it had better
// read from history at its own pace.
func (s *subscription) crowded() bool {
	return s.client.out.Pending() > s.client.hub.settings.Load().PendingBytes/2
}

// pushFrom queues what of a frame lies at or behind the cursor, and moves it.
// It reports false when there was no room for all of it; the cursor is then
// where the next page has to begin.
func (s *subscription) pushFrom(in *intake, c *cursor, p *parcel) (n int, ok bool) {
	end := p.seq + wire.Sequence(p.frame.Count()) //nolint:gosec // counts are never negative
	if c.next > p.seq {
		rest, err := cutParcel(p, int(c.next-p.seq)) //nolint:gosec // below the frame's count
		if err != nil {
			return 0, false
		}
		p = rest
	}
	parts := []*parcel{p}
	if s.filter != nil {
		parts = in.passing(s.filter, p)
	}
	for _, part := range parts {
		var h header
		part.stamp(&h, wire.KindPublish, 0, s.id)
		switch in.push(s.client.out, h[:], part.frame[wire.HeaderSize:], part.slab) {
		case outbox.Queued, outbox.QueuedCold:
			s.client.hub.metrics.sent.Add(uint64(part.frame.Count())) //nolint:gosec // counts are never negative
			c.next = part.seq + wire.Sequence(part.frame.Count())     //nolint:gosec // counts are never negative
			n = 1
		default:
			return n, false
		}
	}
	c.next = end
	return n, true
}

// cutParcel returns the frame without its first artifacts.
func cutParcel(p *parcel, skip int) (*parcel, error) {
	body, err := wire.SkipRun(p.frame.Body(), skip)
	if err != nil {
		return nil, err
	}
	h := p.frame.Header()
	h.Count -= uint16(skip)                                                                                                        //nolint:gosec // below the count
	return &parcel{frame: wire.AppendFrame(nil, h, p.frame.Target(), p.frame.From(), body), seq: p.seq + wire.Sequence(skip)}, nil //nolint:gosec // never negative
}

// catchUpLocked starts the goroutine that reads from history, when some cursor
// lags and it does not run.
func (s *subscription) catchUpLocked() {
	if s.running || s.laggingLocked() == nil {
		return
	}
	s.running = true
	s.client.hub.spawn(s.catchUp)
}

func (s *subscription) laggingLocked() *cursor {
	for _, c := range s.cursors {
		if !c.live && c.next < c.head {
			return c
		}
	}
	return nil
}

// catchUp reads history, page by page as the client takes it, until no cursor
// lags.
func (s *subscription) catchUp() {
	h := s.client.hub
	ctx := h.life
	in := h.newIntake()
	wait, room := retryMin, h.settings.Load().PendingBytes/4
	for {
		select {
		case <-s.ended:
			return
		case <-ctx.Done():
			return
		case <-s.client.out.Below(room):
		}
		s.mu.Lock()
		c := s.laggingLocked()
		if c == nil {
			s.running = false
			s.mu.Unlock()
			return
		}
		name, from := c.topic, c.next
		s.mu.Unlock()

		err := s.turnPage(ctx, in, c, name, from)
		in.flush()
		room = h.settings.Load().PendingBytes / 4
		switch {
		case err == nil:
			wait = retryMin
			continue
		case errors.Is(err, errNoRoom):
			room = 0
			continue
		}
		if !s.pause(ctx, wait) {
			return
		}
		wait = min(2*wait, retryMax)
	}
}

// pause waits before the home of a topic is asked again; it reports false when
// there is nobody to ask for any more.
func (s *subscription) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.ended:
	case <-ctx.Done():
	}
	return false
}

// errNoRoom ends a page early: the client has to read first.
var errNoRoom = errors.New("the client's queue is full")

// turnPage reads one page of history and queues it.
func (s *subscription) turnPage(ctx context.Context, in *intake, c *cursor, name string, from wire.Sequence) error {
	page, err := s.client.hub.read(ctx, name, from, pageBytes)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if page.first > c.next {
		if page.first > from && page.first > 1 {
			in.pushControl(s.client.out, wire.AppendGap(nil, s.id, name, c.next, page.first-1))
		}
		c.next = page.first
	}
	if page.end < c.next { // the home lost what it had and began anew
		c.next, c.head = page.end, page.end
	}
	err = page.each(func(f wire.Frame) error {
		p := &parcel{frame: f, seq: f.Sequence()}
		if p.seq+wire.Sequence(f.Count()) <= c.next { //nolint:gosec // counts are never negative
			return nil
		}
		if _, ok := s.pushFrom(in, c, p); !ok {
			return errNoRoom
		}
		return nil
	})
	c.head = max(c.head, page.end)
	c.live = c.next >= c.head
	return err
}
