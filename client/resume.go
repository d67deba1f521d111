package client

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/switchboardhub/switchboard/wire"
)

// earlyMax bounds the bytes that wait for the acknowledgement of a resumed
// subscription.
const earlyMax = 1 << 20

// subscribed handles the node's answer to a Subscribe; mine is false when the
// frame answers something else, and ok when the connection ended meanwhile.
func (c *Client) subscribed(l *link, f wire.Frame, err error) (mine, ok bool) {
	s := c.subscription(f.Ref())
	if s == nil || s.id == 0 {
		return false, true
	}
	var ack wire.Subscribed
	if err == nil {
		err = wire.DecodeControl(f, &ack)
	}
	s.mu.Lock()
	answer := s.answer
	s.answer = nil
	var early []wire.Frame
	if err == nil {
		s.confirmLocked(&ack, &l.welcome)
		early, s.early, s.earlyN = s.early, nil, 0
	}
	s.mu.Unlock()
	switch {
	case answer != nil:
		c.out.expect(-1)
		answer <- err
	case err != nil:
		c.lostSubscription(l, s, err)
	}
	return true, s.acceptAll(l, early)
}

// lostSubscription handles the refusal of a subscription that was there before
// the connection was lost.
func (c *Client) lostSubscription(l *link, s *Subscription, err error) {
	c.report(fmt.Errorf("subscribe to %q again: %w", s.pattern, err))
	if !temporary(err) {
		c.remove(s)
		s.end(err)
		return
	}
	c.wg.Go(func() {
		if !sleep(s.ctx, c.wait(1)) {
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.up && c.link == l && c.subs[s.id] == s { // another connection began with it
			c.subscribeLocked(s)
		}
	})
}

func (c *Client) subscription(id uint32) *Subscription {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.subs[id]
}

// deliver queues a frame of artifacts, or a gap, for its subscription. It
// reports false when the connection ended before there was room.
func (c *Client) deliver(l *link, f wire.Frame) bool {
	s := c.subscription(f.Ref())
	if s == nil {
		c.paged(f)
		return true // or unsubscribed while the frame was on its way
	}
	held, early := s.hold(f)
	if held {
		return s.acceptAll(l, early)
	}
	return s.accept(l, f) != ended
}

// hold keeps a frame back while the subscription resumes: until the node has
// said where it goes on, a low sequence may be a repeat or the start of a new
// history. When too much is held back, it is given up on and returned.
func (s *Subscription) hold(f wire.Frame) (held bool, early []wire.Frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.resuming {
		return false, nil
	}
	s.early = append(s.early, bytes.Clone(f))
	s.earlyN += len(f)
	if s.earlyN > earlyMax {
		s.resuming = false
		early, s.early, s.earlyN = s.early, nil, 0
	}
	return true, early
}

func (s *Subscription) acceptAll(l *link, frames []wire.Frame) bool {
	for _, f := range frames {
		switch s.accept(l, f) {
		case ended:
			return false
		case refused: // as the rest would be
			return true
		case taken:
		}
	}
	return true
}

// accept queues what of a frame was not received before, and moves the
// position once it is queued. When it is refused, the subscription is paused.
func (s *Subscription) accept(l *link, f wire.Frame) verdict {
	if f.Kind() == wire.KindGap {
		return s.acceptGap(l, f)
	}
	first := f.Sequence()
	end := first + wire.Sequence(f.Count())
	skip := 0
	var at *position
	if first != 0 && s.tracks() {
		at = s.position(f.Target(), first)
	}
	if at != nil {
		switch next := at.next; {
		case end <= next:
			return taken
		case first < next:
			skip = int(next - first)
		}
	}
	s.mixed = s.mixed || first == 0
	d, size := delivery{frame: bytes.Clone(f), skip: skip}, len(f)+itemOverhead
	v := put(s.client, l, &s.queue, d, size)
	switch v {
	case ended:
		return ended
	case refused:
		if at == nil { // nothing keeps it
			s.queue.whenEased(f.Count())
			return taken
		}
		if s.pause() {
			return refused
		}
		s.queue.press(d, size, anyway)
	case taken:
	}
	s.move(at, end)
	return taken
}

func (s *Subscription) acceptGap(l *link, f wire.Frame) verdict {
	gap, err := wire.ParseGap(f)
	if err != nil {
		s.client.report(err)
		return taken
	}
	d := delivery{gap: gap}
	switch put(s.client, l, &s.queue, d, itemOverhead) {
	case ended:
		return ended
	case refused:
		s.queue.press(d, itemOverhead, anyway) // they are few
	case taken:
	}
	if s.tracks() {
		s.move(s.position(f.Target(), gap.From), gap.To+1)
	}
	return taken
}

// position returns where the subscription is in a topic, which is first when it is new to
// us, and nil when that can't be kept. It is changed by the connection's reader alone, under
// the lock.
func (s *Subscription) position(topic []byte, first wire.Sequence) *position {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.next.get(topic); p != nil {
		return p
	}
	return s.next.add(string(topic), first)
}

func (s *Subscription) move(p *position, next wire.Sequence) {
	if p == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.next = max(p.next, next)
}

// handle gives a queued delivery to the handler; it runs on the queue's
// goroutine.
func (s *Subscription) handle(d delivery) {
	if d.gap != nil {
		if s.onGap != nil {
			s.onGap(d.gap)
		} else {
			s.client.report(d.gap)
		}
		return
	}
	f := d.frame
	if s.topic != string(f.Target()) {
		s.topic = string(f.Target())
	}
	if s.from != string(f.From()) {
		s.from = string(f.From())
	}
	artifacts := make([]wire.Artifact, f.Count())
	r := wire.NewRunReader(f.Body())
	for i := range artifacts {
		a := &artifacts[i]
		ok, err := r.Next(a)
		if err != nil || !ok {
			s.client.report(fmt.Errorf("artifacts on %q can't be read: %w", s.topic, orMalformed(err)))
			return
		}
		if i < d.skip {
			continue
		}
		if s.ctx.Err() != nil {
			return
		}
		a.Topic, a.From = s.topic, s.from
		a.Payload = slices.Clip(a.Payload) // its neighbour's bytes follow
		if first := f.Sequence(); first != 0 {
			a.Sequence = first + wire.Sequence(i)
		}
		if err := s.handler(s.ctx, a); err != nil {
			s.client.report(fmt.Errorf("handler of %q: %w", s.pattern, err))
		}
	}
}

// orMalformed names the error of a frame that holds less than it says.
func orMalformed(err error) error {
	if err == nil {
		return wire.ErrMalformed
	}
	return err
}
