// Package throwaway makes certificate authorities for hubs that live for an
// afternoon: those of hubctl dev, of tests and of measurements. Nothing is
// renewed, and nobody should trust them for longer.
package throwaway

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// CAFile is the file that [CA.Write] leaves the CA's certificate in.
const CAFile = "ca.crt"

// Lifetime is how long a CA is good for.
const Lifetime = 30 * 24 * time.Hour

// CA is a certificate authority.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// New returns a CA of its own.
func New() (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a CA: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "Switchboard throwaway CA"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(Lifetime),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make a CA: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make a CA: %w", err)
	}
	return &CA{cert, key}, nil
}

// PEM returns the CA's certificate.
func (ca *CA) PEM() []byte { return block("CERTIFICATE", ca.cert.Raw) }

// Pool returns a pool of the CA alone.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

// Issue returns a server's certificate for names, which may be IP addresses and URIs,
// and its key, in PEM. It expires at the end. One for a URI is good for clients, too.
func (ca *CA) Issue(end time.Time, names ...string) (cert, key []byte, err error) {
	return ca.IssueFrom(ca.cert.NotBefore, end, names...)
}

// Pair is Issue for who uses the certificate at once.
func (ca *CA) Pair(end time.Time, names ...string) (tls.Certificate, error) {
	cert, key, err := ca.Issue(end, names...)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(cert, key)
}

// IssueFrom is Issue for a certificate that is not valid before begin.
func (ca *CA) IssueFrom(begin, end time.Time, names ...string) (cert, key []byte, err error) {
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "switchboard"}, NotBefore: begin, NotAfter: end,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		uri, err := url.Parse(name)
		ip := net.ParseIP(name)
		switch {
		case ip != nil:
			template.IPAddresses = append(template.IPAddresses, ip)
		case err == nil && uri.Scheme != "":
			template.URIs = append(template.URIs, uri)
			template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
		default:
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	return ca.issue(template)
}

// IssueClient returns a client's certificate and its key, in PEM. It expires at the end.
func (ca *CA) IssueClient(end time.Time, name string, groups ...string) (cert, key []byte, err error) {
	return ca.issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: name, Organization: groups}, NotBefore: ca.cert.NotBefore, NotAfter: end, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

func (ca *CA) issue(template *x509.Certificate) (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	template.SerialNumber, template.KeyUsage = big.NewInt(time.Now().UnixNano()), x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, private.Public(), ca.key)
	if err != nil {
		return nil, nil, fmt.Errorf("issue a certificate: %w", err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, fmt.Errorf("write a key: %w", err)
	}
	return block("CERTIFICATE", der), block("PRIVATE KEY", encoded), nil
}

// Write issues a certificate for names and lays it out in a directory as a Secret
// of type kubernetes.io/tls is mounted: tls.crt, tls.key and ca.crt.
func (ca *CA) Write(dir string, names ...string) error {
	cert, key, err := ca.Issue(ca.cert.NotAfter, names...)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, CAFile), ca.PEM(), 0o600),
		os.WriteFile(filepath.Join(dir, "tls.crt"), cert, 0o600),
		os.WriteFile(filepath.Join(dir, "tls.key"), key, 0o600),
	)
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
