// Package strangers bounds what those have of a port who have not said yet who they are:
// [Crowd] how many of them there are, [Addresses] what comes from one place. They come in
// by an [Entrance].
package strangers

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
)

// Crowd is the connections of strangers, of which there is a most: one more ends the
// oldest. So whoever opens connections and says nothing keeps nobody out. Make it with
// [NewCrowd] or [NewCrowdOf].
type Crowd struct {
	most int
	each int // from one address; 0: as many as from all

	mu     sync.Mutex // guards the fields below, and who is known
	in     list.List  // of *Place, the oldest first
	ended  uint64
	closed bool
}

// Place is a stranger's in a crowd.
type Place struct {
	crowd *Crowd
	conn  net.Conn
	known bool // it is not ended for others any more
	busy  bool // it is ended for others only when none is idle
	site  netip.Addr
	at    *list.Element
}

// NewCrowd returns a crowd of so many.
func NewCrowd(most int) *Crowd { return &Crowd{most: most} }

// NewCrowdOf returns a crowd of so many, and of no more than each from one address, as
// [SiteOf] tells them apart: one more from there ends the oldest from there.
func NewCrowdOf(most, each int) *Crowd { return &Crowd{most: most, each: each} }

// Enter takes in a stranger; nil when the crowd is closed, and the connection with it.
func (c *Crowd) Enter(conn net.Conn) *Place {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		_ = conn.Close() // nobody serves it any more
		return nil
	}
	p := &Place{crowd: c, conn: conn}
	if c.each > 0 {
		p.site, _ = SiteOf(conn.RemoteAddr())
		if c.fromLocked(p.site) >= c.each {
			c.endOldestLocked(func(other *Place) bool { return other.site == p.site })
		}
	}
	if c.in.Len() >= c.most {
		c.endOldestLocked(func(*Place) bool { return true })
	}
	p.at = c.in.PushBack(p)
	return p
}

func (c *Crowd) fromLocked(site netip.Addr) (n int) {
	for e := c.in.Front(); e != nil; e = e.Next() {
		if p, ok := e.Value.(*Place); ok && p.site == site {
			n++
		}
	}
	return n
}

// endOldestLocked ends the oldest of some that is idle, else the oldest that is busy.
func (c *Crowd) endOldestLocked(of func(*Place) bool) {
	var oldest *Place
	for e := c.in.Front(); e != nil; e = e.Next() {
		p, ok := e.Value.(*Place)
		if !ok || p.known || !of(p) || (p.busy && oldest != nil) {
			continue
		}
		oldest = p
		if !p.busy {
			break
		}
	}
	if oldest != nil {
		_ = oldest.conn.Close() // nothing more is wanted of it
		c.in.Remove(oldest.at)
		c.ended++
	}
}

// Close ends all of the crowd, those who are known as well, and whoever comes.
func (c *Crowd) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for e := c.in.Front(); e != nil; e = e.Next() {
		if p, ok := e.Value.(*Place); ok {
			_ = p.conn.Close() // what is under way there ends with it
		}
	}
}

// Ended returns how many were ended for others.
func (c *Crowd) Ended() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended
}

// Known keeps a connection from being ended for others: it is known who it is, and what
// follows takes its time.
func (p *Place) Known() {
	p.crowd.mu.Lock()
	defer p.crowd.mu.Unlock()
	p.known = true
}

// Busy says that something is done for a connection: while others are idle, those are ended.
func (p *Place) Busy() {
	p.crowd.mu.Lock()
	defer p.crowd.mu.Unlock()
	p.busy = true
}

// Idle says that nothing is done for a connection any more. It is the youngest again.
func (p *Place) Idle() {
	p.crowd.mu.Lock()
	defer p.crowd.mu.Unlock()
	p.busy = false
	p.crowd.in.MoveToBack(p.at) // does nothing when it is out already
}

// Leave takes a connection out of the crowd. More than once does nothing.
func (p *Place) Leave() {
	p.crowd.mu.Lock()
	defer p.crowd.mu.Unlock()
	p.crowd.in.Remove(p.at) // does nothing when it is out already
}
