package config_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/switchboardhub/switchboard/hubnode/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// full is a file that gives every field, and what it says.
const full = `hub: default/agents/6f1c
node: agents-node-0
replicas: 3
listen:
  client: 127.0.0.1:1
  cluster: 127.0.0.1:2
  gossip: 127.0.0.1:3
  http: '[::1]:4'
advertise: 10.1.2.3
peers:
  - agents-nodes.default.svc:7402
  - 10.1.2.4:7402
gossipKeyFile: /etc/switchboard/gossip/key
tls:
  clients: Required
  directory: /etc/hub/tls
  cluster: Optional
  clusterDirectory: /etc/hub/cluster
authentication:
  serviceAccount:
    issuer: https://kubernetes.default.svc
    audiences:
      - agents.default.switchboard.dev
    keysFile: /etc/switchboard/jwks.json
  oidc:
    - issuer: https://accounts.example.com
      audiences:
        - hub
        - hub-2
      caFile: /etc/hub/oidc-ca.crt
      nameClaim: email
      groupsClaim: roles
  mutualTLS:
    caFile: /etc/hub/clients-ca.crt
  static:
    file: /etc/hub/tokens
authorization:
  rules:
    - name: workers
      when: identity.namespace == "team-a"
      namespace: team-a
      connectAs:
        - worker-*
      sendTo:
        - '*'
      publish:
        - '{namespace}.>'
      subscribe:
        - orders.>
      history:
        - orders.new
      admin: View
tenancy: Namespace
healthCheck:
  interval: 20s
  timeout: 1.5s
  failureThreshold: 5
history:
  maxArtifacts: 10
  maxBytes: 1Gi
  maxAge: 1h30m
topics:
  - pattern: orders.>
    history:
      maxArtifacts: 10000
      maxBytes: 256Mi
      maxAge: 24h
    filter: artifact.size <= 65536
  - pattern: news.*
    history:
      maxArtifacts: 0
storage:
  dir: /var/lib/switchboard
  sync: Interval
  syncInterval: 20ms
  replicas: 5
  shards: 8
sessions:
  resumeWindow: 45s
  rebalance: true
limits:
  maxClients: 7
  maxArtifactSize: 64Ki
  maxPendingBytes: 1000001
  slowClientPolicy: Conflate
  conflateKey: symbol
  maxMemory: 4Gi
  connectionsPerSecond: 2000
  perIdentity:
    clients: 10
    subscriptions: 100
    artifactsPerSecond: 1000
    bytesPerSecond: 8Mi
  perAddress:
    connections: 500
    connectionsPerSecond: 50
  perNamespace:
    historyBytes: 10Gi
drain:
  timeout: 0s
log:
  level: debug
  format: text
`

func fullConfig() config.Config {
	return config.Config{
		Hub:           "default/agents/6f1c",
		Node:          "agents-node-0",
		Replicas:      3,
		Listen:        config.Listen{Client: "127.0.0.1:1", Cluster: "127.0.0.1:2", Gossip: "127.0.0.1:3", HTTP: "[::1]:4"},
		Advertise:     "10.1.2.3",
		Peers:         []string{"agents-nodes.default.svc:7402", "10.1.2.4:7402"},
		GossipKeyFile: "/etc/switchboard/gossip/key",
		TLS:           config.TLS{Clients: config.TLSRequired, Directory: "/etc/hub/tls", Cluster: config.TLSOptional, ClusterDirectory: "/etc/hub/cluster"},
		Authentication: config.Authentication{
			ServiceAccount: &config.TokenIssuer{
				Issuer: "https://kubernetes.default.svc", Audiences: []string{"agents.default.switchboard.dev"}, KeysFile: "/etc/switchboard/jwks.json",
			},
			OIDC: []config.TokenIssuer{{
				Issuer: "https://accounts.example.com", Audiences: []string{"hub", "hub-2"}, CAFile: "/etc/hub/oidc-ca.crt", NameClaim: "email", GroupsClaim: "roles",
			}},
			MutualTLS: &config.MutualTLS{CAFile: "/etc/hub/clients-ca.crt"},
			Static:    &config.Static{File: "/etc/hub/tokens"},
		},
		Authorization: config.Authorization{Rules: []config.Rule{{
			Name: "workers", When: `identity.namespace == "team-a"`, Namespace: "team-a", ConnectAs: []string{"worker-*"}, SendTo: []string{"*"},
			Publish: []string{"{namespace}.>"}, Subscribe: []string{"orders.>"}, History: []string{"orders.new"}, Admin: config.AdminView,
		}}},
		Tenancy: config.TenancyNamespace,
		HealthCheck: config.HealthCheck{
			Interval: config.Duration(20 * time.Second), Timeout: config.Duration(1500 * time.Millisecond), FailureThreshold: 5,
		},
		History: config.History{MaxArtifacts: 10, MaxBytes: 1 << 30, MaxAge: config.Duration(90 * time.Minute)},
		Topics: []config.Topic{
			{
				Pattern: "orders.>",
				History: &config.TopicHistory{
					MaxArtifacts: new(10000), MaxBytes: new(config.Bytes(256 << 20)), MaxAge: new(config.Duration(24 * time.Hour)),
				},
				Filter: "artifact.size <= 65536",
			},
			{Pattern: "news.*", History: &config.TopicHistory{MaxArtifacts: new(0)}},
		},
		Storage:  config.Storage{Dir: "/var/lib/switchboard", Sync: config.SyncInterval, SyncInterval: config.Duration(20 * time.Millisecond), Replicas: 5, Shards: 8},
		Sessions: config.Sessions{ResumeWindow: config.Duration(45 * time.Second), Rebalance: true},
		Limits:   config.Limits{MaxClients: 7, MaxArtifactSize: 64 << 10, MaxPendingBytes: 1000001, SlowClientPolicy: config.Conflate, ConflateKey: "symbol", MaxMemory: 4 << 30, ConnectionsPerSecond: 2000, PerNamespace: config.NamespaceQuota{HistoryBytes: 10 << 30}, PerAddress: config.AddressQuota{Connections: 500, ConnectionsPerSecond: 50}, PerIdentity: config.Quota{Clients: 10, Subscriptions: 100, ArtifactsPerSecond: 1000, BytesPerSecond: 8 << 20}},
		Drain:    config.Drain{Timeout: 0},
		Log:      config.Log{Level: "debug", Format: "text"},
	}
}

func TestParseReadsEveryField(t *testing.T) {
	got, err := config.Parse([]byte(full))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(fullConfig(), got); diff != "" {
		t.Error(diff)
	}
}

func TestMarshalWritesTheCanonicalFile(t *testing.T) {
	got, err := fullConfig().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(full, string(got)); diff != "" {
		t.Error(diff)
	}
}

// Nodes that know nothing of TLS, or of TLS between nodes, follow the file of an
// operator that does.
func TestMarshalLeavesOutTLSThatIsNotUsed(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*config.TLS)
		want   string
	}{
		"the default":                 {func(*config.TLS) {}, ""},
		"used":                        {func(c *config.TLS) { c.Clients = config.TLSOptional }, "tls:\n  clients: Optional\n  directory: /etc/switchboard/tls\n"},
		"another directory":           {func(c *config.TLS) { c.Directory = "/x" }, "tls:\n  clients: Disabled\n  directory: /x\n"},
		"used between nodes":          {func(c *config.TLS) { c.Cluster = config.TLSRequired }, "tls:\n  clients: Disabled\n  directory: /etc/switchboard/tls\n  cluster: Required\n"},
		"another directory for nodes": {func(c *config.TLS) { c.ClusterDirectory = "/x" }, "tls:\n  clients: Disabled\n  directory: /etc/switchboard/tls\n  clusterDirectory: /x\n"},
	} {
		t.Run(name, func(t *testing.T) {
			c := config.Default()
			test.change(&c.TLS)
			text, err := c.Marshal()
			_, got, _ := strings.Cut(string(text), "replicas: 1\n")
			_, got, _ = strings.Cut(got, "http: :7480\n")
			got, _, _ = strings.Cut(got, "healthCheck:")
			if got != test.want || err != nil {
				t.Errorf("the file says %q (%v), want %q\n%s", got, err, test.want, text)
			}
		})
	}
}

func TestAuthenticationThatIsWrong(t *testing.T) {
	issuer := `{issuer: "https://i.example", audiences: [hub]}`
	for name, test := range map[string]struct{ file, want string }{
		"an issuer without a name":         {"oidc: [{audiences: [a]}]", "authentication.oidc[0].issuer: is required: who makes the tokens, such as https://accounts.example.com, in up to 512 bytes"},
		"an issuer that can't be asked":    {"oidc: [{issuer: 'http://i', audiences: [a]}]", `authentication.oidc[0].issuer: must be an https address unless keysFile is set, is "http://i"`},
		"an issuer with a password":        {"oidc: [{issuer: 'http://me:sesame@i', audiences: [a]}]", "authentication.oidc[0].issuer: must not have a user or a password in it: what issuers are called is no secret, and is told"},
		"with one that is no address":      {"oidc: [{issuer: 'https://me:ses%ame@i', audiences: [a]}]", "authentication.oidc[0].issuer: must not have a user or a password in it: what issuers are called is no secret, and is told"},
		"one that need not be asked":       {"oidc: [{issuer: i, audiences: [a], keysFile: /k}]", ""},
		"no audience":                      {"oidc: [{issuer: 'https://i'}]", "authentication.oidc[0].audiences: must have from 1 to 16 elements, has 0"},
		"an empty audience":                {"oidc: [{issuer: 'https://i', audiences: ['']}]", "authentication.oidc[0].audiences[0]: must have from 1 to 512 bytes, has 0"},
		"two times the same issuer":        {"oidc: [" + issuer + ", " + issuer + "]", "authentication.oidc[1].issuer: is the same as authentication.oidc[0].issuer, which wins"},
		"that of the ServiceAccounts":      {"{serviceAccount: " + issuer + ", oidc: [" + issuer + "]}", "authentication.oidc[0].issuer: is the same as authentication.serviceAccount.issuer, which wins"},
		"claims of a ServiceAccount":       {"serviceAccount: {issuer: i, audiences: [a], keysFile: /k, nameClaim: x}", "authentication.serviceAccount: must not name claims: a ServiceAccount's are known"},
		"a file that is somewhere":         {"static: {file: tokens}", `authentication.static.file: must be an absolute path, is "tokens"`},
		"no file":                          {"mutualTLS: {}", `authentication.mutualTLS.caFile: must be an absolute path, is ""`},
		"a CA for what is not fetched":     {"oidc: [{issuer: i, audiences: [a], keysFile: /k, caFile: /c}]", "authentication.oidc[0].caFile: must not be set with keysFile: nothing is fetched"},
		"nobody to review by name":         {"serviceAccount: {issuer: '', audiences: [a], keysFile: /k}", "authentication.serviceAccount.issuer: is required: who makes the tokens, such as https://accounts.example.com, in up to 512 bytes"},
		"a review":                         {"serviceAccount: {issuer: i, audiences: [a], keysFile: /k, tokenReview: {server: 'https://kubernetes.default.svc', caFile: /c, tokenFile: /t}}", ""},
		"a review by the system's CAs":     {"serviceAccount: {issuer: 'https://i', audiences: [a], tokenReview: {server: 'https://[::1]:6443/', tokenFile: /t}}", ""},
		"a review, and no issuer":          {"serviceAccount: {audiences: [a], keysFile: /k, tokenReview: {server: 'https://k', tokenFile: /t}}", ""},
		"neither issuer nor keys":          {"serviceAccount: {audiences: [a], tokenReview: {server: 'https://k', tokenFile: /t}}", "authentication.serviceAccount.keysFile: is required without an issuer: there is nobody to fetch keys from"},
		"a review by nobody":               {"serviceAccount: {issuer: i, audiences: [a], keysFile: /k, tokenReview: {tokenFile: /t}}", `authentication.serviceAccount.tokenReview.server: must be an https address without a path, such as https://kubernetes.default.svc, is ""`},
		"a review that others can read":    {"serviceAccount: {issuer: i, audiences: [a], keysFile: /k, tokenReview: {server: 'http://k', tokenFile: /t}}", `authentication.serviceAccount.tokenReview.server: must be an https address without a path, such as https://kubernetes.default.svc, is "http://k"`},
		"a review at a path":               {"serviceAccount: {issuer: i, audiences: [a], keysFile: /k, tokenReview: {server: 'https://k/apis', tokenFile: /t}}", `authentication.serviceAccount.tokenReview.server: must be an https address without a path, such as https://kubernetes.default.svc, is "https://k/apis"`},
		"a review with a password":         {"serviceAccount: {issuer: i, audiences: [a], keysFile: /k, tokenReview: {server: 'https://me:sesame@k', tokenFile: /t}}", "authentication.serviceAccount.tokenReview.server: must not have a user or a password in it: tokenFile is by whom the node is known"},
		"a review without a token":         {"serviceAccount: {issuer: i, audiences: [a], keysFile: /k, tokenReview: {server: 'https://k'}}", `authentication.serviceAccount.tokenReview.tokenFile: must be an absolute path, is ""`},
		"a review by a CA somewhere":       {"serviceAccount: {issuer: i, audiences: [a], keysFile: /k, tokenReview: {server: 'https://k', tokenFile: /t, caFile: c}}", `authentication.serviceAccount.tokenReview.caFile: must be an absolute path, is "c"`},
		"a review of others' tokens":       {"oidc: [{issuer: 'https://i', audiences: [a], tokenReview: {}}]", "authentication.oidc[0].tokenReview: must not be set: an API server knows the tokens of ServiceAccounts"},
		"the name of a claim that is long": {"oidc: [{issuer: 'https://i', audiences: [a], nameClaim: " + strings.Repeat("x", 129) + "}]", "authentication.oidc[0].nameClaim: must not be longer than 128 bytes, has 129"},
	} {
		t.Run(name, func(t *testing.T) {
			file := test.file
			if file[0] != '{' {
				file = "{" + file + "}"
			}
			_, err := config.Parse([]byte("hub: h\nauthentication: " + file))
			switch {
			case test.want == "":
				if err != nil {
					t.Error(err)
				}
			case err == nil || err.Error() != "line 2: "+test.want:
				t.Errorf("got  %v\nwant line 2: %s", err, test.want)
			}
		})
	}
}

func TestParseGivesDefaultsToWhatIsAbsent(t *testing.T) {
	want := config.Default()
	want.Hub = "h"
	for name, file := range map[string]string{
		"nothing but what is required": "hub: h",
		"fields without a value":       "hub: h\nhistory:\ntopics: ~\nlimits: {maxClients: }\n",
		"empty groups":                 "hub: h\nhistory: {}\ntopics: []\npeers: []\n",
	} {
		t.Run(name, func(t *testing.T) {
			got, err := config.Parse([]byte(file))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	got, err := config.Parse([]byte("hub: h\nhealthCheck: {interval: 1m}"))
	if err != nil {
		t.Fatal(err)
	}
	want.HealthCheck.Interval = config.Duration(time.Minute)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("a group given in part: %s", diff)
	}
}

func TestHistoryFor(t *testing.T) {
	c := config.Default()
	c.Topics = []config.Topic{
		{Pattern: "orders.audit", Filter: "true"},
		{Pattern: "orders.*", History: &config.TopicHistory{MaxArtifacts: new(10)}},
		{Pattern: "orders.>", History: &config.TopicHistory{MaxArtifacts: new(20), MaxBytes: new(config.Bytes(1)), MaxAge: new(config.Duration(2))}},
	}
	standard := c.History
	for name, test := range map[string]struct {
		topic string
		want  config.History
	}{
		"no element matches":              {"news", standard},
		"an element that is silent on it": {"orders.audit", standard},
		"the first of two that match":     {"orders.new", config.History{MaxArtifacts: 10, MaxBytes: standard.MaxBytes, MaxAge: standard.MaxAge}},
		"an element that says everything": {"orders.eu.new", config.History{MaxArtifacts: 20, MaxBytes: 1, MaxAge: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, c.HistoryFor(test.topic)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestReloadable(t *testing.T) {
	restart := fullConfig()
	restart.Storage.Shards = 99
	restart.Hub, restart.Node, restart.Advertise, restart.GossipKeyFile = "x", "x-1", "x", "x"
	restart.Listen.HTTP = ":0"
	restart.TLS.Directory, restart.TLS.ClusterDirectory = "/x", "/x"
	inPlace := config.Default()
	inPlace.Hub, inPlace.Node, inPlace.Advertise, inPlace.GossipKeyFile = fullConfig().Hub, fullConfig().Node, fullConfig().Advertise, fullConfig().GossipKeyFile
	inPlace.Listen = fullConfig().Listen
	inPlace.TLS.Directory, inPlace.TLS.ClusterDirectory = fullConfig().TLS.Directory, fullConfig().TLS.ClusterDirectory
	inPlace.Storage = fullConfig().Storage
	inPlace.Storage.Replicas++
	for name, test := range map[string]struct {
		next config.Config
		want []string
	}{
		"nothing changed":              {fullConfig(), nil},
		"what a node is":               {restart, []string{"hub", "node", "listen", "advertise", "gossipKeyFile", "tls.directory", "tls.clusterDirectory", "storage"}},
		"everything a node can follow": {inPlace, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, config.Reloadable(fullConfig(), test.next)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLoadNamesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.yaml")
	if _, err := config.Load(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a file: got %v", err)
	}
	if err := os.WriteFile(path, []byte("hub: 1"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := "config " + path + `: line 1: hub: must be a string, not "1"`
	if _, err := config.Load(path); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestOneTopicIsValidatedOnItsOwn(t *testing.T) {
	for name, test := range map[string]struct {
		topic config.Topic
		want  string
	}{
		"all is well": {config.Topic{Pattern: "a.>", History: &config.TopicHistory{MaxArtifacts: new(1)}, Filter: "true"}, ""},
		"a pattern":   {config.Topic{Pattern: "a..b"}, `pattern: topic "a..b": empty token at position 2`},
		"no pattern":  {config.Topic{}, `pattern: topic "": empty token at position 0`},
		"a history":   {config.Topic{Pattern: "a", History: &config.TopicHistory{MaxArtifacts: new(-1)}}, "history.maxArtifacts: must be from 0 to 1000000000, is -1"},
		"a filter":    {config.Topic{Pattern: "a", Filter: "1"}, `filter: filter "1": must be true or false, is of type int at line 1, column 1`},
	} {
		t.Run(name, func(t *testing.T) {
			err := test.topic.Validate()
			if (err == nil) != (test.want == "") || err != nil && err.Error() != test.want {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
}
