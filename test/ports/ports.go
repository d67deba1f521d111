// Package ports gives tests addresses for servers that open their ports
// themselves.
package ports

import (
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
)

// Below the range from which Linux and others take the ports of outgoing
// connections: nothing but a server takes one of these between the moment it is
// found free and the moment it is used.
const (
	first = 10_000
	last  = 30_000
)

var (
	mu    sync.Mutex // guards given
	given = make(map[int]bool)
)

// Free returns a loopback address, host:port, that is free for TCP and UDP and
// that no other call in this process has returned.
func Free(tb testing.TB) string {
	tb.Helper()
	mu.Lock()
	defer mu.Unlock()
	for range last - first {
		port := first + rand.IntN(last-first)
		if given[port] {
			continue
		}
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		if free(addr) {
			given[port] = true
			return addr
		}
	}
	tb.Fatal("no port is free")
	return ""
}

func free(addr string) bool {
	stream, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	_ = stream.Close() // it was opened to see that it can be
	packets, err := net.ListenPacket("udp", addr)
	if err != nil {
		return false
	}
	_ = packets.Close() // it was opened to see that it can be
	return true
}
