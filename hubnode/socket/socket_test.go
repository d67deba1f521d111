//go:build linux || darwin

package socket_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/socket"
)

// pair returns both ends of a TCP connection, the first of them wrapped.
func pair(t *testing.T) (*socket.Conn, *net.TCPConn) {
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
	wrapped, ok := socket.Wrap(near).(*socket.Conn)
	if !ok {
		t.Fatalf("Wrap returned a %T", socket.Wrap(near))
	}
	tcp, _ := far.(*net.TCPConn)
	return wrapped, tcp
}

func TestOthersThanTCPStayAsTheyAre(t *testing.T) {
	near, far := net.Pipe()
	defer func() { _, _ = near.Close(), far.Close() }()
	if got := socket.Wrap(near); got != near {
		t.Errorf("Wrap = %v, want its argument", got)
	}
}

func TestReadToHoldsNoBufferWhileItWaits(t *testing.T) {
	near, far := pair(t)
	var held []byte
	waits := make(chan struct{}, 10)
	buffer := func() []byte {
		if held == nil {
			held = make([]byte, 8)
		}
		return held
	}
	drop := func() {
		held = nil
		waits <- struct{}{}
	}
	got := make(chan string, 1)
	go func() {
		n, err := near.ReadTo(buffer, drop)
		if err != nil {
			t.Error(err)
		}
		got <- string(held[:n])
	}()
	<-waits
	if _, err := far.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if s := <-got; s != "hello" {
		t.Errorf("read %q", s)
	}
}

func TestReadToReadsWhatIsThereWithoutDropping(t *testing.T) {
	near, far := pair(t)
	if _, err := far.Write([]byte("0123456789")); err != nil {
		t.Fatal(err)
	}
	if err := far.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	all := make([]byte, 0, 10)
	small := make([]byte, 4)
	drops := 0
	for {
		n, err := near.ReadTo(func() []byte { return small }, func() { drops++ })
		if err != nil {
			if err != io.EOF { //nolint:errorlint // a reader's callers compare it
				t.Errorf("at the end: %v, want io.EOF", err)
			}
			break
		}
		all = append(all, small[:n]...)
	}
	if string(all) != "0123456789" {
		t.Errorf("read %q", all)
	}
	if drops > 2 { // the bytes or the end may be on their way
		t.Errorf("the buffer was given back %d times", drops)
	}
}

func TestReadToEndsWithItsDeadlineAndItsConnection(t *testing.T) {
	near, far := pair(t)
	read := func() error {
		_, err := near.ReadTo(func() []byte { return make([]byte, 1) }, func() {})
		return err
	}
	if err := near.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if err := read(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
	if err := near.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := far.SetLinger(0); err != nil { // closing resets
		t.Fatal(err)
	}
	_ = far.Close()
	if err := read(); err == nil || err == io.EOF { //nolint:errorlint // as above
		t.Errorf("after a reset: %v", err)
	}
	_ = near.Close()
	if err := read(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("once closed: %v", err)
	}
}

func TestTryWriteTakesWhatFitsAndDoesNotWait(t *testing.T) {
	near, far := pair(t)
	block := bytes.Repeat([]byte("0123456789"), 100_000)
	sent := 0
	for { // nobody reads: it has to be full one day
		n, err := near.TryWrite([][]byte{block[:7], block[7:]})
		if err != nil {
			t.Fatal(err)
		}
		sent += n
		if n == 0 {
			break
		}
		block = append(block[n:], block[:n]...) // goes on where it stopped
	}
	if err := near.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(far)
	if err != nil {
		t.Fatal(err)
	}
	if want := bytes.Repeat([]byte("0123456789"), sent/10+1)[:sent]; !bytes.Equal(got, want) {
		t.Errorf("%d bytes came of %d, or others", len(got), sent)
	}
}

func TestTryWriteReportsTheEnd(t *testing.T) {
	near, far := pair(t)
	if err := far.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	_ = far.Close()
	if _, err := near.Read(make([]byte, 1)); err == nil { // until the reset is here
		t.Fatal("read something")
	}
	if n, err := near.TryWrite([][]byte{[]byte("x")}); err == nil {
		t.Errorf("TryWrite took %d bytes of a connection that is reset", n)
	}
	_ = near.Close()
	if _, err := near.TryWrite([][]byte{[]byte("x")}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("once closed: %v", err)
	}
}

func TestNothingIsAllocated(t *testing.T) {
	near, far := pair(t)
	b := make([]byte, 16)
	halves := [][]byte{b[:8], b[8:]}
	buffer, drop := func() []byte { return b }, func() {}
	allocs := testing.AllocsPerRun(100, func() {
		if _, err := near.TryWrite(halves); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(far, b); err != nil {
			t.Error(err)
		}
		if _, err := far.Write(b); err != nil {
			t.Error(err)
		}
		if _, err := near.ReadTo(buffer, drop); err != nil {
			t.Error(err)
		}
	})
	if allocs >= 1 {
		t.Errorf("%v allocations for a write and a read", allocs)
	}
}
