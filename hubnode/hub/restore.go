package hub

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"github.com/switchboardhub/switchboard/wire"
)

// restorer is the publisher of what is restored, whose frames are numbered by where
// they end: one that is sent again before the first is stored is stored once.
const restorer = 1

// restore stores a frame of a backup where it was, on its topic's leader. It may mean
// asking another node, so it does not hold up the connection.
func (c *Client) restore(in *intake, f wire.Frame) error {
	ref := f.Ref()
	if err := c.hub.checkRestore(f); err != nil {
		c.deny(in, ref, err)
		return nil
	}
	if c.asking.Add(1) > askingMax {
		c.asking.Add(-1)
		c.deny(in, ref, overloaded("too many questions at a time: wait for the answers"))
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

// restoreHere stores a frame of a backup at its sequence. A topic begins where its
// first frame says; one that was there before goes on only where the frame begins. A
// frame that is there already is not stored again, so that it may be sent again.
func (h *Hub) restoreHere(ctx context.Context, f wire.Frame) (wire.Sequence, error) {
	name := string(f.Target())
	if err := checkTopic(name); err != nil {
		return 0, &wire.Error{Code: wire.CodeInvalidTopic, Detail: err.Error()}
	}
	if h.LimitsOf(name).MaxArtifacts == 0 {
		return 0, &wire.Error{Code: wire.CodeInvalidRequest, Detail: fmt.Sprintf("topic %q keeps no history here: change the hub's settings first", name)}
	}
	b, err := h.keeper.Bounds(ctx, name)
	if err != nil {
		return 0, err
	}
	var artifacts wire.Frame
	first, end := f.Sequence(), f.Sequence()
	if len(f.Body()) > 0 {
		artifacts = wire.Frame(f.Body())
		end += wire.Sequence(artifacts.Count())
	}
	switch {
	case first == 0:
		return 0, &wire.Error{Code: wire.CodeInvalidRequest, Detail: "a frame of a backup has a sequence"}
	case b.Next >= end && b.Next > 1:
		return b.Next, nil
	case b.Next <= 1 && first > 1:
		if err := h.keeper.Begin(ctx, name, first); err != nil {
			return 0, err
		}
	case max(b.Next, 1) != first:
		return 0, &wire.Error{Code: wire.CodeInvalidRequest, Detail: fmt.Sprintf("topic %q goes on at %d: artifacts from %d on can't be restored", name, b.Next, first)}
	}
	if artifacts == nil {
		return end, nil
	}
	return end, h.storeHere(ctx, artifacts, Publisher{ID: restorer, Number: uint64(end), Oldest: true})
}
