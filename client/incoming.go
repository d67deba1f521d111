package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

// read handles what the node sends until the connection ends, and returns why
// it did. It blocks while a handler's queue is full and nobody waits for an answer.
func (c *Client) read(l *link) error {
	for {
		f, err := l.reader.Next()
		if err != nil {
			switch {
			case l.reason != nil:
				return l.reason
			case errors.Is(err, io.EOF):
				return fmt.Errorf("node %q closed the connection", l.welcome.Node)
			}
			return fmt.Errorf("read from node %q: %w", l.welcome.Node, err)
		}
		if !c.take(l, f) {
			return l.reason
		}
	}
}

// take handles one frame and, when the session keeps it, counts it; false ends the
// connection. What comes while the client leaves is not counted, so the node tells who
// waits for an answer that nobody has it.
func (c *Client) take(l *link, f wire.Frame) bool {
	kept := f.Flags()&wire.FlagKept != 0
	if kept {
		c.session.taking.Lock()
		defer c.session.taking.Unlock()
	}
	if kept && c.session.repeats > 0 {
		c.session.repeats--
		return true
	}
	leaving := c.isLeaving()
	if leaving && f.Kind() == wire.KindSend {
		return true
	}
	if !c.dispatch(l, f) {
		return false
	}
	if kept && !leaving {
		c.took(f)
	}
	return true
}

// dispatch handles one frame; false ends the connection.
func (c *Client) dispatch(l *link, f wire.Frame) bool {
	switch f.Kind() {
	case wire.KindPublish, wire.KindGap:
		return c.deliver(l, f)
	case wire.KindSend:
		return c.receive(l, f)
	case wire.KindReply:
		c.answered(f)
	case wire.KindAck:
		mine, ok := c.subscribed(l, f, nil)
		if !mine {
			c.paged(f)
			c.out.settle(f.Ref(), f.Sequence(), f.Flags(), nil, nil)
		}
		return ok
	case wire.KindError:
		return c.refused(l, wire.ParseFault(f.Body()).Err(), f)
	case wire.KindPing:
		c.tellReceived()
		c.out.askSoon()
		c.out.control(wire.Header{Kind: wire.KindPong, Ref: f.Ref()}, "", nil, false)
	case wire.KindPong:
		if !c.out.proved(f.Ref()) {
			c.out.settle(f.Ref(), 0, 0, nil, nil)
		}
	case wire.KindDrain:
		c.drain(l, f)
	case wire.KindGoodbye:
		if len(f.Body()) > 0 {
			l.reason = wire.ParseFault(f.Body()).Err()
		}
	case wire.KindSettings:
		c.out.forgetLive()
	case wire.KindLost:
		c.distrustWatches()
		c.report(&DroppedError{Artifacts: uint64(f.Sequence())})
	default: // of a later version: nothing that this one asked for
	}
	return true
}

// refused hands an error to whom it is for; ref 0 is the connection.
func (c *Client) refused(l *link, err error, f wire.Frame) bool {
	if f.Ref() == 0 {
		l.reason = err
		return false
	}
	switch mine, _ := c.subscribed(l, f, err); {
	case mine:
	case f.Flags()&wire.FlagEach != 0 && c.out.refuseSome(f.Ref(), wire.ParseFault(f.Body()).Artifacts, err):
	case c.out.settle(f.Ref(), 0, 0, nil, err):
	default: // a publish that nobody waits for
		c.out.forgetLive() // its topic has rules by now
		c.report(fmt.Errorf("artifact refused: %w", err))
	}
	return true
}

// drain moves the client to another node. Where its session can't follow it stops
// writing and gives what is in flight some time first.
func (c *Client) drain(l *link, f wire.Frame) {
	var r wire.Redirect
	if err := wire.DecodeControl(f, &r); err != nil {
		c.report(err)
	}
	l.mu.Lock()
	again := l.leaving
	l.leaving, l.redirect = true, r.Addresses
	l.mu.Unlock()
	if again {
		return
	}
	c.wg.Go(func() {
		ctx, cancel := context.WithTimeout(c.life, drainJitter+drainTimeout)
		defer cancel()
		if !sleep(ctx, jitter(drainJitter)) {
			return
		}
		if l.welcome.ResumeWindow > 0 {
			l.close() // the session follows, with what is in flight
			return
		}
		c.out.pause()
		_ = c.out.waitSettled(ctx.Done(), c.out.last(), true) // leaves at the latest when its time is up
		select {
		case <-l.done: // it was lost in the meantime, or the client has ended
		default:
			c.leave(l)
		}
	})
}

// verdict is what became of something that the node has sent.
type verdict uint8

const (
	ended   verdict = iota // the connection ended before there was room
	taken                  // it is queued, or not wanted
	refused                // too much waits, and the reader has to go on
)

// put queues an item. When there is no room it waits for some, so that the node hears
// of a slow handler, and pings in the meantime so that it does not take this client for
// dead. But it does not wait while somebody waits for an answer, which only the reader
// can bring: that may be the very handler. Then as much again may wait, and what finds
// no room there either is refused.
func put[T any](c *Client, l *link, q *inbox[T], item T, size int) verdict {
	full := q.offer(item, size)
	if full == nil {
		return taken
	}
	const defaultInterval = 5 * time.Second
	interval := time.Duration(l.welcome.PingInterval) * time.Millisecond
	if interval <= 0 {
		interval = defaultInterval
	}
	t := time.NewTicker(max(interval/2, 10*time.Millisecond))
	defer t.Stop()
	for full != nil {
		asked := c.out.asked()
		if asked == nil {
			if q.press(item, size, 2*q.limit) {
				return taken
			}
			return refused
		}
		select {
		case <-full:
			full = q.offer(item, size)
		case <-asked:
		case <-t.C:
			c.out.control(wire.Header{Kind: wire.KindPing}, "", nil, false)
		case <-l.done:
			return ended
		}
	}
	return taken
}

// anyway is how much may wait in an inbox that has to take an item.
const anyway = math.MaxInt
