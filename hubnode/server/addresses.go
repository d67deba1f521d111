package server

import (
	"maps"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/rate"
	"github.com/switchboardhub/switchboard/wire"
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

// addresses counts connections by where they come from. The zero value is ready, and safe
// for concurrent use.
type addresses struct {
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

// enter counts a connection and returns what is to be called, once, when it has ended; or
// why it is one too many.
func (a *addresses) enter(remote net.Addr, limits PerAddress, now time.Time) (left func(), err error) {
	from, ok := siteOf(remote)
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
		return nil, errAddressNumber
	}
	if !at.used.TryTake(rate.Cost(1, limits.ConnectionsPerSecond), now) {
		a.refused.rate.Add(1)
		return nil, errAddressRate
	}
	if a.known == nil {
		a.known = make(map[netip.Addr]*address)
	}
	a.known[from] = at
	at.open++
	a.open++
	return func() { a.leave(from, at) }, nil
}

func (a *addresses) leave(from netip.Addr, at *address) {
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

// siteOf returns what stands for where a connection comes from.
func siteOf(remote net.Addr) (netip.Addr, bool) {
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

var (
	errAddressNumber = &wire.Error{Code: wire.CodeTooManyClients, Detail: "this node holds as many connections from this address as it may: close some, or raise limits.perAddress.connections"}
	errAddressRate   = &wire.Error{Code: wire.CodeOverloaded, Detail: "too many connections from this address within a second: try again later, or raise limits.perAddress.connectionsPerSecond"}
)
