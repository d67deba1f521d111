package hub

import (
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/switchboardhub/switchboard/hubnode/outbox"
	"github.com/switchboardhub/switchboard/wire"
)

// slowness is what became of artifacts that a client was too slow for.
type slowness struct {
	dropped atomic.Uint64 // in all
	untold  atomic.Uint64 // those that it was not told of yet
	telling atomic.Bool   // a goroutine waits for room to tell it
	cut     atomic.Bool   // it is being removed for it
}

// pushSlow applies the policy for slow clients to a frame that does not fit.
func (c *Client) pushSlow(in *intake, head []byte, p *parcel) outbox.Verdict {
	s := c.hub.settings.Load()
	count := p.frame.Count()
	switch s.SlowClient {
	case DropOldest:
		lost, again := c.out.DropOldest(len(p.frame))
		v := in.push(c.out, head, p.frame[wire.HeaderSize:], p.slab)
		if v == outbox.Full {
			lost += count
		}
		c.lose(lost, again)
		return v
	case DropNewest:
		c.lose(count, 0)
	case Conflate:
		v, lost := c.out.PushConflated(head, p.frame[wire.HeaderSize:], s.ConflateKey)
		if v == outbox.QueuedCold {
			in.touched = append(in.touched, c.out)
		}
		if v == outbox.Full {
			lost += count
		}
		c.lose(lost, 0)
		return v
	case Disconnect:
		c.slow.dropped.Add(uint64(count))
		c.hub.metrics.dropped(dropSlowClient, count)
		c.cutOff()
	}
	return outbox.Full
}

// cutOff removes a client that does not read.
func (c *Client) cutOff() {
	if !c.slow.cut.CompareAndSwap(false, true) {
		return
	}
	err := &SlowClientError{ID: c.id, Pending: c.out.Pending(), Limit: c.hub.settings.Load().PendingBytes}
	c.hub.metrics.slow.Add(1)
	c.hub.spawn(func() { c.hub.remove(c, err) }) // it takes the hub's lock, and the caller may hold others
}

// shedFrom is how many bytes have to wait for a client for it to be slow: about what one
// read of its takes.
const shedFrom = 64 << 10

// Shed lets clients go whose memory is needed, until as many bytes are free that waited for
// them, or none is left that is slow. It returns how many are. Those that are leaving already
// come first, then those that most waits for. What waits is dropped and the connection closed
// at once: whoever does not read would not read a Goodbye either. Sessions wait for their
// clients as after a lost connection.
func (h *Hub) Shed(bytes int64) (freed int64) {
	h.partings.Range(func(k, _ any) bool {
		c, _ := k.(*Client)
		freed += int64(c.PendingBytes())
		c.close()
		return freed < bytes
	})
	for _, w := range h.slowest() {
		if freed >= bytes {
			break
		}
		h.remove(w.client, &wire.Error{Code: wire.CodeOverloaded, Detail: fmt.Sprintf("the node is short of memory, and %d bytes waited for this client", w.bytes)})
		freed += int64(w.bytes)
	}
	return freed
}

// waiting is how much waits for a client.
type waiting struct {
	client *Client
	bytes  int
}

// slowest returns the clients that are slow, those that most waits for first.
func (h *Hub) slowest() []waiting {
	var slow []waiting
	h.eachClient(func(c *Client) {
		if n := c.PendingBytes(); n >= shedFrom {
			slow = append(slow, waiting{c, n})
		}
	})
	slices.SortFunc(slow, func(a, b waiting) int { return b.bytes - a.bytes })
	return slow
}

// lose counts artifacts that the client will never get, and sees to it that it
// is told of them and of those that it has to be told of again.
func (c *Client) lose(artifacts, again int) {
	if artifacts+again == 0 {
		return
	}
	c.slow.dropped.Add(uint64(artifacts))
	c.slow.untold.Add(uint64(artifacts + again))
	c.hub.metrics.dropped(dropSlowClient, artifacts)
	if c.slow.telling.CompareAndSwap(false, true) {
		c.hub.spawn(c.tellInTime)
	}
}

// tellInTime waits until the client has read half of what waits for it and
// tells it then, should nothing that is published meanwhile have done so.
func (c *Client) tellInTime() {
	for {
		select {
		case <-c.gone:
			return
		case <-c.hub.life.Done():
			return
		case <-c.out.Below(c.hub.settings.Load().PendingBytes / 2):
		}
		c.slow.telling.Store(false) // whoever loses more from here on starts anew
		if c.tellLost(nil) || !c.slow.telling.CompareAndSwap(false, true) {
			return
		}
	}
}

// tellLost tells the client how many artifacts it was too slow for, and reports
// false when there was no room to tell it.
func (c *Client) tellLost(in *intake) bool {
	n := c.slow.untold.Swap(0)
	if n == 0 {
		return true
	}
	frame := wire.AppendFrame(nil, wire.Header{Kind: wire.KindLost, Sequence: wire.Sequence(n)}, "", "", nil)
	v := c.out.Push(frame, nil, nil)
	switch {
	case v == outbox.Full:
		c.slow.untold.Add(n)
		return false
	case v == outbox.QueuedCold && in != nil:
		in.touched = append(in.touched, c.out)
	case v == outbox.QueuedCold:
		c.out.Flush()
	}
	return true
}

// hasRoom reports whether a frame of size bytes fits, and a word about those
// that did not.
func (c *Client) hasRoom(size int) bool {
	return c.out.Pending()+size+wire.HeaderSize <= c.hub.settings.Load().PendingBytes
}
