package hub

import (
	"context"
	"encoding/binary"
	"encoding/json"
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

// readLog makes a page of a log.
func readLog(l *history.Log, name string, from wire.Sequence, maxBytes int) *page {
	p := &page{}
	l.Read(from, maxBytes, func(run history.Run) {
		h := wire.Header{Kind: wire.KindPublish, Count: uint16(run.Count), Sequence: run.First}
		p.frames = wire.AppendFrame(p.frames, h, []byte(name), []byte(run.From), run.Body)
	})
	// Taken last: what was appended meanwhile makes the reader come again.
	b := l.Bounds()
	p.first, p.end = b.First, b.Next
	return p
}

// read returns a page of a topic's history from its home.
func (h *Hub) read(ctx context.Context, name string, from wire.Sequence, maxBytes int) (*page, error) {
	node, self := h.remote.Home(name)
	if !self {
		ctx, cancel := context.WithTimeout(ctx, askTime)
		defer cancel()
		return h.askPage(ctx, node, questionRead, name, from, maxBytes)
	}
	_, log, err := h.ready(ctx, name)
	if err != nil {
		return nil, err
	}
	log.Expire(time.Now())
	return readLog(log, name, from, maxBytes), nil
}

// topicStart is where a subscription starts in one topic.
type topicStart struct {
	Topic string        `json:"topic"`
	Start wire.Sequence `json:"start"`
	End   wire.Sequence `json:"end"` // the sequence that comes next
}

// listRequest asks a node which topics with history it knows, and where a
// subscription starts in them.
type listRequest struct {
	Pattern string            `json:"pattern"`
	Want    wire.Subscription `json:"want"`
}

// list returns where a subscription starts in each topic with history that its
// pattern matches. complete is false when some node could not be asked.
func (h *Hub) list(ctx context.Context, pattern string, want wire.Subscription) (starts []topicStart, complete bool) {
	request := listRequest{Pattern: pattern, Want: want}
	if topic.IsLiteral(pattern) {
		if limits, _ := h.settings.Load().rule(pattern); limits.MaxArtifacts == 0 {
			return nil, true
		}
		node, self := h.remote.Home(pattern)
		if self {
			return h.listHere(ctx, request), true
		}
		starts, err := h.askList(ctx, node, request)
		return starts, err == nil
	}
	furthest := make(map[string]topicStart)
	add := func(starts []topicStart) {
		for _, s := range starts {
			if have, ok := furthest[s.Topic]; !ok || s.End > have.End {
				furthest[s.Topic] = s
			}
		}
	}
	add(h.listHere(ctx, request))
	complete = h.askAll(ctx, func(ctx context.Context, node string) (func(), error) {
		starts, err := h.askList(ctx, node, request)
		return func() { add(starts) }, err
	})
	for _, s := range furthest {
		starts = append(starts, s)
	}
	return starts, complete
}

// listHere answers a listRequest from the logs of this node.
func (h *Hub) listHere(ctx context.Context, q listRequest) []topicStart {
	if topic.IsLiteral(q.Pattern) {
		r, log, err := h.ready(ctx, q.Pattern)
		if err != nil {
			return nil
		}
		return []topicStart{r.start(log, q.Want)}
	}
	var starts []topicStart
	h.eachLog(func(r *route, l *history.Log) {
		if topic.Match(q.Pattern, r.topic) {
			starts = append(starts, r.start(l, q.Want))
		}
	})
	return starts
}

// start returns where a subscription starts in one log. It takes the lock that
// orders the topic's deliveries, so that what is appended later finds the
// subscription.
func (r *route) start(l *history.Log, want wire.Subscription) topicStart {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	now := time.Now()
	l.Expire(now)
	b := l.Bounds()
	at := topicStart{Topic: r.topic, Start: b.Next, End: b.Next}
	switch {
	case want.Positions != nil:
		at.Start = max(want.Positions[r.topic], 1)
		if at.Start > b.Next { // of a log that was lost: this one is new to the client
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
		at.Start = max(l.SequenceAt(now.Add(-want.Age)), b.First)
	}
	return at
}

// decodeJSON decodes a question or an answer between nodes.
func decodeJSON(b []byte, into any) error {
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%w: %s", wire.ErrMalformed, err.Error())
	}
	return nil
}
