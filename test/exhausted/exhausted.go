// Package exhausted gives tests the listener of a process that has no file left for another
// connection.
package exhausted

import (
	"net"
	"sync"
	"syscall"
	"time"
)

// beyondReason is after how many tries a listener waits to be closed, so that who tries for
// ever fails its test and doesn't hang it.
const beyondReason = 10_000

// Listener fails to accept, but at some tries. It is for one goroutine, apart from Close.
type Listener struct {
	net.Listener
	Tried []time.Duration // when, since it was made

	start  time.Time
	take   map[int]bool // by the number of the try, from 1
	close  func()
	closed chan struct{}
}

// New returns a listener that takes a connection at the tries with these numbers, from 1.
func New(take ...int) *Listener {
	l := &Listener{start: time.Now(), take: make(map[int]bool), closed: make(chan struct{})}
	l.close = sync.OnceFunc(func() { close(l.closed) })
	for _, n := range take {
		l.take[n] = true
	}
	return l
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	if len(l.Tried) >= beyondReason {
		<-l.closed
	}
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	default:
	}
	l.Tried = append(l.Tried, time.Since(l.start))
	if l.take[len(l.Tried)] {
		conn, _ := net.Pipe()
		return conn, nil
	}
	return nil, &net.OpError{Op: "accept", Net: "tcp", Err: syscall.EMFILE}
}

// Close implements net.Listener.
func (l *Listener) Close() error {
	l.close()
	return nil
}
