package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"
)

// caFile is beside the certificate whom both sides of a connection trust.
const caFile = "ca.crt"

// NewMutual returns a store for connections on which both sides show a certificate:
// ca.crt in the directory is whom they trust, and id the URI that each certificate has
// to have, this one too. It reads nothing before Open.
func NewMutual(dir, id string, log *slog.Logger) *Store {
	s := New(dir, log)
	s.id = id
	return s
}

// Dial returns what connections that this side begins are to be made with, nil before
// Open or when the store is not mutual. It must not be changed.
func (s *Store) Dial() *tls.Config {
	if e := s.current.Load(); e != nil {
		return e.dial
	}
	return nil
}

// Roots returns the authorities that both sides trust, nil before Open or when the store
// is not mutual. They must not be changed.
func (s *Store) Roots() *x509.CertPool {
	if e := s.current.Load(); e != nil && e.mutual != nil {
		return e.mutual.roots
	}
	return nil
}

// WrongIdentityError says that the certificate of the other side is of an authority
// that is trusted, and for somebody else.
type WrongIdentityError struct{ Has, Wants string }

// Error names both.
func (e *WrongIdentityError) Error() string {
	return fmt.Sprintf("the certificate is for %s, it has to be for %s", e.Has, e.Wants)
}

// WrongIdentity tells the error from others.
func (e *WrongIdentityError) WrongIdentity() {}

// mutual is whom both sides of a connection trust.
type mutual struct {
	id    string
	text  []byte // of ca.crt
	roots *x509.CertPool
}

// newMutual reads ca.crt, and checks that the others, who have the same, would accept
// this certificate: a set of files that is half written is none.
func newMutual(id string, text []byte, dir string, leaf *x509.Certificate, chain [][]byte) (*mutual, error) {
	m := &mutual{id: id, text: text, roots: x509.NewCertPool()}
	if !m.roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("no certificate in %s", filepath.Join(dir, caFile))
	}
	between := x509.NewCertPool()
	for _, der := range chain[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(dir, certFile), err)
		}
		between.AddCert(c)
	}
	// Whether it is valid now is for the caller to judge.
	now := time.Now()
	switch {
	case now.After(leaf.NotAfter):
		now = leaf.NotAfter
	case now.Before(leaf.NotBefore):
		now = leaf.NotBefore
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		_, err := leaf.Verify(x509.VerifyOptions{Roots: m.roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}})
		if err != nil {
			return nil, fmt.Errorf("%s does not go by %s in %s: %w", certFile, caFile, dir, err)
		}
	}
	if err := m.identify(leaf); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, certFile), err)
	}
	return m, nil
}

// configs returns what to accept and to dial with. No session is resumed: connections
// are few and live long, and each is to be judged by what is trusted now.
func (m *mutual) configs(pair tls.Certificate) (accept, dial *tls.Config) {
	accept = &tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13,
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: m.roots,
		VerifyConnection:       func(c tls.ConnectionState) error { return m.identify(c.PeerCertificates[0]) },
		SessionTicketsDisabled: true, DynamicRecordSizingDisabled: true,
	}
	dial = &tls.Config{
		MinVersion: tls.VersionTLS13,
		// Also to who does not ask for one of its authority: the refusal says more
		// than that there was none.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil },
		// Nodes go by addresses that no certificate has: VerifyConnection verifies
		// all but the name, and the identity in its place.
		InsecureSkipVerify:     true, //nolint:gosec // see above
		VerifyConnection:       m.verifyServer,
		SessionTicketsDisabled: true, DynamicRecordSizingDisabled: true,
	}
	return accept, dial
}

// verifyServer verifies the certificate of who was dialled.
func (m *mutual) verifyServer(c tls.ConnectionState) error {
	if len(c.PeerCertificates) == 0 {
		return errors.New("the node shows no certificate") // which crypto/tls does not let pass
	}
	between := x509.NewCertPool()
	for _, one := range c.PeerCertificates[1:] {
		between.AddCert(one)
	}
	leaf := c.PeerCertificates[0]
	_, err := leaf.Verify(x509.VerifyOptions{Roots: m.roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	if err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: c.PeerCertificates, Err: err}
	}
	return m.identify(leaf)
}

// identify checks who a certificate is for.
func (m *mutual) identify(leaf *x509.Certificate) error {
	var has []string
	for _, uri := range leaf.URIs {
		has = append(has, uri.String())
	}
	if slices.Contains(has, m.id) {
		return nil
	}
	return &WrongIdentityError{Has: fmt.Sprintf("%.200q", has), Wants: m.id}
}
