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

func (in *inbound) read(p []byte) (int, error) {
	if len(in.ready) == 0 {
		if in.err == nil {
			in.fill(len(p))
		}
		if len(in.ready) == 0 {
			in.src.Close()
			return 0, in.err
		}
	}
	n := copy(p, in.ready)
	in.ready = in.ready[n:]
	if len(in.ready) == 0 {
		giveBack(in.buf, (*in.buf)[:0])
		in.buf, in.ready = nil, nil
	}
	return n, nil
}

// fill waits for a frame, and takes those that are there, up to about so many bytes.
func (in *inbound) fill(most int) {
	f, err := in.src.Next()
	if err != nil {
		in.err = err
		return
	}
	in.buf = take()
	for err == nil {
		*in.buf = in.names.appendIn(*in.buf, f)
		if len(*in.buf) >= min(most, batch) || !in.src.Buffered() {
			break
		}
		f, err = in.src.Next()
	}
	in.ready, in.err = *in.buf, err
}

type outbound struct {
	dst   io.Writer
	names translator
	part  []byte // of a frame that is not whole yet
}

func (o *outbound) write(all ...[]byte) (int, error) {
	buf := take()
	b := *buf
	defer func() { giveBack(buf, b) }()
	n := 0
	for _, p := range all {
		n += len(p)
		for len(p) > 0 {
			var f wire.Frame
			if f, p = o.next(p); f == nil {
				break
			}
			b = o.names.appendOut(b, f)
			if len(o.part) > 0 {
				o.part = nil
			}
			if len(b) < batch {
				continue
			}
			if _, err := o.dst.Write(b); err != nil {
				return 0, err
			}
			b = b[:0]
		}
	}
	if len(b) > 0 {
		if _, err := o.dst.Write(b); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// next returns the frame that part and p begin with, nil when it is not whole, and what is
// left of p.
func (o *outbound) next(p []byte) (f wire.Frame, rest []byte) {
	if len(o.part) == 0 {
		if size := wire.FrameSize(p); size > 0 && size <= len(p) { // as most are
			return wire.Frame(p[:size]), p[size:]
		}
	}
	for {
		want := 4 // the length
		if size := wire.FrameSize(o.part); size > 0 {
			want = size
		}
		n := min(want-len(o.part), len(p))
		o.part, p = append(o.part, p[:n]...), p[n:]
		switch {
		case len(o.part) < want:
			return nil, nil
		case want > 4:
			return wire.Frame(o.part), p
		}
	}
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
