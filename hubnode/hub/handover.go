package hub

import (
	"context"
	"sync"
)

// handOverMax bounds the topics that are handed over at a time.
const handOverMax = 8

// HandOver gives the histories that this node holds to other nodes: a topic's
// home, or its keeper when this node is the home. It refuses further appends
// from then on. The hub must still run.
func (h *Hub) HandOver(ctx context.Context) {
	h.handing.Store(true)
	var handing sync.WaitGroup
	limit := make(chan struct{}, handOverMax)
	h.routes.Range(func(_, v any) bool {
		r, _ := v.(*route)
		r.log.mu.Lock() // what is being appended is in it then, and nothing comes after
		held := r.log.log != nil
		r.log.mu.Unlock()
		node, self := h.remote.Home(r.topic)
		if self {
			node = h.remote.Keeper(r.topic)
		}
		if !held || node == "" {
			return true
		}
		limit <- struct{}{}
		handing.Go(func() {
			defer func() { <-limit }()
			h.askTake(ctx, node, r.topic)
		})
		return true
	})
	handing.Wait()
}

// take fetches a topic's log from a node that is about to stop, to hold it or
// to serve it.
func (h *Hub) take(ctx context.Context, node, name string) error {
	r, err := h.route(name)
	if err != nil {
		return err
	}
	if _, self := h.remote.Home(name); self {
		_, _, err := h.ready(ctx, name) // opening fetches what is held anywhere
		return err
	}
	log, err := h.fetch(ctx, node, name)
	if err != nil {
		return err
	}
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	if have := r.log.log; have == nil || have.Bounds().Next < log.Bounds().Next {
		r.log.keep(log)
		r.sawUpTo(log.Bounds().Next)
	}
	return nil
}
