package hub

import (
	"github.com/switchboardhub/switchboard/hubnode/outbox"
	"github.com/switchboardhub/switchboard/wire"
)

// flusher is a queue that was pushed to and has to be flushed.
type flusher interface {
	Flush()
	FlushAside()
}

// flushMax is how many queues one goroutine flushes itself; of a wide fan-out
// the others are written beside it.
const flushMax = 8

// intake is what one goroutine that routes frames keeps for itself: caches of
// what it looked up, and the queues that it pushed to and still has to flush.
type intake struct {
	hub      *Hub
	last     *route
	routes   map[string]*route
	targets  map[string]*Client
	touched  []flusher
	resends  bool                  // what has waited, in its order
	missed   *undelivered          // who could not be given what is routed; nil: nobody asked
	parcel   parcel                // of the frame being routed
	head     [wire.HeaderSize]byte // of the frame being queued
	toLeader []byte                // head, route and publisher of the one being sent to a topic's leader
}

// cacheMax bounds each cache of an intake; a full one starts over.
const cacheMax = 1024

func (h *Hub) newIntake() *intake { return &intake{hub: h} }

// take makes a parcel of a frame that was just read. It is valid until the next
// one is taken.
func (in *intake) take(f wire.Frame, slab *wire.Slab) *parcel {
	in.parcel = parcel{frame: f, slab: slab}
	return &in.parcel
}

// push queues a frame and remembers to flush.
func (in *intake) push(l Link, head, tail []byte, slab *wire.Slab) outbox.Verdict {
	v := l.Push(head, tail, slab)
	if v == outbox.QueuedCold {
		in.touched = append(in.touched, l)
	}
	return v
}

// pushControl queues a control frame and remembers to flush.
func (in *intake) pushControl(l Link, frame []byte) outbox.Verdict {
	v := l.PushControl(frame)
	if v == outbox.QueuedCold {
		in.touched = append(in.touched, l)
	}
	return v
}

// flush sees to the writing of what was pushed since the last flush.
func (in *intake) flush() {
	for i, f := range in.touched {
		if i < flushMax {
			f.Flush()
		} else {
			f.FlushAside()
		}
		in.touched[i] = nil
	}
	in.touched = in.touched[:0]
}

// route returns the route of a topic, from the cache when it is there.
func (in *intake) route(name []byte) (*route, error) {
	if r := in.last; r != nil && r.topic == string(name) && !r.dead.Load() {
		return r, nil
	}
	r, ok := in.routes[string(name)]
	if !ok || r.dead.Load() {
		var err error
		if r, err = in.hub.route(string(name)); err != nil {
			return nil, err
		}
		if in.routes == nil || len(in.routes) >= cacheMax {
			in.routes = make(map[string]*route)
		}
		in.routes[r.topic] = r
	}
	in.last = r
	return r, nil
}

// client returns the local client of that id, from the cache when it is there.
func (in *intake) client(id []byte) (*Client, bool) {
	c, ok := in.targets[string(id)]
	if ok {
		select {
		case <-c.gone:
			delete(in.targets, string(id))
		default:
			return c, true
		}
	}
	if c, ok = in.hub.Client(string(id)); !ok {
		return nil, false
	}
	if in.targets == nil || len(in.targets) >= cacheMax {
		in.targets = make(map[string]*Client)
	}
	in.targets[c.id] = c
	return c, true
}
