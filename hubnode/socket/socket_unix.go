//go:build linux || darwin

package socket

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Conn is a TCP connection. Besides what net.TCPConn allows, ReadTo is for one
// goroutine at a time, and so is TryWrite.
type Conn struct {
	*net.TCPConn
	raw syscall.RawConn
	in  reading
	out writing
}

// reading and writing are the arguments and results of a call under way: kept
// here, a call allocates nothing.
type reading struct {
	step   func(fd uintptr) bool
	buffer func() []byte
	drop   func()
	n      int
	err    error
}

type writing struct {
	step func(fd uintptr) bool
	all  [][]byte
	n    int
	err  error
}

// Wrap returns conn with the methods of this package when it is a TCP
// connection, else conn as it is.
func Wrap(conn net.Conn) net.Conn {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return conn
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return conn // closed already: its next use says so
	}
	c := &Conn{TCPConn: tcp, raw: raw}
	c.in.step, c.out.step = c.readStep, c.writeStep
	return c
}

// PeerClosed reports whether the other side has closed the connection, or it is
// broken, and everything that had come before was read.
func (c *Conn) PeerClosed() bool {
	var b [1]byte
	_, closed := c.look(b[:])
	return closed
}

// look copies what has arrived without reading it, and does not wait. It reports
// whether nothing has and nothing will.
func (c *Conn) look(b []byte) (n int, closed bool) {
	err := c.raw.Control(func(fd uintptr) {
		var err error
		n, _, err = unix.Recvfrom(int(fd), b, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		closed = (n == 0 && err == nil) || (err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR))
	})
	return max(n, 0), closed || err != nil
}

// ReadTo reads at least one byte into what buffer returns. While there is
// nothing to read it waits, and calls drop before: the buffer may be given to
// others then.
func (c *Conn) ReadTo(buffer func() []byte, drop func()) (int, error) {
	c.in.buffer, c.in.drop, c.in.n, c.in.err = buffer, drop, 0, nil
	if err := c.raw.Read(c.in.step); err != nil {
		return 0, err
	}
	if c.in.err != nil {
		return 0, os.NewSyscallError("read", c.in.err)
	}
	if c.in.n == 0 {
		return 0, io.EOF
	}
	return c.in.n, nil
}

// readStep tries to read; it reports false when there is nothing yet.
func (c *Conn) readStep(fd uintptr) bool {
	c.in.n, c.in.err = retry(syscall.Read, fd, c.in.buffer())
	if errors.Is(c.in.err, syscall.EAGAIN) {
		c.in.drop()
		return false
	}
	return true
}

// TryWrite writes the buffers, one after the other, as far as the connection
// takes them at once, which may be not at all, and does not wait.
func (c *Conn) TryWrite(all [][]byte) (int, error) {
	c.out.all, c.out.n, c.out.err = all, 0, nil
	err := c.raw.Write(c.out.step)
	c.out.all = nil
	switch {
	case err != nil:
		return 0, err
	case c.out.err != nil && !errors.Is(c.out.err, syscall.EAGAIN):
		return 0, os.NewSyscallError("write", c.out.err)
	}
	return max(c.out.n, 0), nil
}

func (c *Conn) writeStep(fd uintptr) bool {
	if len(c.out.all) == 1 {
		c.out.n, c.out.err = retry(syscall.Write, fd, c.out.all[0])
	} else {
		c.out.n, c.out.err = retry(unix.Writev, fd, c.out.all)
	}
	return true
}

// retry makes a system call until no signal interrupts it.
func retry[B any](call func(int, B) (int, error), fd uintptr, b B) (int, error) {
	for {
		n, err := call(int(fd), b)
		if !errors.Is(err, syscall.EINTR) {
			return n, err
		}
	}
}
