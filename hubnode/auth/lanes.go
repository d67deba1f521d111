package auth

import (
	"context"
	"net/netip"
	"sync"
)

// lanes let one at a time through of those who come from one place. The zero value is
// ready. It remembers only places from which somebody is under way.
type lanes struct {
	mu sync.Mutex // guards of, and the lanes' users
	of map[string]*lane
}

type lane struct {
	users int // in it, or waiting for it
	free  chan struct{}
}

// enter waits until nobody else from the same place is in.
func (l *lanes) enter(ctx context.Context, from string) (leave func(), err error) {
	from = place(from)
	l.mu.Lock()
	in := l.of[from]
	if in == nil {
		if l.of == nil {
			l.of = make(map[string]*lane)
		}
		in = &lane{free: make(chan struct{}, 1)}
		l.of[from] = in
	}
	in.users++
	l.mu.Unlock()
	done := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if in.users--; in.users == 0 {
			delete(l.of, from)
		}
	}
	select {
	case in.free <- struct{}{}:
		return func() { <-in.free; done() }, nil
	case <-ctx.Done():
		done()
		return nil, errBusy
	}
}

// place is where an address and port are: the machine, or of IPv6 its network, in which
// one machine has as many addresses as it likes.
func place(remote string) string {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	ip := at.Addr().Unmap().WithZone("")
	if ip.Is6() {
		if network, err := ip.Prefix(64); err == nil {
			return network.String()
		}
	}
	return ip.String()
}
