package auth

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// authorities sign the certificates of clients.
type authorities struct {
	path string

	mu   sync.Mutex // guards pool
	pool *x509.CertPool
}

func (a *authorities) reread() error {
	pool, err := readCA(a.path)
	if err != nil {
		return fmt.Errorf("read the CA of the clients' certificates: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pool = pool
	return nil
}

// readCA reads a file of CA certificates in PEM.
func readCA(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path) //nolint:gosec // the operator of the node names the file
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s", path)
	}
	return pool, nil
}

// identify finds out whose certificate a chain begins with. The connection has shown
// that the client has its key.
func (a *authorities) identify(chain []*x509.Certificate, now time.Time) (Identity, error) {
	a.mu.Lock()
	pool := a.pool
	a.mu.Unlock()
	if pool == nil {
		return Identity{}, errors.New("this node has no CA for the certificates of clients")
	}
	leaf, between := chain[0], x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: pool, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return Identity{}, fmt.Errorf("the client's certificate: %w", err)
	}
	id := Identity{Method: MutualTLS, Name: leaf.Subject.CommonName, Groups: leaf.Subject.Organization, Expires: leaf.NotAfter}
	if len(leaf.URIs) > 0 { // a SPIFFE id, which says more
		id.Name = leaf.URIs[0].String()
	}
	if id.Name == "" || len(id.Name) > maxName {
		return Identity{}, errors.New("the client's certificate has neither a URI nor a common name")
	}
	return id, nil
}
