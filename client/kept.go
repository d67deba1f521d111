package client

import (
	"sync"

	"github.com/switchboardhub/switchboard/wire"
)

const (
	// keptMax bounds the memory of what was written and may have to be written once
	// more although nobody acknowledges it. At the bound nothing is written until the
	// node has said what it has. More would cost a busy publisher more: what is written
	// from is in the processor's cache.
	keptMax = 1 << 20
	// proveBytes is after how many bytes the node is asked what it has, when some of
	// them are kept.
	proveBytes = 128 << 10
	chunkSmall = 4 << 10   // the memory that a client writes from that says little
	chunkLarge = 256 << 10 // and one that is busy
)

// chunk is memory that frames are written from, one behind the other. It never grows:
// they stay where they are.
type chunk struct {
	b      []byte
	before uint64 // the session's frames of artifacts that were written before those in it
	last   uint64 // the place of the last one in it that is kept; 0: none
}

var (
	smallChunks = sync.Pool{New: func() any { return &chunk{b: make([]byte, 0, chunkSmall)} }}
	largeChunks = sync.Pool{New: func() any { return &chunk{b: make([]byte, 0, chunkLarge)} }}
)

// room returns how large the next frame may be, with a Ping behind it.
func (c *chunk) room() int { return cap(c.b) - len(c.b) - wire.HeaderSize }

// release gives the memory to whoever writes next; that of a very large frame to nobody.
func (c *chunk) release() {
	size := cap(c.b)
	c.b, c.last = c.b[:0], 0
	switch size {
	case chunkSmall:
		smallChunks.Put(c)
	case chunkLarge:
		largeChunks.Put(c)
	}
}

// kept is the memory that a sender's frames are written from. It keeps what was written
// of frames that nobody acknowledges, answers and publishes to live topics, for when the
// session goes on and the node did not take them. The node is known to have what came
// before a Ping that it has answered: it takes one frame after the other. It belongs to
// the sender, whose lock guards it.
type kept struct {
	on      bool     // the session may outlive the connection
	chunks  []*chunk // oldest first; the last one is written from
	bytes   int      // of their memory
	writing bool     // the last one is just being written
	last    uint64   // the place of the newest frame that is kept
	proven  uint64   // the node has the frames up to this place
	ref     uint32   // of the Ping under way; 0: there is none
	asked   uint64   // the place before it
	unasked int      // bytes written behind the last Ping
	soon    bool     // ask with what is written next
	waits   bool     // nothing is written before the node answers
}

// some reports whether there are frames that the node may not have.
func (k *kept) some() bool { return k.last > k.proven }

func (k *kept) full() bool { return k.some() && k.bytes >= keptMax }

// due reports whether the node is to be asked what it has.
func (k *kept) due() bool {
	return k.ref == 0 && k.some() && (k.soon || k.unasked >= proveBytes || k.full())
}

// chunk returns where to write a frame of size bytes, of queued bytes that wait, behind
// so many of the session.
func (k *kept) chunk(size, queued int, places uint64) *chunk {
	if n := len(k.chunks); n > 0 {
		c := k.chunks[n-1]
		holds := c.last > k.proven
		if !holds {
			c.b, c.before, c.last = c.b[:0], places, 0
		}
		if size <= c.room() && (holds || queued <= cap(c.b) || cap(c.b) >= chunkLarge) {
			return c
		}
		if !holds {
			k.dropLast()
		}
	}
	var c *chunk
	switch need := size + wire.HeaderSize; {
	case need > chunkLarge:
		c = &chunk{b: make([]byte, 0, need)}
	case need > chunkSmall || queued > chunkSmall || len(k.chunks) > 0:
		c, _ = largeChunks.Get().(*chunk)
	default:
		c, _ = smallChunks.Get().(*chunk)
	}
	c.before = places
	k.chunks = append(k.chunks, c)
	k.bytes += cap(c.b)
	return c
}

// keep takes note that what was just written to c is to be kept.
func (k *kept) keep(c *chunk, place uint64) {
	if k.on {
		c.last, k.last = place, place
	}
}

// ask appends a Ping whose answer says that the node has what was written before.
func (k *kept) ask(c *chunk, ref uint32, place uint64) {
	c.b = wire.AppendFrame(c.b, wire.Header{Kind: wire.KindPing, Ref: ref}, "", "", nil)
	k.ref, k.asked, k.unasked, k.soon = ref, place, 0, false
}

// tidy gives back what holds nothing any more. What is written from stays, unless
// nothing waits to be written.
func (k *kept) tidy(idle bool) {
	n := 0
	for n < len(k.chunks)-1 && k.chunks[n].last <= k.proven {
		k.bytes -= cap(k.chunks[n].b)
		k.chunks[n].release()
		n++
	}
	if n > 0 {
		rest := copy(k.chunks, k.chunks[n:])
		clear(k.chunks[rest:])
		k.chunks = k.chunks[:rest]
	}
	if !idle || k.writing || len(k.chunks) != 1 {
		return
	}
	if c := k.chunks[0]; c.last <= k.proven && cap(c.b) > chunkSmall {
		k.dropLast()
	}
}

func (k *kept) dropLast() {
	n := len(k.chunks) - 1
	k.bytes -= cap(k.chunks[n].b)
	k.chunks[n].release()
	k.chunks[n] = nil
	k.chunks = k.chunks[:n]
}

// behind returns what is kept of the frames behind that many of the session, to be
// written again. They stay in the memory that they are in, which is theirs from then on.
func (k *kept) behind(received uint64) []*packet {
	var again []*packet
	for _, c := range k.chunks {
		place := c.before
		for b := c.b; len(b) > 0; {
			f := wire.Frame(b[:wire.FrameSize(b)])
			b = b[len(f):]
			if k := f.Kind(); k != wire.KindPublish && k != wire.KindSend && k != wire.KindReply {
				continue
			}
			place++
			if place > received && f.Flags()&(wire.FlagAck|wire.FlagRequest) == 0 {
				again = append(again, &packet{
					header: f.Header(), target: string(f.Target()), from: string(f.From()), body: f.Body(),
					bytes: len(f), place: place, sealed: true,
				})
			}
		}
	}
	return again
}

// proved takes note that the node has answered a Ping, and reports whether that asked
// what it has.
func (s *sender) proved(ref uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := &s.kept
	if k.ref == 0 || ref != k.ref {
		return false
	}
	k.ref, k.proven = 0, max(k.proven, k.asked)
	if !k.some() {
		s.unproven = false
	}
	k.tidy(len(s.queue) == 0)
	s.waitedLocked()
	return true
}

// askSoon makes the next write ask the node what it has: nothing else may be written for
// long.
func (s *sender) askSoon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept.soon = s.kept.some()
}

// waitForProofLocked takes note that the writer waits for the node's answer, which only
// the reader can bring.
func (s *sender) waitForProofLocked() {
	if !s.kept.waits {
		s.kept.waits = true
		s.expectLocked(1)
	}
}

// waitedLocked lets the writer look again.
func (s *sender) waitedLocked() {
	if s.kept.waits {
		s.kept.waits = false
		s.expectLocked(-1)
		s.wakeWriter()
	}
}

// unplugLocked takes note that the node will answer nothing any more.
func (s *sender) unplugLocked() {
	s.waitedLocked()
	k := &s.kept
	k.ref, k.writing, k.soon, k.unasked = 0, false, false, 0
}

// dropKeptLocked forgets what is kept: the node has the session's first places frames.
func (s *sender) dropKeptLocked(places uint64) {
	s.waitedLocked()
	s.places = places
	s.kept = kept{last: places, proven: places, asked: places}
}
