package hub

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math"
	"strconv"

	"github.com/switchboardhub/switchboard/hubnode/durable"
	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/hubnode/topic"
	"github.com/switchboardhub/switchboard/wire"
)

// bury publishes artifacts that were given out too often to the dead-letter topic,
// and settles them once they are stored there. What can't be stored now is tried
// again when its time is up.
func (h *Hub) bury(q fetchQuestion, dead []wire.Work) {
	ctx, cancel := context.WithTimeout(h.life, askTime)
	defer cancel()
	policy := q.Fetch.Policy
	log := h.log.With(slog.String("topic", q.Topic), slog.String("durable", q.Fetch.Name))
	for _, w := range dead {
		settled := durable.Bury(policy, []wire.Work{w})
		if policy.DeadLetter == "" {
			h.metrics.dropped(dropGivenUp, int(w.To-w.From)+1)
			log.Warn("artifacts given up: they were delivered too often", slog.Uint64("from", uint64(w.From)), slog.Uint64("to", uint64(w.To)))
		} else if gone, err := h.moveTo(ctx, policy.DeadLetter, q, w); err == nil {
			settled = durable.Bury(policy, without(w, gone))
			settled.Released = gone // retention took it: it is lost, and counted
		} else {
			log.Warn("artifacts not moved to the dead-letter topic: tried again", slog.String("dead_letter", policy.DeadLetter), logError(err))
			continue
		}
		if _, err := h.keeper.Fetch(ctx, q.Topic, q.Fetch.Name, settled); err != nil {
			log.Warn("artifacts given up, but not settled: they may be given up twice", logError(err))
		}
	}
}

// moveTo stores copies of artifacts on another topic, and returns those that retention has
// taken.
func (h *Hub) moveTo(ctx context.Context, target string, q fetchQuestion, w wire.Work) (gone []wire.Range, err error) {
	store, held := h.keeper.Held(q.Topic)
	if !held {
		return nil, unavailable(q.Topic, h.remote.Self())
	}
	for next := w.From; next <= w.To; {
		var frames []wire.Frame
		after, taken, err := eachCut(store, q.Topic, next, w.To, pageBytes, func(first wire.Sequence, count int, from string, body []byte) {
			frames = append(frames, wire.AppendFrame(nil, wire.Header{Kind: wire.KindPublish, Count: uint16(count), Sequence: first}, q.Topic, from, body))
		})
		if err != nil {
			return nil, err
		}
		for _, f := range frames {
			letter, err := deadLetter(f, target, q.Fetch.Name, w.Deliveries)
			if err == nil {
				err = h.storeAnywhere(ctx, letter)
			}
			if err != nil {
				return nil, err
			}
		}
		gone = append(gone, taken...)
		next = after
	}
	return gone, nil
}

// deadLetter returns a frame of artifacts for the dead-letter topic: as they were,
// with attributes that say where they come from, where there is room for those.
func deadLetter(f wire.Frame, target, name string, deliveries int) (wire.Frame, error) {
	var run wire.Run
	var a wire.Artifact
	r := wire.NewRunReader(f.Body())
	for i := range f.Count() {
		if ok, err := r.Next(&a); err != nil || !ok {
			return nil, errors.Join(wire.ErrMalformed, err)
		}
		plain := a
		a.Attributes = make(map[string]string, len(plain.Attributes)+4)
		maps.Copy(a.Attributes, plain.Attributes)
		a.Attributes[wire.AttributeDeadTopic] = string(f.Target())
		a.Attributes[wire.AttributeDeadSequence] = strconv.FormatUint(uint64(f.Sequence())+uint64(i), 10)
		a.Attributes[wire.AttributeDeadDurable] = name
		a.Attributes[wire.AttributeDeadDeliveries] = strconv.Itoa(deliveries)
		if run.Append(&a, math.MaxInt) == nil {
			continue
		}
		if err := run.Append(&plain, math.MaxInt); err != nil {
			return nil, err
		}
	}
	return wire.AppendFrame(nil, wire.Header{Kind: wire.KindPublish, Count: uint16(run.Count())}, target, string(f.From()), run.Body()), nil
}

// storeAnywhere stores a frame with its topic's leader.
func (h *Hub) storeAnywhere(ctx context.Context, f wire.Frame) error {
	name := string(f.Target())
	node, self := h.keeper.Leader(name)
	switch {
	case self:
		return h.storeHere(ctx, f, Publisher{})
	case node == "":
		return h.keeper.Leaderless(name)
	}
	_, err := h.remote.Ask(ctx, node, questionStore, f)
	return err
}

// storeHere stores a frame on a topic that this node leads.
func (h *Hub) storeHere(ctx context.Context, f wire.Frame, by Publisher) error {
	done := make(chan error, 1)
	err := h.keeper.Append(f, 0, by, func(_ *Stage, _ wire.Sequence, err error) { done <- err })
	if err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// answerStore stores a frame that another node sent.
func (h *Hub) answerStore(ctx context.Context, body []byte) error {
	f, err := wire.ParseFrame(body)
	if err != nil {
		return err
	}
	if err := wire.CheckRun(f.Body(), f.Count(), math.MaxInt); err != nil {
		return err
	}
	if err := checkTopic(string(f.Target())); err != nil {
		return err
	}
	return h.storeHere(ctx, f, Publisher{})
}

// eachCut visits what a store holds of a topic from a sequence to another, included,
// as runs that begin and end there. It returns where to read on, which is behind from, and
// what retention took of what lies before that.
func eachCut(store history.Store, name string, from, to wire.Sequence, maxBytes int, visit func(first wire.Sequence, count int, sender string, body []byte)) (next wire.Sequence, gone []wire.Range, err error) {
	var failed error
	at := from // what is before it was visited, or is gone
	reach := func(first wire.Sequence) {
		if first > at {
			gone = append(gone, wire.Range{From: at, To: first - 1})
			at = first
		}
	}
	_, err = store.Read(name, from, maxBytes, func(run history.Run) {
		first, last := max(run.First, from), min(run.First+wire.Sequence(run.Count)-1, to)
		reach(min(first, to+1))
		if first > last || failed != nil {
			return
		}
		count := int(last-first) + 1
		body, err := wire.CutRun(run.Body, int(first-run.First), count)
		if err != nil {
			failed = err
			return
		}
		visit(first, count, run.From, body)
		at = last + 1
	})
	if at == from { // there is nothing left
		reach(to + 1)
	}
	return at, gone, errors.Join(err, failed)
}

// without returns the parts of some work that are not gone.
func without(w wire.Work, gone []wire.Range) []wire.Work {
	var f fetched
	f.give(w, w.From, w.To, gone)
	return f.Given
}

// add adds artifacts to what a member was given, as eachCut does.
func (f *fetched) add(store history.Store, name string, from, to wire.Sequence, maxBytes int) (next wire.Sequence, gone []wire.Range, err error) {
	return eachCut(store, name, from, to, maxBytes, func(first wire.Sequence, count int, sender string, body []byte) {
		h := wire.Header{Kind: wire.KindPublish, Count: uint16(count), Sequence: first}
		f.frames = wire.AppendFrame(f.frames, h, name, sender, body)
	})
}

var errSystemTopic = errors.New("names that start with '$' are for the hub itself")

func checkTopic(name string) error {
	if isSystem(name) {
		return errSystemTopic
	}
	return topic.CheckName(name)
}
