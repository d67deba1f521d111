package main

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"
)

const auditPolicy = `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  users: ["system:serviceaccount:` + systemNamespace + `:` + name + `"]
`

const auditLog = "audit-log-path"

// auditRequests makes the API server write down what the operator asks.
func auditRequests(t *testing.T, env *envtest.Environment) {
	t.Helper()
	dir := t.TempDir()
	policy := filepath.Join(dir, "policy.yaml")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	env.ControlPlane.GetAPIServer().Configure().Set("audit-policy-file", policy).Set(auditLog, filepath.Join(dir, "log"))
}

// used returns what the API server granted the operator, as in "create leases".
func used(t *testing.T, env *envtest.Environment) []string {
	t.Helper()
	file, err := os.Open(env.ControlPlane.GetAPIServer().Configure().Get(auditLog).Get(nil)[0])
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var found []string
	dec := json.NewDecoder(file)
	for {
		var request struct {
			Verb      string `json:"verb"`
			ObjectRef struct {
				APIGroup string `json:"apiGroup"`
				Resource string `json:"resource"`
			} `json:"objectRef"`
			ResponseStatus struct {
				Code int `json:"code"`
			} `json:"responseStatus"`
		}
		err := dec.Decode(&request)
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		if request.ResponseStatus.Code != http.StatusForbidden {
			found = append(found, request.Verb+" "+request.ObjectRef.APIGroup+"/"+request.ObjectRef.Resource)
		}
	}
}

// compareRights looks for rights that are granted and were not used, in the roles
// that have nothing to do with Hubs; a test of controllers does it for those.
func compareRights(t *testing.T, env *envtest.Environment) {
	t.Helper()
	// A lease that is taken again and again makes one event that is counted.
	unseen := []string{"patch /events"}
	seen := used(t, env)
	for _, file := range []string{"leader_election_role.yaml", "metrics_auth_role.yaml"} {
		data, err := os.ReadFile(filepath.Join("..", "..", "config", "rbac", file))
		if err != nil {
			t.Fatal(err)
		}
		var role rbacv1.Role
		if err := yaml.Unmarshal(data, &role); err != nil {
			t.Fatal(err)
		}
		for _, rule := range role.Rules {
			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					for _, verb := range rule.Verbs {
						right := verb + " " + group + "/" + resource
						if !slices.Contains(seen, right) && !slices.Contains(unseen, right) {
							t.Errorf("%s: %s is never used", file, right)
						}
					}
				}
			}
		}
	}
}
