package tenancy

import (
	"io"
	"sync"

	"github.com/switchboardhub/switchboard/wire"
)

const (
	// batch is about how many bytes are read or written at once.
	batch = 64 << 10
	// keep is how large a buffer may be to be used again.
	keep = 4 * batch
)

// buffers are for frames that are being changed: no connection holds one while it waits.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, batch); return &b }}

// Conn is the connection of a tenant's client as the hub sees it: what is read from it has
// the hub's names, and so has what is written to it. One goroutine may read while another
// one writes.
type Conn struct {
	io.Closer

	in  inbound
	out outbound
}

// Wrap returns the connection of a client whose frames r reads. r is the returned one's own
// from then on.
func Wrap(conn io.WriteCloser, r *wire.Reader, t Tenant) *Conn {
	return &Conn{
		Closer: conn,
		in:     inbound{src: r, names: translator{tenant: t}},
		out:    outbound{dst: conn, names: translator{tenant: t}},
	}
}

// PeerClosed reports whether the client has hung up, where the connection can tell.
func (c *Conn) PeerClosed() bool {
	conn, ok := c.Closer.(interface{ PeerClosed() bool })
	return ok && conn.PeerClosed()
}

// ReadTo is a [wire.Lazy]'s: while nothing comes, no buffer is held.
func (c *Conn) ReadTo(buffer func() []byte, drop func()) (int, error) {
	return c.in.readTo(buffer, drop)
}

// Read reads frames, or a part of one. It returns the errors of [wire.Reader.Next].
func (c *Conn) Read(p []byte) (int, error) { return c.in.read(p) }

// Write writes frames, or a part of one: what is not whole waits for the rest.
func (c *Conn) Write(p []byte) (int, error) { return c.out.write(p) }

// WriteAll is Write of several, one after the other.
func (c *Conn) WriteAll(all [][]byte) (int, error) { return c.out.write(all...) }

type inbound struct {
	src   *wire.Reader
	names translator
	buf   *[]byte // of buffers; nil while nothing is ready
	ready []byte
	err   error // what comes after that
}

func (in *inbound) readTo(buffer func() []byte, drop func()) (int, error) {
	if len(in.ready) == 0 && in.err == nil {
		if !in.src.Buffered() {
			drop()
		}
		in.fill()
	}
	if len(in.ready) == 0 {
		in.src.Close()
		return 0, in.err
	}
	return in.take(buffer()), nil
}

func (in *inbound) read(p []byte) (int, error) {
	return in.readTo(func() []byte { return p }, func() {})
}

func (in *inbound) take(p []byte) int {
	n := copy(p, in.ready)
	in.ready = in.ready[n:]
	if len(in.ready) == 0 {
		giveBack(in.buf, (*in.buf)[:0])
		in.buf, in.ready = nil, nil
	}
	return n
}

// fill waits for a frame, and takes those that are there, up to about a batch.
func (in *inbound) fill() {
	f, err := in.src.Next()
	if err != nil {
		in.err = err
		return
	}
	in.buf = take()
	for err == nil {
		*in.buf = in.names.appendIn(*in.buf, f)
		if len(*in.buf) >= batch || !in.src.Buffered() {
			break
		}
		f, err = in.src.Next()
	}
	in.ready, in.err = *in.buf, err
}

type outbound struct {
	dst     io.Writer
	names   translator
	part    []byte // of a frame, or of a large one's route, that is not whole yet
	through int    // bytes of a large frame that are still to come, and stay as they are
}

func (o *outbound) write(all ...[]byte) (int, error) {
	buf := take()
	b := *buf
	defer func() { giveBack(buf, b) }()
	flush := func() error {
		if len(b) == 0 {
			return nil
		}
		_, err := o.dst.Write(b)
		b = b[:0]
		return err
	}
	n := 0
	for _, p := range all {
		n += len(p)
		for len(p) > 0 {
			if len(b) >= batch {
				if err := flush(); err != nil {
					return 0, err
				}
			}
			if o.through == 0 {
				b, p = o.change(b, p)
				continue
			}
			body := p[:min(o.through, len(p))]
			p, o.through = p[len(body):], o.through-len(body)
			if len(body) < batch {
				b = append(b, body...)
				continue
			}
			if err := flush(); err != nil {
				return 0, err
			}
			if _, err := o.dst.Write(body); err != nil {
				return 0, err
			}
		}
	}
	if err := flush(); err != nil {
		return 0, err
	}
	return n, nil
}

// change appends the frame that part and p begin with, or its route when it is a large one,
// and returns what is left of p. What is not whole becomes part.
func (o *outbound) change(b, p []byte) (changed, rest []byte) {
	f := p
	if len(o.part) > 0 {
		f = o.part
	}
	for len(f) < enough(f) {
		k := min(enough(f)-len(o.part), len(p))
		if k == 0 {
			return b, nil
		}
		o.part, p = append(o.part, p[:k]...), p[k:]
		f = o.part
	}
	size := enough(f)
	if len(o.part) == 0 {
		f, p = p[:size], p[size:]
	}
	o.part = nil
	from := len(b)
	b = o.names.appendOut(b, wire.Frame(f))
	if o.through = wire.FrameSize(f) - size; o.through > 0 {
		wire.Frame(b[from:]).Extended(o.through)
	}
	return b, p
}

// enough returns how much of the frame that b begins with is changed at a time: all of it,
// or the route of a large one of artifacts, whose body has no names; more than is there when
// that can't be known yet.
func enough(b []byte) int {
	if len(b) < wire.HeaderSize {
		return wire.HeaderSize
	}
	size := wire.FrameSize(b)
	switch f := wire.Frame(b); f.Kind() {
	case wire.KindPublish, wire.KindSend, wire.KindReply:
		if size > batch {
			return f.RouteSize()
		}
	default:
	}
	return size
}

func take() *[]byte {
	b, _ := buffers.Get().(*[]byte)
	return b
}

func giveBack(buf *[]byte, b []byte) {
	if cap(b) <= keep {
		*buf = b[:0]
		buffers.Put(buf)
	}
}
