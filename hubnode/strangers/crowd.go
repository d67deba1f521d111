// Package strangers bounds what those have of a port who have not said yet who they are:
// [Crowd] how many of them there are, [Addresses] what comes from one place. They come in
// by an [Entrance].
package strangers

import (
	"container/list"
	"net"
	"sync"
)

// Crowd is the connections of strangers, of which there is a most: one more ends the
// oldest. So whoever opens connections and says nothing keeps nobody out. Make it with
// [NewCrowd].
type Crowd struct {
	most int

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
	at    *list.Element
}

// NewCrowd returns a crowd of so many.
func NewCrowd(most int) *Crowd { return &Crowd{most: most} }

// Enter takes in a stranger; nil when the crowd is closed, and the connection with it.
func (c *Crowd) Enter(conn net.Conn) *Place {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		_ = conn.Close() // nobody serves it any more
		return nil
	}
	if c.in.Len() >= c.most {
		c.endOldestLocked()
	}
	p := &Place{crowd: c, conn: conn}
	p.at = c.in.PushBack(p)
	return p
}

func (c *Crowd) endOldestLocked() {
	for e := c.in.Front(); e != nil; e = e.Next() {
		if p, ok := e.Value.(*Place); ok && !p.known {
			_ = p.conn.Close() // nothing more is wanted of it
			c.in.Remove(e)
			c.ended++
			return
		}
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

// Leave takes a connection out of the crowd. More than once does nothing.
func (p *Place) Leave() {
	p.crowd.mu.Lock()
	defer p.crowd.mu.Unlock()
	p.crowd.in.Remove(p.at) // does nothing when it is out already
}
