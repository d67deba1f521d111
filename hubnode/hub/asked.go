package hub

import (
	"maps"
	"slices"
	"sync"

	"github.com/switchboardhub/switchboard/wire"
)

// askedMax bounds the requests to one client that it may still answer.
const askedMax = 4096

// asked are the requests that a client was given and has not answered. Whoever was asked may
// answer, once, without the right to send; beyond askedMax the oldest are forgotten.
type asked struct {
	mu    sync.Mutex // guards the fields below; nothing else is locked while it is held
	open  map[request]struct{}
	order []request // as they came; also such as were answered since
}

// request is one of a client's: the ref is that client's number for it.
type request struct {
	From wire.ClientID `json:"from"`
	Ref  uint32        `json:"ref"`
}

// note takes note of a frame for the client, if it asks something.
func (a *asked) note(f wire.Frame, ref uint32) {
	if f.Kind() == wire.KindSend && f.Flags()&wire.FlagRequest != 0 {
		a.add(request{string(f.From()), ref})
	}
}

func (a *asked) add(r request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.open[r]; ok {
		return
	}
	if a.open == nil {
		a.open = make(map[request]struct{})
	}
	for len(a.open) >= askedMax {
		delete(a.open, a.order[0])
		a.order = a.order[1:]
	}
	if len(a.order) >= 2*askedMax {
		a.order = slices.DeleteFunc(a.order, func(r request) bool { return !a.openLocked(r) })
	}
	a.open[r] = struct{}{}
	a.order = append(a.order, r)
}

func (a *asked) openLocked(r request) bool {
	_, ok := a.open[r]
	return ok
}

// answered reports whether the client was asked this, and has not answered before.
func (a *asked) answered(from []byte, ref uint32) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := request{string(from), ref}
	ok := a.openLocked(r)
	delete(a.open, r)
	return ok
}

// list returns those that are not answered, in any order.
func (a *asked) list() []request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Keys(a.open))
}
