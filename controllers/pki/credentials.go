package pki

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Names are what a certificate is valid for.
type Names struct {
	DNS  []string
	IPs  []net.IP
	URIs []*url.URL
}

// Credentials are what a node proves who it is by, and whom it and its clients trust.
type Credentials struct {
	// Chain is the certificate, and after it those between it and an authority.
	Chain []*x509.Certificate
	// Authorities are trusted.
	Authorities []*x509.Certificate

	key crypto.Signer
}

// ParseCredentials reads credentials from a Secret's data. The error says what is
// wrong with which key of it, and nothing of a private key. Whether they are valid is
// another matter: see Verify.
func ParseCredentials(data map[string][]byte) (*Credentials, error) {
	chain, key, err := parsePair(data)
	if err != nil {
		return nil, err
	}
	authorities, err := ParseCertificates(data[AuthoritiesKey])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", AuthoritiesKey, err)
	}
	return &Credentials{Chain: chain, Authorities: authorities, key: key}, nil
}

func parsePair(data map[string][]byte) ([]*x509.Certificate, crypto.Signer, error) {
	chain, err := ParseCertificates(data[CertificateKey])
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", CertificateKey, err)
	}
	key, err := parseKey(data[PrivateKeyKey])
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", PrivateKeyKey, err)
	}
	if !belong(chain[0], key) {
		return nil, nil, fmt.Errorf("%s: is not the key of the first certificate in %s", PrivateKeyKey, CertificateKey)
	}
	return chain, key, nil
}

// maxGiven bounds how many certificates one key of somebody's Secret may hold: while
// one gives way to another, nodes have those of both.
const maxGiven = 64

// ParseGiven reads credentials as ParseCredentials does, from a Secret that somebody
// else keeps.
func ParseGiven(data map[string][]byte) (*Credentials, error) {
	c, err := ParseCredentials(data)
	switch {
	case err != nil:
		return nil, err
	case len(c.Chain) > maxGiven:
		return nil, fmt.Errorf("%s: holds %d certificates, more than %d", CertificateKey, len(c.Chain), maxGiven)
	case len(c.Authorities) > maxGiven:
		return nil, fmt.Errorf("%s: holds %d certificates, more than %d", AuthoritiesKey, len(c.Authorities), maxGiven)
	}
	return c, nil
}

// Data returns what a Secret of the type kubernetes.io/tls holds of the credentials.
// The same credentials give the same bytes.
func (c *Credentials) Data() (map[string][]byte, error) {
	key, err := encodeKey(c.key)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{
		CertificateKey: EncodeCertificates(c.Chain),
		PrivateKeyKey:  key,
		AuthoritiesKey: EncodeCertificates(c.Authorities),
	}, nil
}

// Leaf is the certificate itself.
func (c *Credentials) Leaf() *x509.Certificate { return c.Chain[0] }

// Key is the private key of the certificate.
func (c *Credentials) Key() crypto.Signer { return c.key }

// Trusting returns the same certificate with other authorities.
func (c *Credentials) Trusting(authorities []*x509.Certificate) *Credentials {
	return &Credentials{Chain: c.Chain, Authorities: authorities, key: c.key}
}

// ExpiredError says that a certificate was valid once.
type ExpiredError struct{ At time.Time }

// Error says since when.
func (e *ExpiredError) Error() string {
	return fmt.Sprintf("%s: has expired at %s", CertificateKey, e.At.UTC().Format(time.RFC3339))
}

// Verify reports why clients that trust the given authorities would refuse the
// certificate now, other than for its names: an *ExpiredError when it has expired.
func (c *Credentials) Verify(authorities []*x509.Certificate, now time.Time) error {
	leaf := c.Leaf()
	switch {
	case now.After(leaf.NotAfter):
		return &ExpiredError{At: leaf.NotAfter}
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("%s: is not valid before %s", CertificateKey, leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, a := range authorities {
		roots.AddCert(a)
	}
	for _, b := range c.Chain[1:] {
		between.AddCert(b)
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now})
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf("%s: is not issued by an authority in %s", CertificateKey, AuthoritiesKey)
	case err != nil:
		return fmt.Errorf("%s: %w", CertificateKey, err)
	}
	return nil
}

// Covers reports whether the certificate is valid for exactly these names, in
// whatever order.
func (c *Credentials) Covers(names Names) bool {
	leaf := c.Leaf()
	uris := func(all []*url.URL) (texts []string) {
		for _, u := range all {
			texts = append(texts, u.String())
		}
		return texts
	}
	ips := func(all []net.IP) (texts []string) {
		for _, ip := range all {
			texts = append(texts, ip.String())
		}
		return texts
	}
	return same(leaf.DNSNames, names.DNS) && same(ips(leaf.IPAddresses), ips(names.IPs)) && same(uris(leaf.URIs), uris(names.URIs))
}

// same compares two lists as sets.
func same(a, b []string) bool {
	a, b = slices.Compact(slices.Sorted(slices.Values(a))), slices.Compact(slices.Sorted(slices.Values(b)))
	return slices.Equal(a, b)
}

// Equal reports whether two lists hold the same certificates in the same order.
func Equal(a, b []*x509.Certificate) bool {
	return slices.EqualFunc(a, b, (*x509.Certificate).Equal)
}

// Union returns the certificates of both lists, each once: those of a first.
func Union(a, b []*x509.Certificate) []*x509.Certificate {
	var all []*x509.Certificate
	for _, c := range slices.Concat(a, b) {
		if !slices.ContainsFunc(all, c.Equal) {
			all = append(all, c)
		}
	}
	return all
}

// SameCertificate reports whether both have the same certificate and key.
func SameCertificate(a, b *Credentials) bool {
	return Equal(a.Chain, b.Chain) && belong(a.Leaf(), b.key)
}

// Describe names a certificate for people: by its name, or by its number.
func Describe(c *x509.Certificate) string {
	if c.Subject.CommonName != "" {
		return strings.ToValidUTF8(c.Subject.CommonName, "")
	}
	return fmt.Sprintf("serial number %X", c.SerialNumber)
}
