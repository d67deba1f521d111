package admin

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/internal/throwaway"
)

// plainly is a port without TLS.
func plainly() TLS { return TLS{} }

// distant lets connections come from another machine.
type distant struct {
	net.Listener
	is atomic.Bool
}

type distantConn struct{ net.Conn }

func (distantConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 9), Port: 1} }

func (l *distant) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil || !l.is.Load() {
		return conn, err
	}
	return distantConn{conn}, nil
}

// certificate makes one for a port on loopback, and who vouches for it.
func certificate(t *testing.T) (secure *tls.Config, trusted *x509.CertPool) {
	t.Helper()
	ca, err := throwaway.New()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Pair(time.Now().Add(time.Hour), "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}, ca.Pool()
}

// TestPort has real connections, plain and encrypted, with each setting.
func TestPort(t *testing.T) {
	secure, trusted := certificate(t)
	h, err := hub.New()
	if err != nil {
		t.Fatal(err)
	}
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var now atomic.Pointer[TLS]
	now.Store(&TLS{})
	ln := &distant{Listener: socket}
	s := New(Config{Node: new(someNode), Hub: h, Log: slog.New(slog.DiscardHandler), TLS: func() TLS { return *now.Load() }}, ln)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(t.Context()) }() // ended by the test's context, waited for below
	t.Cleanup(func() {
		if err := <-ended; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	web := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS13}}}
	get := func(scheme, path string) (int, string, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, scheme+"://"+socket.Addr().String()+path, http.NoBody)
		if err != nil {
			return 0, "", err
		}
		req.Header.Set("Authorization", "Bearer viewer")
		resp, err := web.Do(req)
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body), err
	}
	const none = 0 // no answer
	for name, test := range map[string]struct {
		tls                     TLS
		distant                 bool
		path                    string
		plain, encrypted        int
		plainSays, encryptedSay string
	}{
		"no TLS, a probe":                  {TLS{}, true, "/healthz", http.StatusOK, none, "ok", ""},
		"no TLS, a list":                   {TLS{}, true, "/v1/clients", http.StatusOK, none, "clients", ""},
		"TLS or not, a list":               {TLS{Config: secure}, true, "/v1/clients", http.StatusOK, http.StatusOK, "clients", "clients"},
		"TLS required, a list":             {TLS{secure, true}, true, "/v1/clients", http.StatusForbidden, http.StatusOK, "ask over https", "clients"},
		"TLS required, a list for the pod": {TLS{secure, true}, false, "/v1/clients", http.StatusOK, http.StatusOK, "clients", "clients"},
		"TLS required, a probe":            {TLS{secure, true}, true, "/healthz", http.StatusOK, http.StatusOK, "ok", "ok"},
		"TLS required, metrics":            {TLS{secure, true}, true, "/metrics", http.StatusOK, http.StatusOK, "switchboard_clients", "switchboard_clients"},
	} {
		t.Run(name, func(t *testing.T) {
			now.Store(&test.tls)
			ln.is.Store(test.distant)
			for scheme, want := range map[string]struct {
				code int
				says string
			}{"http": {test.plain, test.plainSays}, "https": {test.encrypted, test.encryptedSay}} {
				code, says, err := get(scheme, test.path)
				if code != want.code || !strings.Contains(says, want.says) || (err == nil) != (want.code != none) {
					t.Errorf("%s = %d %.200s, %v; want %d with %q", scheme, code, says, err, want.code, want.says)
				}
			}
		})
	}
}

// Who does not trust the certificate, or says something that is neither, costs a
// connection and nothing else.
func TestPortOutlivesWhoCannotSpeak(t *testing.T) {
	secure, _ := certificate(t)
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := listener{Listener: socket, tls: func() TLS {
		return TLS{Config: secure}
	}}
	for name, say := range map[string]func(net.Conn){
		"nothing":             func(net.Conn) {},
		"not TLS behind 0x16": func(c net.Conn) { _, _ = c.Write([]byte("\x16GET / HTTP/1.1\r\n\r\n")) },
		"who does not trust": func(c net.Conn) {
			_ = tls.Client(c, &tls.Config{ServerName: "127.0.0.1", MinVersion: tls.VersionTLS13}).HandshakeContext(t.Context()) // it ends it
		},
	} {
		t.Run(name, func(t *testing.T) {
			done := make(chan struct{})
			go func() {
				defer close(done)
				conn, err := net.Dial("tcp", socket.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				say(conn)
				_ = conn.Close() // it has said what it says
			}()
			conn, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if n, err := conn.Read(make([]byte, 100)); err == nil {
					t.Errorf("%d bytes were read", n)
				}
				if n, err := conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")); err == nil && n > 0 {
					t.Errorf("%d bytes were written", n)
				}
			}
			_ = conn.Close() // the other side has gone
			<-done
		})
	}
	_ = socket.Close() // nothing comes any more
}
