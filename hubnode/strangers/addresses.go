package strangers

import (
	"errors"
	"maps"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/rate"
)

const (
	// addressesIdle is how many addresses without connections may be remembered.
	addressesIdle = 1000
	// siteBits of an IPv6 address are what one customer of a network has: whoever has one of
	// these addresses has them all.
	siteBits = 64
)

// PerAddress bounds what comes from one IP address; of IPv6, from one network of 64 bits.
// 0: it does not.
type PerAddress struct {
	Connections          int // at a time
	ConnectionsPerSecond int // with a second's worth at once
}

// Addresses counts connections by where they come from. The zero value is ready, and safe
// for concurrent use.
type Addresses struct {
	refused struct{ number, rate atomic.Uint64 }

	mu    sync.Mutex // guards the fields below
	known map[netip.Addr]*address
	open  int // connections of all
	swept time.Time
}

// address is where connections come from.
type address struct {
	open int
	used rate.Meter // of the rate
}

// Enter counts a connection and returns what is to be called, once, when it has ended, or
// [ErrNumber] or [ErrRate] when it is one too many.
func (a *Addresses) Enter(remote net.Addr, limits PerAddress, now time.Time) (left func(), err error) {
	from, ok := SiteOf(remote)
	if limits == (PerAddress{}) || !ok {
		return func() {}, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	at := a.known[from]
	if at == nil {
		if len(a.known) >= a.open+addressesIdle && now.Sub(a.swept) >= rate.Burst { // they are all remembered for that long
			a.swept = now
			maps.DeleteFunc(a.known, func(_ netip.Addr, at *address) bool { return at.idle(now) })
		}
		at = new(address)
	}
	if limits.Connections > 0 && at.open >= limits.Connections {
		a.refused.number.Add(1)
		return nil, ErrNumber
	}
	if !at.used.TryTake(rate.Cost(1, limits.ConnectionsPerSecond), now) {
		a.refused.rate.Add(1)
		return nil, ErrRate
	}
	if a.known == nil {
		a.known = make(map[netip.Addr]*address)
	}
	a.known[from] = at
	at.open++
	a.open++
	return func() { a.leave(from, at) }, nil
}

func (a *Addresses) leave(from netip.Addr, at *address) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at.open--
	a.open--
	if at.idle(time.Now()) {
		delete(a.known, from)
	}
}

// idle reports whether nothing is to be remembered of an address.
func (at *address) idle(now time.Time) bool { return at.open == 0 && at.used.Ahead(now) == 0 }

// SiteOf returns what stands for where a connection comes from.
func SiteOf(remote net.Addr) (netip.Addr, bool) {
	tcp, ok := remote.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}, false
	}
	ip := tcp.AddrPort().Addr().Unmap()
	if ip.Is6() {
		if site, err := ip.WithZone("").Prefix(siteBits); err == nil {
			ip = site.Addr()
		}
	}
	return ip, ip.IsValid()
}

// What an address may have too much of.
var (
	ErrNumber = errors.New("as many connections from this address as may be")
	ErrRate   = errors.New("too many connections from this address within a second")
)

// Refused returns how many connections were one too many: at a time, and within a second.
func (a *Addresses) Refused() (number, rate uint64) {
	return a.refused.number.Load(), a.refused.rate.Load()
}
