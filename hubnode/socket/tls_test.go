//go:build linux || darwin

package socket_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/socket"
	"github.com/switchboardhub/switchboard/internal/throwaway"
)

// configs returns a server's and a client's TLS, with a certificate for the names or, without
// any, for "hub".
func configs(t *testing.T, names ...string) (server, client *tls.Config) {
	t.Helper()
	ca, err := throwaway.New()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Pair(time.Now().Add(time.Hour), append(names, "hub")...)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true},
		&tls.Config{RootCAs: ca.Pool(), ServerName: "hub", MinVersion: tls.VersionTLS13}
}

// tlsPair returns both ends of an encrypted connection, and what is under the far
// one.
func tlsPair(t *testing.T) (near *socket.TLSConn, far *tls.Conn, under *net.TCPConn) {
	t.Helper()
	plain, under := pair(t)
	server, client := configs(t)
	far = tls.Client(under, client)
	shaken := make(chan error, 1)
	go func() { shaken <- far.Handshake() }()
	first, conn, err := socket.First(plain)
	if err != nil || first != 0x16 {
		t.Fatalf("First = %#x, %v", first, err)
	}
	secured, _, err := socket.Serve(t.Context(), conn, server)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
	near, ok := secured.(*socket.TLSConn)
	if !ok {
		t.Fatalf("Serve returned a %T", secured)
	}
	return near, far, under
}

func TestFirstLeavesTheByteToBeRead(t *testing.T) {
	near, far := pair(t)
	if _, err := far.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	first, conn, err := socket.First(near)
	if err != nil || first != 'h' || conn != net.Conn(near) {
		t.Fatalf("First = %q, %v, %v", first, conn, err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "hello" {
		t.Errorf("then %q, %v", got, err)
	}
	_ = far.Close()
	if _, _, err := socket.First(near); err != io.EOF { //nolint:errorlint // its callers compare it
		t.Errorf("at the end: %v", err)
	}
	if err := near.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := socket.First(near); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
}

func TestOthersThanTCPAreEncryptedToo(t *testing.T) {
	a, b := net.Pipe()
	server, client := configs(t)
	far := tls.Client(b, client)
	defer func() { _, _ = a.Close(), b.Close() }()
	go func() { _, _ = far.Write([]byte("hello")) }()
	first, conn, err := socket.First(a)
	if err != nil || first != 0x16 {
		t.Fatalf("First = %#x, %v", first, err)
	}
	near, _, err := socket.Serve(t.Context(), conn, server)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(near, got); err != nil || string(got) != "hello" {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestTLSReadToHoldsNoBufferWhileItWaits(t *testing.T) {
	near, far, _ := tlsPair(t)
	var held []byte
	waits := make(chan struct{}, 10)
	got := make(chan string, 1)
	go func() {
		n, err := near.ReadTo(func() []byte {
			if held == nil {
				held = make([]byte, 8)
			}
			return held
		}, func() {
			held = nil
			waits <- struct{}{}
		})
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

// What arrives in any pieces, and records of any size, is read as it was written.
func TestTLSReadsWhatWasWritten(t *testing.T) {
	near, far, _ := tlsPair(t)
	want := numbered(3 << 20)
	go func() {
		for size, rest := 1, want; len(rest) > 0; size = size*3%50_021 + 1 {
			n := min(size, len(rest))
			if _, err := far.Write(rest[:n]); err != nil {
				t.Error(err)
			}
			rest = rest[n:]
		}
		_ = far.CloseWrite()
	}()
	var got []byte
	small := make([]byte, 40_000)
	for {
		n, err := near.ReadTo(func() []byte { return small }, func() {})
		if err != nil {
			if err != io.EOF { //nolint:errorlint // a reader's callers compare it
				t.Errorf("at the end: %v, want io.EOF", err)
			}
			break
		}
		got = append(got, small[:n]...)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes came of %d, or others", len(got), len(want))
	}
}

// numbered returns bytes in which a piece that is lost, doubled or moved shows.
func numbered(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return b
}

// What TryWrite leaves is written next, by either way, and comes once.
func TestTLSWritesWhatFitsAndTheRestLater(t *testing.T) {
	near, far, _ := tlsPair(t)
	want := numbered(24 << 20)
	cut := func(b []byte) [][]byte { // small and large buffers, and empty ones
		var all [][]byte
		for i := 0; len(b) > 0; i++ {
			n := min([]int{7, 0, 30_000, 2000, 1, 70_000}[i%6], len(b))
			all = append(all, b[:n])
			b = b[n:]
		}
		return all
	}
	rest := want
	for { // nobody reads: it has to be full one day
		n, err := near.TryWrite(cut(rest[:min(len(rest), 256<<10)]))
		if err != nil {
			t.Fatal(err)
		}
		if rest = rest[n:]; n == 0 {
			break
		}
	}
	if len(rest) == 0 {
		t.Fatal("the connection took everything: the test shows nothing")
	}
	read := make(chan []byte, 1)
	go func() {
		got, err := io.ReadAll(far)
		if err != nil {
			t.Error(err)
		}
		read <- got
	}()
	for i := 0; len(rest) > 0; i++ {
		step := rest[:min(len(rest), 100_000)]
		var n int
		var err error
		switch i % 3 {
		case 0:
			n, err = near.WriteAll(cut(step))
		case 1:
			n, err = near.TryWrite(cut(step))
		default:
			n, err = near.Write(step)
		}
		if err != nil {
			t.Fatal(err)
		}
		if rest = rest[n:]; i%3 == 1 && n < len(step) { // the rest of it has to be next
			if n, err = near.WriteAll([][]byte{step[n:]}); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
	}
	if err := near.Close(); err != nil {
		t.Fatal(err)
	}
	if got := <-read; !bytes.Equal(got, want) {
		t.Errorf("%d bytes came of %d, or others", len(got), len(want))
	}
}

// A peer that reads nothing holds up neither the close of the connection nor what
// is written in passing.
func TestTLSCloseEndsAWriteUnderWay(t *testing.T) {
	near, _, _ := tlsPair(t)
	written := make(chan error, 1)
	started := make(chan struct{})
	go func() {
		block := make([]byte, 1<<20)
		for first := true; ; first = false {
			if _, err := near.Write(block); err != nil {
				written <- err
				return
			}
			if first {
				close(started)
			}
		}
	}()
	<-started
	if err := near.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	if err := <-written; err == nil {
		t.Error("Write of a closed connection reports nothing")
	}
	if _, err := near.TryWrite([][]byte{{1}}); err == nil {
		t.Error("TryWrite of a closed connection reports nothing")
	}
	if _, err := near.Read(make([]byte, 1)); err == nil {
		t.Error("Read of a closed connection reports nothing")
	}
}

func TestTLSPeerClosed(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(far *tls.Conn, under *net.TCPConn) error
		want bool
	}{
		"open":                {func(*tls.Conn, *net.TCPConn) error { return nil }, false},
		"closed":              {func(far *tls.Conn, _ *net.TCPConn) error { return far.Close() }, true},
		"gone without a word": {func(_ *tls.Conn, under *net.TCPConn) error { return under.Close() }, true},
		"closed, and was active": {func(far *tls.Conn, _ *net.TCPConn) error {
			_, err := far.Write(make([]byte, 24))
			return errors.Join(err, far.Close())
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			near, far, under := tlsPair(t)
			if err := test.end(far, under); err != nil {
				t.Fatal(err)
			}
			if !test.want {
				if near.PeerClosed() {
					t.Error("PeerClosed = true")
				}
				return
			}
			deadline := time.Now().Add(10 * time.Second)
			for !near.PeerClosed() {
				if time.Now().After(deadline) {
					t.Fatal("PeerClosed stays false")
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
}

// Garbage behind the handshake ends the connection, and the peer hears of it.
func TestTLSRefusesGarbage(t *testing.T) {
	near, far, under := tlsPair(t)
	if _, err := under.Write(append([]byte{23, 3, 3, 0, 40}, make([]byte, 40)...)); err != nil {
		t.Fatal(err)
	}
	if _, err := near.Read(make([]byte, 10)); err == nil || err == io.EOF { //nolint:errorlint // as above
		t.Errorf("Read = %v", err)
	}
	if _, err := far.Read(make([]byte, 10)); err == nil || err == io.EOF { //nolint:errorlint // as above
		t.Errorf("the peer reads %v, want the alert", err)
	}
}

func TestTLSHandshakeEndsWithItsDeadlineAndItsContext(t *testing.T) {
	server, _ := configs(t)
	near, _ := pair(t)
	if err := near.SetDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := socket.Serve(t.Context(), near, server); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
	near, _ = pair(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := socket.Serve(ctx, near, server); !errors.Is(err, context.Canceled) {
		t.Errorf("after the context: %v", err)
	}
}

// What a failed write has lost can't be made good: the next write says so.
func TestTLSWritesNothingAfterAWriteThatFailed(t *testing.T) {
	near, _, under := tlsPair(t)
	block := make([]byte, 256<<10)
	for failed := false; !failed; { // the kernel takes some: what it has room for grows meanwhile
		if err := near.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		_, err := near.Write(block)
		failed = err != nil
	}
	if err := near.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = io.Copy(io.Discard, under) }) // there is room again
	if n, err := near.Write([]byte("x")); err == nil {
		t.Errorf("wrote %d bytes", n)
	}
	_ = near.Close()
	reading.Wait()
}

// A handshake whose answer the connection does not take at once goes on.
func TestTLSHandshakeLargerThanTheSendBuffer(t *testing.T) {
	plain, under := pair(t)
	var names []string
	for i := range 3000 {
		names = append(names, fmt.Sprintf("host-%d.example.com", i))
	}
	server, client := configs(t, names...)
	for _, err := range []error{plain.SetWriteBuffer(4 << 10), under.SetReadBuffer(4 << 10), plain.SetDeadline(time.Now().Add(20 * time.Second))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	far := tls.Client(under, client)
	shaken := make(chan error, 1)
	go func() { shaken <- far.Handshake() }()
	if _, _, err := socket.Serve(t.Context(), plain, server); err != nil {
		t.Fatal(err)
	}
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
}
