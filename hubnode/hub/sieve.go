package hub

import (
	"context"
	"sync"

	"github.com/switchboardhub/switchboard/hubnode/durable"
	"github.com/switchboardhub/switchboard/wire"
)

// sieve looks at a topic's new artifacts, on its leader, for which of them pass a
// durable subscription's filter. Looking costs nothing in the log: what does not pass
// is settled with the request that takes what does.
type sieve struct {
	hub    *Hub
	topic  string
	filter Filter // nil: all pass

	from, until wire.Sequence // what was looked at
	refused     []wire.Range  // of that: what does not pass
	passing     int
}

// look looks at what is new, from next up to end, until as many pass as are wanted, or
// ctx ends.
func (s *sieve) look(ctx context.Context, next, end wire.Sequence, want int) error {
	if s.filter == nil {
		return nil
	}
	if next != s.from {
		s.from, s.until, s.refused, s.passing = next, next, nil, 0
	}
	store, held := s.hub.keeper.Held(s.topic)
	if !held {
		return unavailable(s.topic, s.hub.remote.Self())
	}
	for s.passing < want && s.until < end && ctx.Err() == nil {
		from := s.until
		after, _, err := eachCut(store, s.topic, from, end-1, pageBytes, func(first wire.Sequence, _ int, sender string, body []byte) {
			s.lookAt(first, sender, body, want)
		})
		switch {
		case err != nil:
			return err
		case s.passing < want:
			s.until = after
		}
	}
	return nil
}

// lookAt looks at a run, until as many pass as are wanted.
func (s *sieve) lookAt(first wire.Sequence, sender string, body []byte, want int) {
	a := wire.Artifact{From: sender, Topic: s.topic}
	r := wire.NewRunReader(body)
	for a.Sequence = first; s.passing < want; a.Sequence++ {
		if ok, err := r.Next(&a); !ok || err != nil { // runs were checked when they came in
			return
		}
		if s.until = a.Sequence + 1; s.filter(&a) {
			s.passing++
		} else if n := len(s.refused); n > 0 && s.refused[n-1].To+1 == a.Sequence {
			s.refused[n-1].To = a.Sequence
		} else {
			s.refused = append(s.refused, wire.Range{From: a.Sequence, To: a.Sequence})
		}
	}
}

// finds reports whether a member may be given something.
func (s *sieve) finds(o durable.Outlook) bool {
	return o.Again || o.New && (s.filter == nil || s.passing > 0)
}

// narrow returns a request for what was looked at and passes.
func (s *sieve) narrow(r durable.Request) durable.Request {
	if s.filter != nil {
		r.Until, r.Refused = max(s.until, 1), s.refused
	}
	return r
}

// filtersMax bounds the filters of durable subscriptions that are kept compiled.
const filtersMax = 256

// filters are the compiled filters of durable subscriptions: compiling one takes longer
// than giving out what it lets pass.
type filters struct {
	mu       sync.Mutex // guards compiled
	compiled map[string]Filter
}

// sieve returns a sieve for the artifacts that a member wants.
func (h *Hub) sieve(q fetchQuestion) (*sieve, error) {
	s := &sieve{hub: h, topic: q.Topic}
	expression := q.Fetch.Policy.Filter
	if expression == "" {
		return s, nil
	}
	h.filters.mu.Lock()
	defer h.filters.mu.Unlock()
	if s.filter = h.filters.compiled[expression]; s.filter != nil {
		return s, nil
	}
	filter, err := h.compileFilter(expression)
	if err != nil {
		return nil, err
	}
	if h.filters.compiled == nil || len(h.filters.compiled) >= filtersMax {
		h.filters.compiled = make(map[string]Filter)
	}
	h.filters.compiled[expression] = filter
	s.filter = filter
	return s, nil
}

// compileFilter makes a client's expression a filter. Errors are of wire.Error.
func (h *Hub) compileFilter(expression string) (Filter, error) {
	if h.compile == nil {
		return nil, &wire.Error{Code: wire.CodeInvalidFilter, Detail: "this hub takes no filter expressions"}
	}
	filter, err := h.compile(expression)
	if err != nil {
		return nil, &wire.Error{Code: wire.CodeInvalidFilter, Detail: err.Error()}
	}
	return filter, nil
}
