package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"slices"
	"time"
)

const (
	// AuthorityLife is how long a new authority is valid.
	AuthorityLife = 10 * 365 * 24 * time.Hour
	// CertificateLife is how long what an authority issues is valid, unless the
	// authority ends before.
	CertificateLife = 90 * 24 * time.Hour
	// backdate is how long before it is made a certificate becomes valid: clocks of
	// clients may be slow.
	backdate = 5 * time.Minute
	// organization is in the names of all that we make.
	organization = "Switchboard"
)

// Authority is a certificate authority together with its key.
type Authority struct {
	Certificate *x509.Certificate
	key         crypto.Signer
}

// NewAuthority makes an authority. name is for people who look at its certificate, at
// most 45 bytes of it are shown.
func NewAuthority(name string, now time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	template := &x509.Certificate{
		// The time makes it another name than that of the authority before: verifiers
		// find issuers by name. A common name has at most 64 bytes.
		Subject:               pkix.Name{Organization: []string{organization}, CommonName: fmt.Sprintf("%.45s CA %s", name, now.UTC().Format("20060102-150405"))},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(AuthorityLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	certificate, err := sign(template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &Authority{Certificate: certificate, key: key}, nil
}

// Ours reports whether NewAuthority has made it, and not somebody who put it into the
// Secret: that one is theirs to replace.
func (a *Authority) Ours() bool {
	return slices.Contains(a.Certificate.Subject.Organization, organization)
}

// ParseAuthority reads an authority from a Secret's data.
func ParseAuthority(data map[string][]byte) (*Authority, error) {
	chain, key, err := parsePair(data)
	if err != nil {
		return nil, err
	}
	switch {
	case len(chain) != 1:
		return nil, fmt.Errorf("%s: holds %d certificates, must hold the authority's alone", CertificateKey, len(chain))
	case !chain[0].IsCA || chain[0].KeyUsage != 0 && chain[0].KeyUsage&x509.KeyUsageCertSign == 0:
		return nil, fmt.Errorf("%s: is no authority's certificate: it may not sign others", CertificateKey)
	}
	return &Authority{Certificate: chain[0], key: key}, nil
}

// Data returns what a Secret of the type kubernetes.io/tls holds of the authority.
func (a *Authority) Data() (map[string][]byte, error) {
	key, err := encodeKey(a.key)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{CertificateKey: EncodeCertificates([]*x509.Certificate{a.Certificate}), PrivateKeyKey: key}, nil
}

// Issue makes a key, and a certificate for it that servers and clients may use under
// all of the names. It does not outlive the authority; of one that has ended it is an
// error.
func (a *Authority) Issue(names Names, now time.Time) (*Credentials, error) {
	if !now.Before(a.Certificate.NotAfter) {
		return nil, errors.New("issue a certificate: the authority has expired")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	template := &x509.Certificate{
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(CertificateLife),
		DNSNames:              names.DNS,
		IPAddresses:           names.IPs,
		URIs:                  names.URIs,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if len(names.DNS) > 0 { // for people; nobody goes by it
		template.Subject = pkix.Name{Organization: []string{organization}, CommonName: names.DNS[0]}
	}
	if end := a.Certificate.NotAfter; template.NotAfter.After(end) {
		template.NotAfter = end
	}
	certificate, err := sign(template, a.Certificate, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	return &Credentials{Chain: []*x509.Certificate{certificate}, Authorities: []*x509.Certificate{a.Certificate}, key: key}, nil
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read a certificate that was just signed: %w", err)
	}
	return certificate, nil
}

// RenewAt is when a certificate is to be replaced: after two thirds of its life, in
// whole seconds.
func RenewAt(c *x509.Certificate) time.Time {
	return c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) / 3 * 2).Truncate(time.Second)
}
