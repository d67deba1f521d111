package client

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/switchboardhub/switchboard/internal/throwaway"
)

func caFile(t *testing.T, path string) *x509.CertPool {
	t.Helper()
	ca, err := throwaway.New()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	return ca.Pool()
}

func TestTheCAFileIsReadAtEachConnect(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca.crt")
	trusts := newTrust(&options{caFile: path}, []string{"hub:7400"})
	if config, err := trusts.current(); config != nil || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a file: %v, %v", config, err)
	}
	first := caFile(t, path)
	config, err := trusts.current()
	if err != nil || !config.RootCAs.Equal(first) || config.ClientSessionCache == nil {
		t.Fatalf("with a file: %+v, %v", config, err)
	}
	if again, err := trusts.current(); again != config || err != nil {
		t.Errorf("the same file: another configuration, or %v", err)
	}
	second := caFile(t, path)
	changed, err := trusts.current()
	if err != nil || !changed.RootCAs.Equal(second) {
		t.Errorf("with another file: %+v, %v", changed, err)
	}
	if changed.ClientSessionCache == config.ClientSessionCache {
		t.Error("sessions of the CA before would be resumed")
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "X"}), 0o600); err != nil {
		t.Fatal(err)
	}
	if kept, err := trusts.current(); kept != changed || err == nil || !strings.Contains(err.Error(), "no certificate in "+path) {
		t.Errorf("with a broken file: %v, %v", kept, err)
	}
}

func TestWithTLSIsLeftAsItIs(t *testing.T) {
	own := &tls.Config{ServerName: "own", ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	trusts := newTrust(&options{tls: own}, []string{"hub:7400"})
	config, err := trusts.current()
	if err != nil || config.ServerName != "own" || config.ClientSessionCache != own.ClientSessionCache {
		t.Errorf("%+v, %v", config, err)
	}
	own = &tls.Config{}
	if config, err = newTrust(&options{tls: own}, []string{"hub:7400"}).current(); err != nil || config.ClientSessionCache == nil || own.ClientSessionCache != nil {
		t.Errorf("no cache of its own, or in the caller's configuration: %v", err)
	}
	if newTrust(&options{}, []string{"hub:7400"}) != nil {
		t.Error("encrypted without being asked to")
	}
}

// Nodes tell of each other by address, which no certificate has.
func TestLearnedAddressesAreVerifiedUnderAGivenName(t *testing.T) {
	given := []string{"agents.default.svc:7400", "other:1"}
	c := &Client{given: given, trust: newTrust(&options{tls: &tls.Config{}}, given)}
	for address, want := range map[string]string{
		"agents.default.svc:7400": "agents.default.svc", "other:1": "other", "10.1.2.3:7400": "agents.default.svc",
	} {
		config, err := c.tlsFor(address)
		if err != nil || config.ServerName != want {
			t.Errorf("%s is verified as %q, want %q (%v)", address, config.ServerName, want, err)
		}
	}
	c.trust.base = &tls.Config{ServerName: "own"}
	c.trust.config = nil
	if config, err := c.tlsFor("10.1.2.3:7400"); err != nil || config.ServerName != "own" {
		t.Errorf("verified as %q, want the caller's name (%v)", config.ServerName, err)
	}
}
