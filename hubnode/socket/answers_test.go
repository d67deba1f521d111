//go:build linux || darwin

package socket

import (
	"io"
	"net"
	"testing"
	"time"
)

// loopback returns records over one end of a TCP connection, and the other end.
func loopback(t *testing.T) (*records, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // both ends are there by then
	far, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	conn, _ := Wrap(near).(*Conn)
	tcp, _ := far.(*net.TCPConn)
	return newRecords(conn), tcp
}

// A peer that asks all the time, and reads only so much that some answer always waits,
// does not make us keep those that were sent.
func TestAnswersThatWereSentAreNotKept(t *testing.T) {
	r, far := loopback(t)
	for _, err := range []error{r.SetWriteBuffer(8 << 10), far.SetReadBuffer(8 << 10)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	answer, sink := make([]byte, 27), make([]byte, 32<<10)
	for n := range 16_000 {
		if r.out != nil && len(*r.out)-r.sent > maxUnsent/2 {
			if err := far.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil { // only what is there
				t.Fatal(err)
			}
			_, _ = far.Read(sink)
		}
		if _, err := r.Write(answer); err != nil {
			t.Fatalf("after %d answers: %v", n, err)
		}
		if r.out != nil && cap(*r.out) > 2*maxUnsent {
			t.Fatalf("%d bytes are kept after %d answers, %d of them were sent", cap(*r.out), n, r.sent)
		}
	}
}

// What is added while somebody else sends is sent by them.
func TestReleaseSendsWhatWasAdded(t *testing.T) {
	r, far := loopback(t)
	r.hold()
	if _, err := r.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	r.release()
	if err := far.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(far, make([]byte, len("answer"))); err != nil {
		t.Fatal(err)
	}
}
