package client

import (
	"context"
	"errors"
	"fmt"

	"github.com/switchboardhub/switchboard/wire"
)

// Ack is the coming acknowledgement of one artifact. The zero value is that of
// an artifact which needs none.
type Ack struct {
	promise *promise
	index   int // in its frame
}

// done is closed for what needs no acknowledgement.
var alreadyDone = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// Done is closed when the answer is there.
func (a Ack) Done() <-chan struct{} {
	if a.promise == nil {
		return alreadyDone
	}
	return a.promise.done
}

// Wait returns the artifact's sequence, 0 where no history is kept, or why it
// was refused; ctx's error when that ends first, which takes nothing back.
func (a Ack) Wait(ctx context.Context) (wire.Sequence, error) {
	if a.promise == nil {
		return 0, nil
	}
	select {
	case <-a.promise.done:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	before, out := a.promise.place(a.index)
	switch {
	case out:
		return 0, a.promise.out[before].err
	case a.promise.err != nil || a.promise.first == 0:
		return 0, a.promise.err
	}
	return a.promise.first + wire.Sequence(a.index-before), nil
}

// Publish publishes an artifact and waits until the hub has it: it returns its
// sequence where the topic keeps history, 0 where it does not. Publishes to a
// topic that is known to be live return once they are queued. The artifact may
// be used again afterwards; its route is not looked at, and an ID and a Time
// are given where there are none.
//
// What is temporarily impossible is tried again, also across reconnects, until
// ctx ends; the artifact may then be published nevertheless. What is sent more
// than once is stored once, where the topic keeps history; where it does not, nothing
// is sent again that may have been delivered, and Publish returns a
// [ConnectionLostError]: when the connection was lost before the acknowledgement, and
// the session with it. (Nodes of earlier versions deliver it again.) The error then wraps
// ctx's and, when the hub said why, its: a [NoQuorumError] for instance. Concurrent
// publishes share frames, so many goroutines are fast too.
//
// A disk that is nearly full, or a namespace whose topics keep as much as they may, is
// told at once, by an [Error] with CodeStorageFull: nothing was stored.
func (c *Client) Publish(ctx context.Context, topic string, a *wire.Artifact) (wire.Sequence, error) {
	if err := checkTopic(topic); err != nil {
		return 0, err
	}
	own := *a
	for round := 0; ; round++ {
		p, i, err := c.out.add(ctx, wire.KindPublish, topic, &own, false)
		if err != nil {
			return 0, fmt.Errorf("publish to %q: %w", topic, err)
		}
		seq, err := c.await(ctx, p, i)
		switch {
		case err == nil:
			return seq, nil
		case passing(err) && sleep(ctx, c.wait(round)):
			continue
		}
		return 0, fmt.Errorf("publish to %q: %w", topic, err)
	}
}

// PublishAsync publishes an artifact without waiting for its acknowledgement.
// Those to one topic keep their order, also across reconnects. It blocks while
// as many artifacts are in flight as [WithInFlight] allows, or too many bytes
// wait to be written. What is temporarily impossible is
// tried again, in order, until the client is closed; otherwise [Ack] tells the errors of
// Publish. An artifact that the topic's filter refuses, or that is too large, takes no other
// one with it, unless its node is of an earlier version.
func (c *Client) PublishAsync(ctx context.Context, topic string, a *wire.Artifact) (Ack, error) {
	if err := checkTopic(topic); err != nil {
		return Ack{}, err
	}
	own := *a
	p, i, err := c.out.add(ctx, wire.KindPublish, topic, &own, true)
	if err != nil {
		return Ack{}, fmt.Errorf("publish to %q: %w", topic, err)
	}
	return Ack{p, i}, nil
}

// Flush waits until the node has everything that was published and sent before,
// and every acknowledgement of it is there, refusals included: those are told
// by their [Ack].
func (c *Client) Flush(ctx context.Context) error {
	err := c.flush(ctx.Done())
	if errors.Is(err, errStopped) {
		return ctx.Err()
	}
	return err
}

// flush is Flush; it returns errStopped when stop is closed first.
func (c *Client) flush(stop <-chan struct{}) error {
	upTo := c.out.last()
	for {
		ping := c.out.control(wire.Header{Kind: wire.KindPing}, "", nil, true)
		select {
		case <-ping.done:
		case <-stop:
			return errStopped
		}
		if ping.err == nil {
			break
		}
		if !errors.Is(ping.err, errLinkLost) {
			return ping.err
		}
	}
	return c.out.waitSettled(stop, upTo, false)
}

// await waits for an answer and takes back what can be when ctx ends first.
func (c *Client) await(ctx context.Context, p *promise, index int) (wire.Sequence, error) {
	seq, err := Ack{p, index}.Wait(ctx)
	if err != nil && p != nil && ctx.Err() != nil {
		err = c.out.forget(p, err)
	}
	return seq, err
}

func checkTopic(topic string) error {
	if topic == "" || len(topic) > wire.MaxTopic {
		return &wire.Error{Code: wire.CodeInvalidTopic, Detail: fmt.Sprintf("topic %.64q: want 1 to %d bytes", topic, wire.MaxTopic)}
	}
	return nil
}
