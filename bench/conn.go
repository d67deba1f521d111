package main

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// A message is one that arrived. Its bytes are valid until the handler returns.
type message struct {
	payload []byte
	reply   []byte // who waits for an answer; empty when nobody does
	ref     uint32 // what the answer has to name, where the protocol wants that
}

// A handler is called by the goroutine that reads a connection.
type handler interface {
	message(m message)
	// drained says that all that was read is handled, and that the next read may
	// wait.
	drained()
}

// opened makes an interface of a connection that may be nil.
func opened[C conn](c C, err error) (conn, error) {
	if err != nil {
		return nil, err
	}
	return c, nil
}

// delivery makes messages that a library delivers on a goroutine for each
// subscription come one by one, as handlers expect.
type delivery struct {
	mu sync.Mutex // guards h
	h  handler
}

func (d *delivery) deliver(payload []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.h.message(message{payload: payload})
	d.h.drained()
}

// nobody is the handler of who only publishes.
type nobody struct{}

func (nobody) message(message) {}
func (nobody) drained()        {}

// conn is one client's connection, with as little code between the scenario and
// the socket as the protocol allows: what is measured is the server. Its methods
// are for one goroutine.
type conn interface {
	// subscribe returns once the server knows of it.
	subscribe(ctx context.Context, topic string) error
	// listen makes the client reachable by its id.
	listen(ctx context.Context) error
	// publish and send queue n messages of one payload for a topic, or for the
	// client of that id; request queues a question to it, and reply an answer.
	publish(topic string, payload []byte, n int)
	send(id string, payload []byte, n int)
	request(id string, payload []byte)
	reply(to message, payload []byte)
	// write sends what is queued.
	write() error
	// sync returns once the server has handled all that was written before.
	sync(ctx context.Context) error
	close()
}

const (
	smallBuffer = 4 << 10
	largeBuffer = 128 << 10
)

// socket is what the connections of all protocols have in common: a buffer of
// what is queued, a goroutine that reads, and the wait for the server's word.
type socket struct {
	net.Conn
	out  []byte
	word chan struct{} // a pong, or whatever else says that the server is done

	ended chan struct{}
	err   error // why reading ended, set before ended is closed
	once  sync.Once
}

func dialSocket(ctx context.Context, addr string) (*socket, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &socket{Conn: c, word: make(chan struct{}, 1), ended: make(chan struct{})}, nil
}

// read gives what arrives to take, which returns how much of it was whole
// messages, until the connection ends. The buffer grows with what comes.
func (s *socket) read(h handler, take func([]byte) (int, error)) {
	defer close(s.ended)
	buf := make([]byte, smallBuffer)
	end := 0
	for {
		n, err := s.Read(buf[end:])
		end += n
		used, wrong := take(buf[:end])
		if n > 0 {
			h.drained()
		}
		switch {
		case wrong != nil:
			s.err = wrong
			return
		case err != nil:
			s.err = err
			return
		}
		full := end == len(buf)
		end = copy(buf, buf[used:end])
		if full && (len(buf) < largeBuffer || end == len(buf)) {
			larger := make([]byte, max(2*len(buf), largeBuffer))
			copy(larger, buf[:end])
			buf = larger
		}
	}
}

// said notes that the server said its word.
func (s *socket) said() {
	select {
	case s.word <- struct{}{}:
	default:
	}
}

// await waits for the server's word.
func (s *socket) await(ctx context.Context) error {
	select {
	case <-s.word:
		return nil
	case <-s.ended:
		return fmt.Errorf("the connection ended: %w", s.err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *socket) write() error {
	if len(s.out) == 0 {
		return nil
	}
	_, err := s.Write(s.out)
	s.out = s.out[:0]
	return err
}

// ask writes what is queued and waits for the server's word.
func (s *socket) ask(ctx context.Context) error {
	if err := s.write(); err != nil {
		return err
	}
	return s.await(ctx)
}

func (s *socket) close() {
	s.once.Do(func() {
		_ = s.Close() // nothing more is wanted of it
		select {
		case <-s.ended:
		case <-time.After(time.Second): // a connection that was never read
		}
	})
}
