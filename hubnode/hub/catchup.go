package hub

import (
	"context"
	"errors"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

const (
	pageBytes = 256 << 10 // what a catching-up subscription reads at a time, at most
	retryMin  = 100 * time.Millisecond
	retryMax  = 2 * time.Second
)

// errNotAllowed ends the reading of what the client may not read any more. Whoever changed
// that ends the subscription.
var errNotAllowed = errors.New("the client may not read history")

// These end a page early: the client has to read first.
var (
	errCrowded = errors.New("the client's queue is half full")
	errNoRoom  = errors.New("the client's queue is full")
)

// catchUpLocked starts the goroutine that reads from history, when some cursor
// lags and it does not run.
func (s *subscription) catchUpLocked() {
	if s.running || s.listing {
		return
	}
	if c, _ := s.laggingLocked(time.Now()); c != nil {
		s.running = s.client.hub.spawn(s.catchUp)
	}
}

// laggingLocked returns a cursor that lags, nil when none does, and how long to
// wait before its history may be read.
func (s *subscription) laggingLocked(now time.Time) (first *cursor, wait time.Duration) {
	for _, c := range s.cursors {
		if c.live {
			continue
		}
		if left := max(c.retry.Sub(now), 0); first == nil || left < wait {
			first, wait = c, left
		}
	}
	return first, wait
}

// catchUp reads history, page by page as the client takes it, until no cursor
// lags.
func (s *subscription) catchUp() {
	h := s.client.hub
	in := h.newIntake()
	for room := s.roomForPage(); ; {
		select {
		case <-s.ended:
			return
		case <-h.life.Done():
			return
		case <-s.client.out.Below(room):
		}
		s.mu.Lock()
		c, wait := s.laggingLocked(time.Now())
		if c == nil {
			s.running = false
			s.mu.Unlock()
			return
		}
		c.heard = 0 // whatever was published before now is in the page
		s.mu.Unlock()
		if wait > 0 && !s.pause(h.life, wait) {
			return
		}

		err := s.turnPage(h.life, in, c)
		in.flush()
		room = s.roomForPage()
		switch {
		case err == nil, errors.Is(err, errCrowded):
		case errors.Is(err, errNoRoom):
			room = 0 // a frame that is larger than the limit needs all of it
		default:
			s.mu.Lock()
			c.wait = min(max(2*c.wait, retryMin), retryMax)
			c.retry = time.Now().Add(c.wait)
			s.mu.Unlock()
		}
	}
}

// roomForPage is how little has to wait for the client before it is sent a
// page.
func (s *subscription) roomForPage() int { return s.client.hub.settings.Load().PendingBytes / 4 }

// pause waits before the leader of a topic is asked again; it reports false when
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

// turnPage reads one page of history and queues it. The cursor is live
// afterwards when that was all there is.
func (s *subscription) turnPage(ctx context.Context, in *intake, c *cursor) error {
	from, err := s.pageStart(ctx, in, c)
	if err != nil {
		return err
	}
	page, err := s.client.hub.read(ctx, c.topic, from, min(pageBytes, max(s.roomForPage(), 1)))
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.mayTurnLocked(c); err != nil {
		return err
	}
	c.wait = 0
	if err := s.skipLocked(in, c, page.first); err != nil {
		return err
	}
	if page.end < c.next { // the history was lost, and began anew
		c.next, c.past = page.end, min(c.past, page.end)
	}
	err = page.each(func(f wire.Frame) error {
		p := &parcel{frame: f, seq: f.Sequence()}
		if p.seq+wire.Sequence(f.Count()) <= c.next {
			return nil
		}
		if err := s.skipLocked(in, c, p.seq); err != nil {
			return err
		}
		if s.crowded() {
			return errCrowded
		}
		if _, ok := s.pushFrom(in, c, p); !ok {
			return errNoRoom
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.live = c.next >= max(c.heard, page.end)
	c.quiet = false
	return nil
}

// mayTurnLocked returns nil when the client may have what comes next. It is asked for
// each page, for what was published before the subscription takes a right that it may have
// lost meanwhile.
func (s *subscription) mayTurnLocked(c *cursor) error {
	select {
	case <-s.ended:
		return errNotAllowed
	default:
	}
	if c.next < c.past && !s.client.allows(wire.ActionHistory, s.pattern) {
		return errNotAllowed
	}
	return nil
}

// pageStart returns where the next page of a cursor begins. Where the client had the
// subscription before and may not read history any more, that is not before the subscription:
// it goes on as it would had it come back now, and hears what it missed.
func (s *subscription) pageStart(ctx context.Context, in *intake, c *cursor) (wire.Sequence, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.again || c.next >= c.past || s.client.allows(wire.ActionHistory, s.pattern) {
		return c.next, nil
	}
	if c.past == unknownPast {
		s.mu.Unlock()
		end, err := s.client.hub.askEnd(ctx, c.topic)
		s.mu.Lock()
		if err != nil {
			return 0, err
		}
		c.past = min(c.past, end)
	}
	c.quiet = false // what was there before may be what it has not had
	err := s.skipLocked(in, c, c.past)
	return c.next, err
}

// replays reports whether the subscription is still in what was published before it. It
// returns when no page is being sent by what was allowed before the call.
func (s *subscription) replays() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listing {
		return s.past
	}
	for _, c := range s.cursors {
		if !c.live && c.next < c.past {
			return true
		}
	}
	return false
}

// skipLocked moves a cursor on to the first artifact that is kept, and tells
// the client what it missed.
func (s *subscription) skipLocked(in *intake, c *cursor, first wire.Sequence) error {
	if first <= c.next {
		return nil
	}
	missed := c.next
	if c.quiet {
		missed = max(missed, c.past)
	}
	if missed < first && !queued(in.pushControl(s.client.out, wire.AppendGap(nil, s.id, c.topic, missed, first-1))) {
		return errNoRoom
	}
	c.next = first
	return nil
}
