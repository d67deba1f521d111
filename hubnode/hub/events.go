package hub

import (
	"slices"
	"sync"
)

// Event is a [ClientJoined] or a [ClientLeft].
type Event interface{ event() }

// ClientJoined says that a client was registered.
type ClientJoined struct {
	Client *Client
}

// ClientLeft says that a client is no longer there: nothing is routed to it any
// more. What is queued for it, and its Goodbye, may still be on their way.
type ClientLeft struct {
	Client *Client
	// Reason is what [Client.Reason] returns: [ErrLeft], a [ConnectionError],
	// a [SlowClientError], a [SessionReplacedError], [ErrStopped], or a
	// wire.Error with the code that the client was sent.
	Reason error
}

func (ClientJoined) event() {}
func (ClientLeft) event()   {}

// OnEvent calls listen for every client that is there, and from then on for
// every one that joins or leaves, until cancel is called.
//
// A listener hears of the sessions of one client id in the order in which they
// happened: that one joined, that it left, that the next one joined. It misses
// none and hears of none twice. It is called from one goroutine at a time, with
// no lock of the hub held, so it may call the hub; but not Stop, which returns
// only when all listeners have heard everything. Events are for a hub that
// runs: those from before Start are heard once it is called, or Stop is.
//
// A listener that takes its time delays no message, no client and no other
// listener. What it has not heard yet is kept for it, without bound: it costs
// a few words for each session that began or ended meanwhile.
//
// Cancel may be called more than once, and by the listener. It does not wait
// for the listener, which may still hear of the one event that is on its way.
func (h *Hub) OnEvent(listen func(Event)) (cancel func()) {
	l := &listener{hub: h, listen: listen}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state == stateStopped {
		return func() {} // nobody will join any more
	}
	h.listeners = append(h.listeners, l)
	h.eachClient(func(c *Client) { l.tellLocked(ClientJoined{c}) })
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.listeners = slices.DeleteFunc(h.listeners, func(other *listener) bool { return other == l })
		l.cancel()
	}
}

// listener is what one call of OnEvent made. Its goroutine runs while there is
// something to tell.
type listener struct {
	hub    *Hub
	listen func(Event)

	mu        sync.Mutex // guards the fields below
	untold    []Event
	telling   bool
	cancelled bool
}

// raiseLocked tells all listeners. Hub.mu is held, which puts events in the
// order of what they tell of.
func (h *Hub) raiseLocked(e Event) {
	for _, l := range h.listeners {
		l.tellLocked(e)
	}
}

// wakeListenersLocked tells what was raised before the hub ran. Hub.mu is held.
func (h *Hub) wakeListenersLocked() {
	for _, l := range h.listeners {
		l.tellLocked()
	}
}

// tellLocked queues events and sees to it that the listener hears of them.
// Hub.mu is held.
func (l *listener) tellLocked(events ...Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.untold = append(l.untold, events...)
	if len(l.untold) > 0 && !l.telling && l.hub.state != stateNew {
		l.telling = true
		l.hub.wg.Go(l.tell)
	}
}

// tell passes on what is queued, and ends.
func (l *listener) tell() {
	for {
		l.mu.Lock()
		if len(l.untold) == 0 || l.cancelled {
			l.untold, l.telling = nil, false
			l.mu.Unlock()
			return
		}
		e := l.untold[0]
		l.untold[0] = nil
		l.untold = l.untold[1:]
		l.mu.Unlock()
		l.listen(e)
	}
}

func (l *listener) cancel() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cancelled = true
}
