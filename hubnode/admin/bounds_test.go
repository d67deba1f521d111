package admin

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/hubnode/strangers"
)

const patience = 10 * time.Second

// afar lets connections from 127.1.x.y come from 10.1.x.y, and others from where they do.
type afar struct{ net.Listener }

type afarConn struct {
	net.Conn
	from *net.TCPAddr
}

func (c afarConn) RemoteAddr() net.Addr { return c.from }

func (l afar) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if from, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		if ip := from.IP.To4(); ip != nil && ip[1] == 1 {
			return afarConn{conn, &net.TCPAddr{IP: net.IPv4(10, 1, ip[2], ip[3]), Port: from.Port}}, nil
		}
	}
	return conn, nil
}

// serveOn runs an API until the test ends.
func serveOn(t *testing.T, ln net.Listener, node *someNode) {
	t.Helper()
	h, err := hub.New()
	if err != nil {
		t.Fatal(err)
	}
	s := New(Config{Node: node, Hub: h, Log: slog.New(slog.DiscardHandler), TLS: plainly}, ln)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(t.Context()) }() // ended by the test's context, waited for below
	t.Cleanup(func() {
		if err := <-ended; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}

// get asks over a connection for a path and returns the status.
func get(t *testing.T, conn net.Conn, path string) int {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("GET %s: %v", path, err)
	}
	_, _ = io.Copy(io.Discard, resp.Body) // its status matters
	_ = resp.Body.Close()                 // likewise
	return resp.StatusCode
}

// Whoever holds connections, from one address or from many, keeps no probe and no scrape out;
// what comes over loopback is not counted.
func TestHeldConnectionsKeepNoProbeOut(t *testing.T) {
	for name, test := range map[string]struct {
		held  int
		from  func(i int) net.IP
		probe net.IP
		ended bool // the oldest
	}{
		"from its own address": {3 * connectionsEach, func(int) net.IP { return net.IPv4(127, 1, 0, 1) }, net.IPv4(127, 1, 0, 1), true},
		"from many":            {connectionsMost + 50, func(i int) net.IP { return net.IPv4(127, 1, byte(i>>4), byte(i)) }, net.IPv4(127, 1, 200, 1), true},
		"over loopback":        {connectionsMost + 50, func(int) net.IP { return net.IPv4(127, 0, 0, 1) }, net.IPv4(127, 1, 0, 1), false},
	} {
		t.Run(name, func(t *testing.T) {
			socket, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			serveOn(t, afar{socket}, new(someNode))
			dial := func(from net.IP) net.Conn {
				t.Helper()
				d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}
				conn, err := d.DialContext(t.Context(), "tcp4", socket.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = conn.Close() })
				return conn
			}
			first := dial(test.from(0))
			for i := range test.held - 1 {
				dial(test.from(i + 1))
			}
			for _, path := range []string{"/healthz", "/metrics"} {
				if status := get(t, dial(test.probe), path); status != http.StatusOK {
					t.Errorf("%s = %d", path, status)
				}
			}
			if !test.ended {
				if status := get(t, first, "/healthz"); status != http.StatusOK {
					t.Errorf("the first connection hears %d", status)
				}
				return
			}
			_ = first.SetReadDeadline(time.Now().Add(headerTime / 2)) // before its time is over
			if _, err := first.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the oldest connection reads %v, want its end", err)
			}
		})
	}
}

// piped is a listener in memory, for the time of a bubble.
type piped struct {
	conns chan net.Conn
	close func()
	ended chan struct{}
}

func newPiped() *piped {
	p := &piped{conns: make(chan net.Conn), ended: make(chan struct{})}
	p.close = sync.OnceFunc(func() { close(p.ended) })
	return p
}

func (p *piped) dial() net.Conn {
	ours, theirs := net.Pipe()
	p.conns <- afarConn{theirs, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}}
	return ours
}

func (p *piped) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.ended:
		return nil, net.ErrClosed
	}
}

func (p *piped) Addr() net.Addr { return &net.TCPAddr{} }

func (p *piped) Close() error {
	p.close()
	return nil
}

// What does not come, and what nobody reads, ends its connection, also over loopback; what
// takes its time in the node does not.
func TestNothingIsHeldForEver(t *testing.T) {
	for name, test := range map[string]struct {
		says  string
		reads bool
		after time.Duration // it has ended by then, and had not long before
		hears string
	}{
		"a connection that says nothing": {"", true, headerTime, ""},
		"headers that never end":         {"GET /healthz HTTP/1.1\r\nHost: lo", true, headerTime, ""},
		"a body that never comes":        {"POST /v1/drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n", true, requestTime, "202 Accepted"},
		"nothing more":                   {"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", true, idleTime, "200 OK"},
		"an answer that nobody reads":    {"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", false, answerTime, ""},
		"what takes an hour":             {"POST /v1/rebalance HTTP/1.1\r\nHost: localhost\r\n\r\n", true, time.Hour + idleTime, `{"moved":7}`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ln := newPiped()
				serveOn(t, ln, &someNode{rebalance: time.Hour})
				conn, start := ln.dial(), time.Now()
				defer conn.Close()
				if test.says != "" { // a pipe waits for a reader also of nothing
					_, _ = io.WriteString(conn, test.says)
				}
				if !test.reads {
					time.Sleep(test.after + 5*time.Second) // of the bubble
				}
				heard, err := io.ReadAll(conn)
				took := time.Since(start)
				if err != nil || took < test.after || took > test.after+6*time.Second {
					t.Errorf("it ended after %v, %v; want %v", took, err, test.after)
				}
				if !strings.Contains(string(heard), test.hears) || (test.hears == "" && len(heard) > 0) {
					t.Errorf("it heard %q, want %q", heard, test.hears)
				}
			})
		})
	}
}

func TestLoopbackIsNotCounted(t *testing.T) {
	for from, counted := range map[string]bool{"127.0.0.1": false, "::1": false, "::ffff:127.0.0.1": false, "127.0.0.6": true, "::ffff:127.0.0.6": true, "10.0.0.9": true, "2001:db8::1": true} {
		ln := newPiped()
		ours, theirs := net.Pipe()
		go func() { ln.conns <- afarConn{theirs, &net.TCPAddr{IP: net.ParseIP(from), Port: 1}} }() // ends with the next line
		conn, err := listener{Listener: ln, tls: plainly, crowd: strangers.NewCrowdOf(2, 1)}.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if c, ok := conn.(*connection); !ok || (c.place != nil) != counted {
			t.Errorf("%s is counted: %v, want %v", from, !counted, counted)
		}
		_, _ = conn.Close(), ours.Close() // a pipe's never fails
	}
}
