package config_test

import (
	"strings"
	"testing"

	"github.com/switchboardhub/switchboard/hubnode/config"
)

func TestTenancy(t *testing.T) {
	const accounts = "authentication: {serviceAccount: {issuer: i, audiences: [a], keysFile: /k}}\n"
	for name, test := range map[string]struct {
		file string
		want config.Tenancy
		err  string
	}{
		"nothing said":     {"", config.TenancyNone, ""},
		"none":             {"tenancy: None\n", config.TenancyNone, ""},
		"by namespace":     {accounts + "tenancy: Namespace\n", config.TenancyNamespace, ""},
		"of nobody":        {"tenancy: Namespace\n", "", "line 2: tenancy: must not be Namespace without authentication.serviceAccount: nobody would prove to be of one"},
		"of those by list": {"authentication: {static: {file: /t}}\ntenancy: Namespace\n", "", "without authentication.serviceAccount"},
		"something else":   {"tenancy: namespace\n", "", `tenancy: must be one of None, Namespace, is "namespace"`},
	} {
		cfg, err := config.Parse([]byte("hub: h\n" + test.file))
		switch {
		case test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)):
			t.Errorf("%s: got %v, want %s", name, err, test.err)
		case test.err == "" && (err != nil || cfg.Tenancy != test.want):
			t.Errorf("%s: got %q, %v, want %q", name, cfg.Tenancy, err, test.want)
		}
	}
}

// What topics of a namespace may keep means nothing where they are of none.
func TestSharesNeedTenancy(t *testing.T) {
	const tenants = "authentication: {serviceAccount: {issuer: i, audiences: [a], keysFile: /k}}\ntenancy: Namespace\n"
	for name, test := range map[string]struct{ file, err string }{
		"with tenants":       {tenants + "limits: {perNamespace: {historyBytes: 10Gi}}\n", ""},
		"that bound nothing": {"limits: {perNamespace: {}}\n", ""},
		"without tenants":    {"limits: {perNamespace: {historyBytes: 10Gi}}\n", "line 2: limits.perNamespace: must not be set without tenancy Namespace"},
		"of too few bytes":   {tenants + "limits: {perNamespace: {historyBytes: 1}}\n", "limits.perNamespace.historyBytes: must be from 1Ki to 1024Ti, is 1"},
		"of a negative size": {tenants + "limits: {perNamespace: {historyBytes: -1}}\n", "limits.perNamespace.historyBytes"},
		"of something else":  {tenants + "limits: {perNamespace: {bytes: 1}}\n", "bytes"},
	} {
		_, err := config.Parse([]byte("hub: h\n" + test.file))
		if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%s: got %v, want %q", name, err, test.err)
		}
	}
}

// Nodes of before there was tenancy refuse a file that names it.
func TestTenancyIsNotWrittenUnlessItIsSaid(t *testing.T) {
	cfg := config.Default()
	cfg.Hub = "h"
	file, err := cfg.Marshal()
	if err != nil || strings.Contains(string(file), "tenancy") {
		t.Errorf("the file names tenancy, %v:\n%s", err, file)
	}
}
