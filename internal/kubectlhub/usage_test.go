package kubectlhub_test

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/switchboardhub/switchboard/internal/kubectlhub"
)

// TestUsage is about what needs no cluster. What the commands do in one is tested in
// internal/kubehub.
func TestUsage(t *testing.T) {
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	for name, test := range map[string]struct {
		args     string
		status   int
		out, err []string
	}{
		"help shows the commands, in kubectl's words": {"--help", 0, []string{"  kubectl hub status agents -n prod\n", "\n  drain  ", "\n  clients  "}, nil},
		"the version":                    {"--version", 0, []string{"kubectl hub version v0.0.0-test"}, nil},
		"a mistyped command":             {"drian", 2, nil, []string{`kubectl hub: unknown command "drian", did you mean drain?`, "Try 'kubectl hub --help'"}},
		"help of a mistyped command":     {"help drian", 2, nil, []string{`kubectl hub: unknown command "drian", did you mean drain?`, "Try 'kubectl hub help --help'"}},
		"a shell that is none":           {"completion bsh", 2, nil, []string{`kubectl hub: unknown command "bsh", did you mean bash`}},
		"no node":                        {"drain", 2, nil, []string{"Try 'kubectl hub drain --help'"}},
		"a list of durables":             {"durables --help", 0, []string{"kubectl hub durables [HUB]", "kubectl hub durables agents --watch"}, nil},
		"two hubs":                       {"clients a b", 2, nil, []string{"Try 'kubectl hub clients --help'"}},
		"no hub is named by its address": {"nodes --server localhost:7400", 2, nil, []string{"unknown flag: --server"}},
		"an unknown output":              {"status -o yaml", 2, nil, []string{`"yaml": want text or json`}},
		"a certificate without its key":  {"topics --cert-file a.pem", 2, nil, []string{"kubectl hub: --cert-file needs the key of the certificate too: name its file with --key-file\n", "Try 'kubectl hub topics --help'"}},
		"no cluster":                     {"status", 1, nil, []string{"kubectl hub: no cluster is configured"}},
		"no cluster for a list":          {"nodes", 1, nil, []string{"kubectl hub: no cluster is configured"}},
		"a kubeconfig that is not there": {"status --kubeconfig elsewhere", 1, nil, []string{"elsewhere: no such file"}},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errOut bytes.Buffer
			status := kubectlhub.Run(t.Context(), "v0.0.0-test", strings.Fields(test.args), strings.NewReader(""), &out, &errOut)
			if status != test.status {
				t.Errorf("exit status %d, want %d", status, test.status)
			}
			for _, want := range test.out {
				if !strings.Contains(out.String(), want) {
					t.Errorf("it prints no %q:\n%s", want, &out)
				}
			}
			for _, want := range test.err {
				if !strings.Contains(errOut.String(), want) {
					t.Errorf("it does not say %q:\n%s", want, &errOut)
				}
			}
		})
	}
}
