package client

import (
	"sync"
	"sync/atomic"

	"github.com/switchboardhub/switchboard/wire"
)

// receivedEvery is after how many frames, and keptBytes after how many bytes of
// them, the node is told what it need not keep any longer. It learns of the rest
// when it pings.
const (
	receivedEvery = 64
	receivedBytes = 256 << 10
)

// session is what a node needs to know to go on where a lost connection ended.
type session struct {
	resumable bool
	key       string // what the node called it
	epoch     uint64
	node      string
	attempts  uint64 // to connect
	told      uint64 // of those received
	untold    int    // bytes of the others

	received atomic.Uint64 // frames that the session keeps; Close reads it
	taking   sync.Mutex    // is held from when one is handed to its handler until it is counted
}

// introduce says in Hello which session the client comes back to.
func (s *session) introduce(hello *wire.Hello) {
	s.attempts++
	hello.Epoch = s.epoch
	if s.resumable {
		hello.Resumable, hello.Session, hello.Received = true, s.key, s.received.Load()
		hello.Node, hello.Attempt = s.node, s.attempts
	}
}

// joined takes over what the node says when a connection begins.
func (s *session) joined(w *wire.Welcome) {
	s.epoch, s.node, s.key = w.Epoch, w.Node, w.Session
	if !w.Resumed {
		s.received.Store(0)
	}
	s.told, s.untold = s.received.Load(), 0
}

// took counts a frame that the session keeps until the node is told of it.
func (c *Client) took(f wire.Frame) {
	s := &c.session
	received := s.received.Add(1)
	if s.untold += len(f); received-s.told >= receivedEvery || s.untold >= receivedBytes {
		c.tellReceived()
	}
}

// tellReceived tells the node which frames this client has.
func (c *Client) tellReceived() {
	s := &c.session
	received := s.received.Load()
	if received == s.told {
		return
	}
	s.told, s.untold = received, 0
	c.out.control(wire.Header{Kind: wire.KindReceived, Sequence: wire.Sequence(received)}, "", nil, false)
}

// goodbye is the last frame, behind what the node should know before: else it
// would count what the client has as dropped.
func (s *session) goodbye() []byte {
	var b []byte
	if received := s.received.Load(); received > 0 {
		b = wire.AppendControl(b, wire.Header{Kind: wire.KindReceived, Sequence: wire.Sequence(received)}, "", nil)
	}
	return wire.AppendControl(b, wire.Header{Kind: wire.KindGoodbye}, "", nil)
}
