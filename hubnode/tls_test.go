package hubnode_test

import (
	"strings"
	"testing"

	"github.com/switchboardhub/switchboard/hubnode"
	"github.com/switchboardhub/switchboard/hubnode/config"
)

func TestANodeThatCannotEncryptDoesNotStart(t *testing.T) {
	cfg := config.Default()
	cfg.Hub, cfg.Node = "test", "node-0"
	for _, policy := range []config.TLSPolicy{config.TLSOptional, config.TLSRequired} {
		cfg.TLS = config.TLS{Clients: policy, Directory: t.TempDir()}
		if _, err := hubnode.New(cfg); err == nil || !strings.Contains(err.Error(), "no tls.crt in "+cfg.TLS.Directory) {
			t.Errorf("%s without a certificate: New = %v", policy, err)
		}
	}
	cfg.TLS.Clients = config.TLSDisabled
	if _, err := hubnode.New(cfg); err != nil {
		t.Errorf("Disabled without a certificate: New = %v", err)
	}
}
