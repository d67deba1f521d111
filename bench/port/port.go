// Package port finds ports for the servers that a bench starts.
package port

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// Below the range from which systems take the ports of outgoing connections:
// nothing takes one of these between the moment it is found free and its use.
const (
	first = 10_000
	last  = 30_000
)

var (
	mu    sync.Mutex
	given = make(map[int]bool)
)

// Free returns an address of 127.0.0.1, and its port, that nobody has for TCP or
// UDP and that no call before has returned.
func Free() (address, port string, err error) {
	mu.Lock()
	defer mu.Unlock()
	for range last - first {
		number := first + rand.IntN(last-first) //nolint:gosec // any will do
		port = strconv.Itoa(number)
		address = net.JoinHostPort("127.0.0.1", port)
		if !given[number] && isFree(address) {
			given[number] = true
			return address, port, nil
		}
	}
	return "", "", fmt.Errorf("no port from %d to %d is free", first, last)
}

func isFree(address string) bool {
	ln, err := net.Listen("tcp", address) //nolint:noctx // it takes no time
	if err != nil {
		return false
	}
	_ = ln.Close()                                // it was only to see
	conn, err := net.ListenPacket("udp", address) //nolint:noctx // it takes no time
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}
