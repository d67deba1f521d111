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
	untold    int    // bytes received since the node was told
	repeats   uint64 // frames that come once more, as the node was not told of them

	received atomic.Uint64 // frames that the session keeps; Close reads it
	told     atomic.Uint64 // of those received; while connected it is changed under Client.mu
	taking   sync.Mutex    // is held from when one is handed to its handler until it is counted
}

// introduce says in Hello which session the client comes back to.
func (c *Client) introduce(hello *wire.Hello) {
	s := &c.session
	s.attempts++
	hello.Epoch = s.epoch
	if s.resumable {
		if c.hasRoom() {
			s.told.Store(s.received.Load())
		}
		hello.Resumable, hello.Session, hello.Received = true, s.key, s.told.Load()
		hello.Node, hello.Attempt = s.node, s.attempts
	}
}

// joined takes over what the node says when a connection begins.
func (s *session) joined(w *wire.Welcome) {
	s.epoch, s.node, s.key = w.Epoch, w.Node, w.Session
	if !w.Resumed {
		s.received.Store(0)
		s.told.Store(0)
	}
	s.repeats, s.untold = s.received.Load()-s.told.Load(), 0
}

// took counts a frame that the session keeps until the node is told of it.
func (c *Client) took(f wire.Frame) {
	s := &c.session
	received := s.received.Add(1)
	if s.untold += len(f); received-s.told.Load() >= receivedEvery || s.untold >= receivedBytes {
		s.untold = 0
		c.tellReceived()
	}
}

// tellReceived tells the node which frames this client has. While more was sent to it
// than its queues should hold it does not, and the node refuses what it can't keep.
func (c *Client) tellReceived() {
	s := &c.session
	if s.received.Load() == s.told.Load() || !c.hasRoom() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.up {
		return
	}
	received := s.received.Load()
	s.told.Store(received)
	c.out.control(wire.Header{Kind: wire.KindReceived, Sequence: wire.Sequence(received)}, "", nil, false)
}

// eased tells the node that there is room again for what is sent to this client, and
// whoever listens what was lost meanwhile.
func (c *Client) eased(lost int) {
	if lost > 0 {
		c.report(&DroppedError{Artifacts: uint64(lost), Queue: c.ID()})
	}
	c.tellReceived()
}

// hasRoom reports whether what was sent to this client is within its bounds; if not,
// the node is told once it is.
func (c *Client) hasRoom() bool {
	for _, q := range []*inbox[incoming]{&c.direct, &c.requests} {
		if q.over() {
			q.whenEased(0)
			return false
		}
	}
	return true
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
