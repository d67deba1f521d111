package hub

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/hubnode/topic"
	"github.com/switchboardhub/switchboard/wire"
)

// page is a stretch of a topic's history: whole frames, from the one that
// holds the sequence asked for.
type page struct {
	first  wire.Sequence // the first one that is kept
	end    wire.Sequence // the one after the last, when the page was made
	frames []byte
}

func (p *page) each(visit func(wire.Frame) error) error {
	for rest := p.frames; len(rest) > 0; {
		if len(rest) < wire.HeaderSize {
			return fmt.Errorf("%w: page of history", wire.ErrMalformed)
		}
		n := uint64(binary.BigEndian.Uint32(rest)) + 4
		if n > uint64(len(rest)) {
			return fmt.Errorf("%w: page of history", wire.ErrMalformed)
		}
		f, err := wire.ParseFrame(rest[:n])
		if err != nil {
			return err
		}
		if err := visit(f); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

func (p *page) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(p.first))
	b = binary.BigEndian.AppendUint64(b, uint64(p.end))
	return append(b, p.frames...)
}

func decodePage(b []byte) (*page, error) {
	if len(b) < 16 {
		return nil, fmt.Errorf("%w: page of history", wire.ErrMalformed)
	}
	return &page{
		first:  wire.Sequence(binary.BigEndian.Uint64(b)),
		end:    wire.Sequence(binary.BigEndian.Uint64(b[8:])),
		frames: b[16:],
	}, nil
}

// readStore makes a page of what this node holds of a topic.
func readStore(store history.Store, name string, from wire.Sequence, maxBytes int) (*page, error) {
	p := &page{}
	_, err := store.Read(name, from, maxBytes, func(run history.Run) {
		h := wire.Header{Kind: wire.KindPublish, Count: uint16(run.Count), Sequence: run.First}
		p.frames = wire.AppendFrame(p.frames, h, []byte(name), []byte(run.From), run.Body)
	})
	if err != nil {
		return nil, err
	}
	// Taken last: what was appended meanwhile makes the reader come again.
	b, _, err := store.Bounds(name)
	p.first, p.end = b.First, b.Next
	return p, err
}

// read returns a page of a topic's history. Most of a long history comes from
// this node, when it has a replica; the end of it from the leader, who alone knows
// that it is the end.
func (h *Hub) read(ctx context.Context, name string, from wire.Sequence, maxBytes int) (*page, error) {
	node, self := h.keeper.Leader(name)
	store, held := h.keeper.Held(name)
	if held {
		b, ok, err := store.Bounds(name)
		switch {
		case self && err != nil:
			return nil, err
		case self && !ok:
			return &page{first: 1, end: 1}, nil // nothing was ever published
		case self:
			return readStore(store, name, from, maxBytes)
		case err != nil || !ok:
		case b.First <= from && from < b.Next:
			p, err := readStore(store, name, from, maxBytes)
			if err == nil {
				p.end++ // whether that is the end the leader says
				return p, nil
			}
		}
	}
	switch {
	case node == "":
		return nil, h.keeper.Leaderless(name)
	case self: // its replica is being made anew, and another node will lead
		return nil, unavailable(name, node)
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	return h.askPage(ctx, node, name, from, maxBytes)
}

// topicStart is where a subscription starts in one topic.
type topicStart struct {
	Topic string        `json:"topic"`
	Start wire.Sequence `json:"start"`
	First wire.Sequence `json:"first,omitempty"` // the first one that is kept; nodes of an earlier version don't say
	End   wire.Sequence `json:"end"`             // the sequence that comes next
}

// goOn changes where a subscription starts to where it says itself.
func (at *topicStart) goOn(want *wire.Subscription) {
	next, named := want.Positions[at.Topic]
	if !named && want.Others {
		return
	}
	first := at.First
	if !want.Others {
		first = at.Start // it was asked for
	}
	at.Start = max(next, 1)
	if at.Start > at.End { // of a history that was lost: this one is new to the client
		at.Start = max(first, 1)
	}
}

// listRequest asks a node which topics with history it knows, and where a
// subscription starts in them.
type listRequest struct {
	Pattern string            `json:"pattern"`
	Want    wire.Subscription `json:"want"`
	Led     bool              `json:"led"` // the answer is to be a listAnswer: nodes of an earlier version are content with its starts
}

// listAnswer is what one node knows.
type listAnswer struct {
	Starts []topicStart `json:"starts"`
	Led    []int        `json:"led"` // the shards of whose topics these are all
}

// UnmarshalJSON also takes the starts alone, with which nodes of an earlier version answer.
// They don't say of which shards they know all.
func (a *listAnswer) UnmarshalJSON(text []byte) error {
	if err := json.Unmarshal(text, &a.Starts); err == nil {
		return nil
	}
	type plain listAnswer
	return json.Unmarshal(text, (*plain)(a))
}

// list returns where a subscription starts in each topic with history that its
// pattern matches. complete is false when that may not be all: the leader of a shard could
// not be asked, or there is none.
func (h *Hub) list(ctx context.Context, pattern string, want wire.Subscription) (starts []topicStart, complete bool) {
	if want.Positions == nil {
		return h.listStarts(ctx, pattern, want)
	}
	asked := want
	asked.Positions = nil // there may be many, and the leaders need not know
	if !want.Others {
		asked.Since = wire.SinceAll
	}
	starts, complete = h.listStarts(ctx, pattern, asked)
	for i := range starts {
		starts[i].goOn(&want)
	}
	return starts, complete
}

// listStarts is list for a subscription that begins.
func (h *Hub) listStarts(ctx context.Context, pattern string, want wire.Subscription) (starts []topicStart, complete bool) {
	request := listRequest{Pattern: pattern, Want: want, Led: true}
	if topic.IsLiteral(pattern) {
		if limits, _ := h.settings.Load().rule(pattern); limits.MaxArtifacts == 0 {
			return nil, true
		}
		switch node, self := h.keeper.Leader(pattern); {
		case self:
			here, err := h.listHere(ctx, request)
			return here.Starts, err == nil
		case node == "":
			return nil, false
		default:
			there, err := h.askList(ctx, node, request)
			return there.Starts, err == nil
		}
	}
	furthest, led := make(map[string]topicStart), make(map[int]bool)
	add := func(some listAnswer) {
		for _, s := range some.Starts {
			if have, ok := furthest[s.Topic]; !ok || s.End > have.End {
				furthest[s.Topic] = s
			}
		}
		for _, shard := range some.Led {
			led[shard] = true
		}
	}
	here, err := h.listHere(ctx, request)
	add(here)
	all := h.askAll(ctx, func(ctx context.Context, node string) (func(), error) {
		there, err := h.askList(ctx, node, request)
		return func() { add(there) }, err
	})
	for _, s := range furthest {
		starts = append(starts, s)
	}
	return starts, all && err == nil && len(led) == h.keeper.ShardCount()
}

// listHere answers a listRequest for the topics that this node leads.
func (h *Hub) listHere(ctx context.Context, q listRequest) (listAnswer, error) {
	if topic.IsLiteral(q.Pattern) {
		if err := topic.CheckName(q.Pattern); err != nil {
			return listAnswer{}, err
		}
		b, err := h.keeper.Bounds(ctx, q.Pattern)
		if err != nil {
			return listAnswer{}, err
		}
		at, err := h.startIn(q.Pattern, b, q.Want)
		if err != nil {
			return listAnswer{}, err
		}
		return listAnswer{Starts: []topicStart{at}}, nil
	}
	var (
		starts []topicStart
		errs   []error
	)
	led, err := h.keeper.Led(ctx, func(name string, b history.Bounds) {
		if topic.Match(q.Pattern, name) && h.LimitsOf(name).MaxArtifacts > 0 {
			at, err := h.startIn(name, b, q.Want)
			starts, errs = append(starts, at), append(errs, err)
		}
	})
	return listAnswer{starts, led}, errors.Join(append(errs, err)...)
}

// startIn returns where a subscription starts in one topic. What is stored later
// than b was taken finds the subscription, which was made known before. With an error it is
// where history starts: what can't be told to be too old is not left out.
func (h *Hub) startIn(name string, b history.Bounds, want wire.Subscription) (topicStart, error) {
	at := topicStart{Topic: name, Start: b.Next, First: b.First, End: b.Next}
	switch {
	case want.Positions != nil: // a node of an earlier version asks
		at.Start = max(want.Positions[name], 1)
		if at.Start > b.Next { // of a history that was lost: this one is new to the client
			at.Start = b.First
		}
	case want.Since == wire.SinceAll:
		at.Start = b.First
	case want.Since == wire.SinceLast:
		if b.Next > b.First {
			at.Start = b.Next - 1
		}
	case want.Since == wire.SinceSequence:
		at.Start = min(max(want.Sequence, 1), b.Next)
	case want.Since == wire.SinceAge:
		since, err := h.notOlder(name, b, want.Age)
		at.Start = since
		return at, err
	}
	if want.Others && want.Age > 0 && (want.Since == wire.SinceLast || want.Since == wire.SinceSequence) {
		since, err := h.notOlder(name, b, want.Age)
		if want.Since == wire.SinceLast && since > b.First {
			since-- // the last one then
		}
		at.Start = min(at.Start, since)
		return at, err
	}
	return at, nil
}

// notOlder returns the first sequence that is kept and not older than age. With an error it is
// the first one that is kept.
func (h *Hub) notOlder(name string, b history.Bounds, age time.Duration) (wire.Sequence, error) {
	store, held := h.keeper.Held(name)
	if !held {
		return b.First, unavailable(name, h.remote.Self())
	}
	since, err := store.SequenceAt(name, time.Now().Add(-age))
	return max(since, b.First), err
}
