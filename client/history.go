package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

// Range is a part of a topic's history. The zero value is all of it; From, Age and
// Last narrow each other.
type Range struct {
	From wire.Sequence // the first artifact; 0: the oldest that is kept
	To   wire.Sequence // the last artifact; 0: the newest when reading begins
	// Age leaves out what is older, by the clocks of the hub's nodes. 0: nothing.
	Age time.Duration
	// Last leaves out all but the newest so many, of those there are when reading
	// begins. 0: nothing.
	Last int
}

// page is one page of history on its way from the node.
type page struct {
	frames []wire.Frame // copies
	next   wire.Sequence
	extent wire.Page
	into   any // the body of the Ack that ends it is decoded into this; nil: it has none
	err    error
}

// History reads a part of a topic's history, oldest first, and ends with what was
// the newest artifact when reading began: with everything that was acknowledged
// before. It reads on while the caller works on what there is, some hundred
// kilobytes ahead, and reconnects on the way when it has to.
//
// What retention took from the range is told by a [HistoryGapError] without an
// artifact, and what follows the gap comes next. Any other error is the last of
// the sequence: an [Error] for a topic that keeps no history, ctx's when that ends,
// with why the hub could not answer until then, a [NoQuorumError] for instance.
func (c *Client) History(ctx context.Context, topic string, r Range) iter.Seq2[*wire.Artifact, error] {
	return func(yield func(*wire.Artifact, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		var reading sync.WaitGroup
		defer reading.Wait()
		defer cancel()
		want := wire.Read{From: r.From, Age: r.Age, Last: r.Last}
		p := c.readPage(ctx, topic, want)
		for {
			if p.err != nil {
				yield(nil, fmt.Errorf("read history of %q: %w", topic, p.err))
				return
			}
			from, end := p.extent.Start, p.extent.End
			if r.To != 0 {
				end = min(end, r.To+1)
			}
			var ahead chan *page
			if p.next < end {
				ahead = make(chan *page, 1)
				after := wire.Read{From: p.next, End: p.extent.End}
				reading.Go(func() { ahead <- c.readPage(ctx, topic, after) })
			}
			if !p.yield(topic, from, min(end, p.next), yield) || ahead == nil {
				return
			}
			p = <-ahead
		}
	}
}

// yield gives the reader what the page holds of the sequences from to end, end not
// included. It reports false when the reader wants no more, or after an error.
func (p *page) yield(topic string, from, end wire.Sequence, yield func(*wire.Artifact, error) bool) bool {
	gap := func(to wire.Sequence) bool {
		return to <= from || yield(nil, &HistoryGapError{Topic: topic, From: from, To: to - 1})
	}
	if first := min(p.extent.First, end); first > from {
		if !gap(first) {
			return false
		}
		from = first
	}
	for _, f := range p.frames {
		if f.Sequence() >= end {
			break
		}
		if !gap(f.Sequence()) {
			return false
		}
		sender := wire.ClientID(f.From())
		run := wire.NewRunReader(f.Body())
		for i := range f.Count() {
			a := &wire.Artifact{}
			if ok, err := run.Next(a); err != nil || !ok {
				yield(nil, fmt.Errorf("read history of %q: %w", topic, orMalformed(err)))
				return false
			}
			seq := f.Sequence() + wire.Sequence(i)
			if seq < from || seq >= end {
				continue
			}
			a.Topic, a.From, a.Sequence = topic, sender, seq
			a.Payload = bytes.Clone(a.Payload)
			if !yield(a, nil) {
				return false
			}
			from = seq + 1
		}
	}
	return gap(end)
}

// readPage asks for a page until it gets one or ctx ends.
func (c *Client) readPage(ctx context.Context, topic string, want wire.Read) *page {
	for round := 0; ; round++ {
		p := c.readPageOnce(ctx, topic, want)
		if p.err == nil || ctx.Err() != nil || !errors.Is(p.err, errLinkLost) && !temporary(p.err) {
			return p
		}
		if !sleep(ctx, c.wait(round)) {
			p.err = errors.Join(ctx.Err(), p.err)
			return p
		}
	}
}

func (c *Client) readPageOnce(ctx context.Context, topic string, want wire.Read) *page {
	body, err := json.Marshal(want)
	if err != nil {
		return &page{err: err}
	}
	var extent wire.Page
	p := c.exchange(ctx, wire.KindRead, topic, body, &extent)
	p.extent = extent
	return p
}

// exchange sends a frame whose answer is frames of artifacts and then an Ack.
func (c *Client) exchange(ctx context.Context, kind wire.Kind, topic string, body []byte, into any) *page {
	p, ref := &page{into: into}, c.out.newRef()
	c.mu.Lock()
	c.pages[ref] = p
	c.mu.Unlock()
	answer := c.out.control(wire.Header{Kind: kind, Ref: ref}, topic, body, true)
	select {
	case <-answer.done:
		if answer.err != nil {
			p.err = answer.err
		}
	case <-ctx.Done():
		p = &page{err: c.out.forget(answer, ctx.Err())} // the other one may still be written to
	}
	c.mu.Lock()
	delete(c.pages, ref)
	c.mu.Unlock()
	return p
}

// paged takes a frame that may be of a page, or end one.
func (c *Client) paged(f wire.Frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.pages[f.Ref()]
	switch {
	case p == nil:
	case f.Kind() == wire.KindPublish:
		p.frames = append(p.frames, bytes.Clone(f))
	case f.Kind() == wire.KindAck:
		p.next = f.Sequence()
		if p.into != nil {
			p.err = wire.DecodeControl(f, p.into)
		}
	}
}
