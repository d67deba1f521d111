package client

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
)

// trust is how the client's connections are encrypted; of the goroutine that
// connects and reads.
type trust struct {
	file   string // PEM of the CA certificates, read at each connect; empty: the configuration's
	base   *tls.Config
	config *tls.Config // of the connections now; nil before the first one
	pem    []byte      // what file said then
	name   string      // that learned addresses are verified under
}

func newTrust(o *options, given []string) *trust {
	if o.tls == nil && o.caFile == "" {
		return nil
	}
	t := &trust{file: o.caFile, base: o.tls}
	if t.base == nil {
		t.base = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	t.name, _, _ = net.SplitHostPort(given[0]) // addresses were parsed before
	return t
}

// tlsFor returns how a connection to an address is encrypted, nil when it is not.
func (c *Client) tlsFor(address string) (*tls.Config, error) {
	if c.trust == nil {
		return nil, nil
	}
	config, err := c.trust.current()
	if config == nil {
		return nil, err
	}
	c.report(err)
	if config.ServerName == "" {
		config = config.Clone()
		config.ServerName = c.trust.name
		if slices.Contains(c.given, address) {
			config.ServerName, _, _ = net.SplitHostPort(address) // addresses were parsed before
		}
	}
	return config, nil
}

// current returns the configuration of a connection that is made now. When the
// file can't be read any longer it is that of before, together with an error.
func (t *trust) current() (*tls.Config, error) {
	if t.file == "" && t.config != nil {
		return t.config, nil
	}
	config := t.base.Clone()
	if t.file != "" {
		pem, err := os.ReadFile(t.file)
		if err != nil {
			return t.config, fmt.Errorf("read the CA: %w", err)
		}
		if t.config != nil && bytes.Equal(pem, t.pem) {
			return t.config, nil
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return t.config, fmt.Errorf("read the CA: no certificate in %s", t.file)
		}
		t.pem = pem
	}
	// A cache for each CA: a session says only that the one of then was trusted.
	if config.ClientSessionCache == nil || t.file != "" {
		config.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	}
	t.config = config
	return config, nil
}

// explainTLS says what a failed handshake means, and what helps.
func explainTLS(err error, name, file string) error {
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return fmt.Errorf("does not answer with TLS (is this a hub's client port, and tls.clients not Disabled there?): %w", err)
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		if file == "" {
			file = "those that this client trusts"
		}
		return fmt.Errorf("its certificate is by another CA than %s: %w", file, err)
	}
	if names, ok := errors.AsType[x509.HostnameError](err); ok {
		return fmt.Errorf("its certificate is not for %s (connect by a name that it is for): %w", names.Host, err)
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return fmt.Errorf("its certificate has expired, or is not valid yet: %w", err)
	}
	return fmt.Errorf("TLS with %s: %w", name, err)
}
