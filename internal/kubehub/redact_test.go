package kubehub

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
)

func TestSecretsInTextAreRedacted(t *testing.T) {
	for name, test := range map[string]struct{ in, want string }{
		"nothing":             {"node is ready shard=3 leader=agents-node-1", "node is ready shard=3 leader=agents-node-1"},
		"logfmt":              {"password=hunter2 user=x", "password=REDACTED user=x"},
		"logfmt, quoted":      {`db_password="a b" user=x`, `db_password="REDACTED" user=x`},
		"JSON":                {`{"token":"abc","n":1}`, `{"token":"REDACTED","n":1}`},
		"JSON, a number":      {`{"secret": 12, "n":1}`, `{"secret": REDACTED, "n":1}`},
		"JSON with an escape": {`{"apiKey":"a\"b","n":1}`, `{"apiKey":"REDACTED","n":1}`},
		"JSON in JSON":        {`{"msg":"got {\"token\":\"abc\"}"}`, `{"msg":"got {\"token\":\"REDACTED\"}"}`},
		"YAML":                {"password: hunter2\nuser: x", "password: REDACTED\nuser: x"},
		"YAML, a block":       {"credentials:\n  user: x", "credentials:\n  user: x"},
		"a flag":              {"--auth-token=abc --x", "--auth-token=REDACTED --x"},
		"a query":             {"GET /?access_key=abc&x=1", "GET /?access_key=REDACTED&x=1"},
		"a header":            {"Authorization: Basic dXNlcjpwYXNz\nHost: x", "Authorization: REDACTED\nHost: x"},
		"a bearer":            {"sent bearer abcdefgh12345678", "sent REDACTED"},
		"a URL":               {"amqp://u:p4ss@host/x", "amqp://u:REDACTED@host/x"},
		"an address":          {"http://10.0.0.1:7480/v1/status", "http://10.0.0.1:7480/v1/status"},
		"a web token":         {"x eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.abc y", "x REDACTED y"},
		"a private key":       {"a\n-----BEGIN EC PRIVATE KEY-----\nMHcC\n-----END EC PRIVATE KEY-----\nb", "a\nREDACTED\nb"},
		"half a private key":  {"a\n-----BEGIN PRIVATE KEY-----\nMHcC", "a\nREDACTED"},
		"a Secret's data":     {"x LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0tCk1IY0MK y", "x REDACTED y"},
		"of openssl":          {"LS0tLS1CRUdJTiBFQyBQUklWQVRFIEtFWS0tLS0t,LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVktLS0tLQ==", "REDACTED,REDACTED"},
		"with a passphrase":   {"LS0tLS1CRUdJTiBFTkNSWVBURUQgUFJJVkFURSBLRVktLS0tLQ==", "REDACTED"},
		"a certificate":       {"LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t", "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t"},
		"a gossip key":        {"key AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8= x", "key REDACTED x"},
		"a small gossip key":  {"key AAECAwQFBgcICQoLDA0ODw== x", "key REDACTED x"},
		"a static token's":    {"of $2y$05$Q1uQqz5J0yG0sQx1Zb3dXe9Q0aJr1m0Jd1h6vQ0bC3tQeXyQz5abc:x", "of REDACTED:x"},
		"a hash":              {"config_hash=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "config_hash=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
		"an empty one":        {`token="" x`, `token="" x`},
		"metrics":             {`switchboard_clients{node="a"} 5`, `switchboard_clients{node="a"} 5`},
		"twice is the same":   {"token=REDACTED", "token=REDACTED"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &redactor{}
			if got := string(r.text([]byte(test.in))); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
			if counted := r.count > 0; counted != (test.in != test.want) {
				t.Errorf("counted %d", r.count)
			}
		})
	}
}

func TestSecretsInObjectsAreRedacted(t *testing.T) {
	container := func(value string) map[string]any {
		return map[string]any{"env": []any{
			map[string]any{"name": "X", "value": value},
			map[string]any{"name": "GOMEMLIMIT", "value": "483183820"},
			map[string]any{"name": "Y", "valueFrom": map[string]any{"secretKeyRef": map[string]any{"name": "s", "key": "token"}}},
		}}
	}
	object := func(value, applied, dsn, echoed string) map[string]any {
		return map[string]any{
			"metadata": map[string]any{"annotations": map[string]any{lastApplied: applied, "a": "b"}},
			"spec": map[string]any{
				"containers": []any{container(value)}, "secretName": "agents-gossip", "dsn": dsn, "automountServiceAccountToken": false,
				"args": []any{"--greeting=" + echoed},
			},
		}
	}
	got := object("my value", "{}", "pg://u:p@h", "my value")
	got["metadata"].(map[string]any)["managedFields"] = []any{"noise"}
	r := &redactor{}
	r.learn(got)
	r.object(got)
	if diff := cmp.Diff(object(redacted, redacted, "pg://u:REDACTED@h", redacted), got); diff != "" {
		t.Errorf("object (-want +got):\n%s", diff)
	}
	if text := string(r.text([]byte("it said my value twice"))); text != "it said REDACTED twice" {
		t.Errorf("a variable's value in a text: %s", text)
	}
}

func TestWhatTheOperatorSetsIsNoSecret(t *testing.T) {
	hub := &switchboardv1alpha1.Hub{Spec: switchboardv1alpha1.HubSpec{TLS: &switchboardv1alpha1.TLSSpec{Clients: switchboardv1alpha1.ClientTLSRequired}}}
	hub.Name, hub.Namespace = "agents", "prod"
	data, err := json.Marshal(manifests.StatefulSet(hub, "switchboard:1"))
	if err != nil {
		t.Fatal(err)
	}
	var set map[string]any
	if err := json.Unmarshal(data, &set); err != nil {
		t.Fatal(err)
	}
	r := &redactor{}
	r.learn(set)
	if len(r.values) > 0 {
		t.Errorf("taken for a person's: %v", r.values)
	}
}
