package hubnode_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/switchboardhub/switchboard/hubnode"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/internal/throwaway"
)

func TestANodeThatCannotEncryptDoesNotStart(t *testing.T) {
	cfg := config.Default()
	cfg.Hub, cfg.Node = "test", "node-0"
	for _, policy := range []config.TLSPolicy{config.TLSOptional, config.TLSRequired} {
		cfg.TLS.Clients, cfg.TLS.Directory = policy, t.TempDir()
		if _, err := hubnode.New(cfg); err == nil || !strings.Contains(err.Error(), "no tls.crt in "+cfg.TLS.Directory) {
			t.Errorf("%s without a certificate: New = %v", policy, err)
		}
	}
	cfg.TLS.Clients = config.TLSDisabled
	if _, err := hubnode.New(cfg); err != nil {
		t.Errorf("Disabled without a certificate: New = %v", err)
	}
}

// A node is given its certificate for links beside the file that all nodes share, which
// need not say anything of it; what the file says later is taken over in place.
func TestACertificateForLinksBesideTheFile(t *testing.T) {
	dir := t.TempDir()
	ca, err := throwaway.New()
	if err != nil {
		t.Fatal(err)
	}
	if err := ca.Write(dir, config.ClusterID("test").String()); err != nil {
		t.Fatal(err)
	}
	f := runFileWith(t, "", hubnode.Options{ClusterTLS: dir})
	if got := f.status().ClusterTLS; got != "Optional" {
		t.Errorf("tls.cluster is %q, want Optional", got)
	}
	for file, want := range map[string]string{
		"tls: {cluster: Required, clusterDirectory: " + dir + "}\n": "Required",
		"": "Optional",
	} {
		f.write(file)
		f.waitFor(want, func() bool { return f.status().ClusterTLS == want })
		if text := f.status().ConfigError; text != "" {
			t.Error(text)
		}
	}

	plain := runFile(t, "")
	plain.write("tls: {cluster: Required, clusterDirectory: " + filepath.Join(dir, "none") + "}\n")
	plain.waitFor("refusal", func() bool { return strings.Contains(plain.status().ConfigError, "tls.cluster: no tls.crt in ") })
	if got := plain.status().ClusterTLS; got != "Disabled" {
		t.Errorf("tls.cluster is %q after it was refused, want Disabled", got)
	}
}
