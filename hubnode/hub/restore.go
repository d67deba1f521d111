package hub

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"

	"github.com/switchboardhub/switchboard/wire"
)

// restore stores a frame of a backup where it was, on its topic's leader. It may mean
// asking another node, so it does not hold up the connection.
func (c *Client) restore(in *intake, f wire.Frame) error {
	ref := f.Ref()
	err := c.may(wire.ActionManage, string(f.Target()))
	if err == nil {
		err = c.hub.checkRestore(f)
	}
	if err != nil {
		c.deny(in, ref, err)
		return nil
	}
	if err := c.beginAsking(); err != nil {
		c.deny(in, ref, err)
		return nil
	}
	frame := wire.Frame(bytes.Clone(f))
	c.hub.spawn(func() {
		defer c.asking.Add(-1)
		ctx, cancel := context.WithTimeout(c.hub.life, askTime)
		defer cancel()
		next, err := c.hub.restore(ctx, frame)
		if err != nil {
			c.deny(nil, ref, err)
			return
		}
		c.pushControl(nil, wire.AppendFrame(nil, wire.Header{Kind: wire.KindAck, Sequence: next, Ref: ref}, "", "", nil))
	})
	return nil
}

// checkRestore looks over a frame of KindRestore: its body is empty, or a frame of
// artifacts that has the same topic and sequence.
func (h *Hub) checkRestore(f wire.Frame) error {
	if len(f.Body()) == 0 {
		return nil
	}
	inner, err := wire.ParseFrame(f.Body())
	if err != nil {
		return err
	}
	if inner.Kind() != wire.KindPublish || inner.Sequence() != f.Sequence() || !bytes.Equal(inner.Target(), f.Target()) {
		return fmt.Errorf("%w: frame of a backup", wire.ErrMalformed)
	}
	return wire.CheckRun(inner.Body(), inner.Count(), h.settings.Load().MaxArtifact)
}

// restore brings a frame of a backup to its topic's leader, and returns where the
// topic ends then.
func (h *Hub) restore(ctx context.Context, f wire.Frame) (next wire.Sequence, err error) {
	name := string(f.Target())
	node, self := h.keeper.Leader(name)
	switch {
	case self:
		return h.restoreHere(ctx, f)
	case node == "":
		return 0, h.keeper.Leaderless(name)
	}
	answer, err := h.remote.Ask(ctx, node, questionRestore, f)
	if err != nil {
		return 0, err
	}
	if len(answer) != 8 {
		return 0, fmt.Errorf("%w: answer to %s", wire.ErrMalformed, questionRestore)
	}
	return wire.Sequence(binary.BigEndian.Uint64(answer)), nil
}

func (h *Hub) answerRestore(ctx context.Context, body []byte) ([]byte, error) {
	f, err := wire.ParseFrame(body)
	if err != nil {
		return nil, err
	}
	if err := h.checkRestore(f); err != nil {
		return nil, err
	}
	next, err := h.restoreHere(ctx, f)
	return binary.BigEndian.AppendUint64(nil, uint64(next)), err
}

// restoreHere stores a frame of a backup at its sequence, and returns where the topic
// ends then. What is there already is not stored again, and has to be the same: so a
// restore that was interrupted may be begun anew. A topic begins where its first frame
// says, and goes on only where it ends.
func (h *Hub) restoreHere(ctx context.Context, f wire.Frame) (wire.Sequence, error) {
	name, first := string(f.Target()), f.Sequence()
	invalid := func(format string, args ...any) error {
		return &wire.Error{Code: wire.CodeInvalidRequest, Detail: fmt.Sprintf(format, args...)}
	}
	switch err := checkTopic(name); {
	case err != nil:
		return 0, &wire.Error{Code: wire.CodeInvalidTopic, Detail: err.Error()}
	case h.LimitsOf(name).MaxArtifacts == 0:
		return 0, invalid("topic %q keeps no history here: change the hub's settings first", name)
	case first == 0:
		return 0, invalid("a frame of a backup has a sequence")
	}
	b, err := h.keeper.Bounds(ctx, name)
	if err != nil {
		return 0, err
	}
	next, end := max(b.Next, 1), first
	var artifacts wire.Frame
	if len(f.Body()) > 0 {
		artifacts = wire.Frame(f.Body())
		end += wire.Sequence(artifacts.Count())
		if err := h.compare(artifacts, next); err != nil {
			return 0, err
		}
	}
	check := f.Flags()&wire.FlagCheck != 0
	switch {
	case end <= next, check && artifacts != nil:
		return next, nil
	case next > 1 && next < first:
		return 0, invalid("topic %q goes on at %d: artifacts from %d on can't be restored", name, next, first)
	case check:
		return next, nil
	case next < first:
		if err := h.keeper.Begin(ctx, name, first); err != nil || artifacts == nil {
			return first, err
		}
		next = first
	}
	body, err := wire.CutRun(artifacts.Body(), int(next-first), int(end-next))
	if err != nil {
		return 0, err
	}
	rest := wire.AppendFrame(nil, wire.Header{Kind: wire.KindPublish, Count: uint16(end - next)}, artifacts.Target(), artifacts.From(), body)
	return end, h.storeHere(ctx, rest, Publisher{At: next})
}

// compare returns an [wire.ArtifactDiffersError] when a topic, which this node leads and
// which ends before next, has other artifacts in the place of those of a frame.
func (h *Hub) compare(f wire.Frame, next wire.Sequence) error {
	name := string(f.Target())
	store, held := h.keeper.Held(name)
	if !held {
		return unavailable(name, h.remote.Self())
	}
	last := min(next, f.Sequence()+wire.Sequence(f.Count())) - 1
	var found error
	for at := f.Sequence(); at <= last; {
		after, _, err := eachCut(store, name, at, last, pageBytes, func(first wire.Sequence, count int, sender string, body []byte) {
			if found == nil {
				found = compareRun(f, first, count, sender, body)
			}
		})
		if err = errors.Join(err, found); err != nil {
			return err
		}
		at = after
	}
	return nil
}

// compareRun compares what a topic has with the part of a frame that is in its place.
func compareRun(f wire.Frame, first wire.Sequence, count int, sender string, body []byte) error {
	differs := &wire.ArtifactDiffersError{Topic: string(f.Target()), Sequence: first}
	own, err := wire.CutRun(f.Body(), int(first-f.Sequence()), count)
	switch {
	case err != nil:
		return err
	case sender != string(f.From()):
		return differs
	case bytes.Equal(own, body):
		return nil
	}
	mine, theirs := wire.NewRunReader(own), wire.NewRunReader(body)
	for range count {
		var a, b wire.Artifact
		if _, err := mine.Next(&a); err != nil {
			return err
		}
		if _, err := theirs.Next(&b); err != nil {
			return err
		}
		if !reflect.DeepEqual(a, b) {
			return differs
		}
		differs.Sequence++
	}
	return nil
}
