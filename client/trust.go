package client

import (
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
	files  files // read at each connect; those without a name: the configuration's
	base   *tls.Config
	config *tls.Config // of the connections now; nil before the first one
	said   [3]string   // by the files then
	name   string      // that learned addresses are verified under
}

// files are the names of PEM files.
type files struct{ ca, cert, key string }

func newTrust(o *options, given []string) *trust {
	t := &trust{files: files{o.caFile, o.certFile, o.keyFile}, base: o.tls}
	if t.base == nil && t.files == (files{}) {
		return nil
	}
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

// current returns the configuration of a connection that is made now. When a file
// can't be read any longer it is that of before, together with an error.
func (t *trust) current() (*tls.Config, error) {
	said, err := t.files.read()
	if err != nil {
		return t.config, err
	}
	if t.config != nil && said == t.said {
		return t.config, nil
	}
	config := t.base.Clone()
	if t.files.ca != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(said[0])) {
			return t.config, fmt.Errorf("read the CA: no certificate in %s", t.files.ca)
		}
	}
	if t.files.cert != "" || t.files.key != "" {
		pair, err := tls.X509KeyPair([]byte(said[1]), []byte(said[2]))
		if err != nil {
			return t.config, fmt.Errorf("%s and %s are not a certificate and its key: %w", t.files.cert, t.files.key, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	// A cache for each version of the files: a session says only that the CA of then was
	// trusted, and who the client was then.
	if config.ClientSessionCache == nil || t.files != (files{}) {
		config.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	}
	t.config, t.said = config, said
	return config, nil
}

func (f files) read() (said [3]string, err error) {
	for i, one := range []struct{ what, name string }{{"the CA", f.ca}, {"the client's certificate", f.cert}, {"the client's key", f.key}} {
		if one.name == "" {
			continue
		}
		text, err := os.ReadFile(one.name)
		if err != nil {
			return said, fmt.Errorf("read %s: %w", one.what, err)
		}
		said[i] = string(text)
	}
	return said, nil
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
