package hubnode

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/internal/throwaway"
)

func pairOf(t *testing.T) func(cert, key []byte, err error) tls.Certificate {
	t.Helper()
	return func(cert, key []byte, err error) tls.Certificate {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		return pair
	}
}

// meet makes a connection and returns how the server sees it.
func meet(t *testing.T, server, client *tls.Config) tls.ConnectionState {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	b, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	a, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	there, here := tls.Server(a, server), tls.Client(b, client)
	done := make(chan error, 1)
	go func() {
		_, err := io.WriteString(there, "x") // behind the tickets
		done <- err
	}()
	_ = here.SetDeadline(time.Now().Add(time.Minute)) // a test that fails, not one that hangs
	if _, err := io.ReadFull(here, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return there.ConnectionState()
}

// mutualTLS may be turned on while clients have sessions that began without.
func TestACertificateIsShownByWhoComesBack(t *testing.T) {
	ca, err := throwaway.New()
	if err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(time.Hour)
	plain := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pairOf(t)(ca.Issue(end, "hub"))}}
	plain.SetSessionTicketKeys([][32]byte{{1}})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.PEM())
	client := &tls.Config{
		RootCAs: roots, ServerName: "hub", ClientSessionCache: tls.NewLRUClientSessionCache(0),
		Certificates: []tls.Certificate{pairOf(t)(ca.IssueClient(end, "device", "devices"))},
	}
	meet(t, plain, client)
	if s := meet(t, plain, client); !s.DidResume {
		t.Fatal("sessions are not resumed at all")
	}
	if s := meet(t, askingForCertificates(plain), client); len(s.PeerCertificates) == 0 {
		t.Errorf("a client that has a certificate shows none (resumed: %v)", s.DidResume)
	}
	if s := meet(t, askingForCertificates(plain), client); !s.DidResume || len(s.PeerCertificates) == 0 {
		t.Errorf("resumed: %v, with %d certificates", s.DidResume, len(s.PeerCertificates))
	}
	meet(t, plain, client)
	if s := meet(t, askingForCertificates(plain), client); len(s.PeerCertificates) == 0 {
		t.Error("shows none after it was off in between")
	}
}
