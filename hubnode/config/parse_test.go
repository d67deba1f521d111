package config_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/hubnode/config"
)

func TestParseNamesEveryFaultAtOnce(t *testing.T) {
	file := `hub: ""
node: agents
replica: 3
replicas: three
listen: {client: "7400", http: ":7401", cluster: ":7401", gossip: ":70000"}
advertise: 10.1.2.3:7400
peers: [agents-nodes, ":7402", {host: a}]
tls: {clients: required, directory: tls, cluster: Always, clusterDirectory: mtls}
healthCheck:
  interval: 10
  timeout: 20s
  failureThreshold: 0
history: {maxArtifacts: -1, maxBytes: 64MB, maxAge: -1h}
topics:
- pattern: a..b
  history: [1]
- patern: a
- pattern: x.>
  history: {maxBytes: -1, maxAges: 1h}
- pattern: x.>
- news
sessions: 30s
limits:
  maxClients: 0
  maxArtifactSize: 1Gi
  maxPendingBytes: 1Mi
  maxClients: 5
  slowClientPolicy: Wait
  conflateKey: ""
drain: {timeout: -1s}
log: {level: loud, format: xml}
`
	want := `line 1: hub: is required: the identity of the hub, such as namespace/name/UID
line 2: node: node name "agents" does not end in a hyphen and an ordinal
line 3: replica: unknown field; there are hub, node, replicas, listen, advertise, peers, gossipKeyFile, tls, authentication, authorization, tenancy, healthCheck, history, topics, storage, sessions, limits, drain, log
line 4: replicas: must be a whole number, not "three"
line 5: listen.client: must be host:port with a port up to 65535, is "7400"
line 5: listen.gossip: must be host:port with a port up to 65535, is ":70000"
line 5: listen.http: is ":7401", as listen.cluster
line 6: advertise: must be an IP address or a DNS name without a port, is "10.1.2.3:7400"
line 7: peers[2]: must be a string, not a mapping
line 7: peers[0]: must be host:port with a port up to 65535, is "agents-nodes"
line 7: peers[1]: must be an IP address or a DNS name without a port, is ""
line 8: tls.clients: must be one of Disabled, Optional, Required, is "required"
line 8: tls.directory: must be an absolute path, is "tls"
line 8: tls.cluster: must be one of Disabled, Optional, Required, is "Always"
line 8: tls.clusterDirectory: must be an absolute path, is "mtls"
line 10: healthCheck.interval: "10" is not a duration such as 500ms, 10s or 1h30m
line 11: healthCheck.timeout: must not be longer than healthCheck.interval, which is 10s, is 20s
line 12: healthCheck.failureThreshold: must be from 1 to 100, is 0
line 13: history.maxBytes: "64MB" is not a size such as 65536, 64Ki or 1Gi
line 13: history.maxArtifacts: must be from 0 to 1000000000, is -1
line 13: history.maxAge: must not be negative, is -1h
line 15: topics[0].pattern: topic "a..b": empty token at position 2
line 16: topics[0].history: must be a mapping of fields, not a list
line 17: topics[1].patern: unknown field; there are pattern, history, filter
line 17: topics[1].pattern: is required
line 19: topics[2].history.maxAges: unknown field; there are maxArtifacts, maxBytes, maxAge
line 19: topics[2].history.maxBytes: must not be negative, is -1
line 20: topics[3].pattern: is "x.>", as topics[2], which wins
line 21: topics[4]: must be a mapping of fields, not "news"
line 22: sessions: must be a mapping of fields, not "30s"
line 25: limits.maxArtifactSize: must be from 1Ki to 16Mi, is 1Gi
line 26: limits.maxPendingBytes: must not be below limits.maxArtifactSize, which is 1Gi, is 1Mi: one artifact has to fit
line 27: limits.maxClients: is given twice
line 28: limits.slowClientPolicy: must be one of Disconnect, DropOldest, DropNewest, Conflate, is "Wait"
line 29: limits.conflateKey: must have from 1 to 255 bytes, has 0
line 30: drain.timeout: must not be negative, is -1s
line 31: log.level: must be one of debug, info, warn, error, is "loud"
line 31: log.format: must be one of json, text, is "xml"`
	c, err := config.Parse([]byte(file))
	if err == nil {
		t.Fatal("got no error")
	}
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(config.Config{}, c); diff != "" {
		t.Errorf("a configuration beside the error: %s", diff)
	}
}

func TestParseRefusesWhatIsNoConfiguration(t *testing.T) {
	for name, test := range map[string]struct{ file, want string }{
		"nothing":                        {"", "hub: is required: the identity of the hub, such as namespace/name/UID"},
		"a list":                         {"- a", "line 1: the file: must be a mapping of fields, not a list"},
		"a word":                         {"hub", `line 1: the file: must be a mapping of fields, not "hub"`},
		"what is not YAML":               {"hub: h\nlog: {", "yaml: line 2: did not find expected node content"},
		"two documents":                  {"hub: h\n---\nhub: i\n", "yaml: line 2: more than one document"},
		"a second document that is none": {"hub: h\n---\n{", "yaml: line 3: did not find expected node content"},
		"a key that is no name":          {"hub: h\n[a]: b", `line 2: "": unknown field; there are hub, node, replicas, listen, advertise, peers, gossipKeyFile, tls, authentication, authorization, tenancy, healthCheck, history, topics, storage, sessions, limits, drain, log`},
		"a key with a line end":          {"hub: h\nlog: {\"a\\nb\": 1}", `line 2: log."a\nb": unknown field; there are level, format`},
		"a number with a leading zero":   {"hub: h\nreplicas: 010", `line 2: replicas: must be a whole number, not "010"`},
		"a number in quotes":             {"hub: h\nreplicas: '3'", `line 2: replicas: must be a whole number, not "3"`},
		"a list instead of a size":       {"hub: h\nhistory: {maxBytes: [1]}", `line 2: history.maxBytes: must be a single value, not a list`},
		"a secret instead of its file":   {"hub: h\nauthentication: {static: 'me:sesame'}", "line 2: authentication.static: must be a mapping of fields, not a text"},
		"a number instead of a file":     {"hub: h\nauthentication: {static: {file: 123456}}", "line 2: authentication.static.file: must be a string, not a number or the like"},
		"a word instead of a list":       {"hub: h\npeers: a:1", `line 2: peers: must be a list, not "a:1"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := config.Parse([]byte(test.file))
			if got := fmt.Sprint(err); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestParseFollowsAnchors(t *testing.T) {
	c, err := config.Parse([]byte("hub: h\nhistory: &h {maxArtifacts: 3}\ntopics:\n- {pattern: a, history: *h}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.HistoryFor("a").MaxArtifacts; got != 3 {
		t.Errorf("got %d, want 3", got)
	}
}

func TestValidate(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*config.Config)
		want   string // one fault; empty: valid
	}{
		"the defaults and a hub":             {func(*config.Config) {}, ""},
		"a hub scaled to none":               {func(c *config.Config) { c.Replicas = 0 }, ""},
		"health checks turned off":           {func(c *config.Config) { c.HealthCheck.Interval = 0 }, ""},
		"any free port, twice":               {func(c *config.Config) { c.Listen.Client, c.Listen.HTTP = "127.0.0.1:0", "127.0.0.1:0" }, ""},
		"an address of IPv6":                 {func(c *config.Config) { c.Advertise, c.Peers = "fd00::1", []string{"[fd00::2]:7402"} }, ""},
		"all interfaces":                     {func(c *config.Config) { c.Listen.Client, c.Listen.HTTP = "0.0.0.0:7400", "[::]:7480" }, ""},
		"a history without a bound of bytes": {func(c *config.Config) { c.History.MaxBytes, c.History.MaxAge = 0, 0 }, ""},
		"a hub's name with a space":          {func(c *config.Config) { c.Hub = "a b" }, `hub: must be without white space and control characters, is "a b"`},
		"a hub's name that is not UTF-8":     {func(c *config.Config) { c.Hub = "\xff" }, `hub: must be UTF-8, is "\xff"`},
		"a hub's name for no label":          {func(c *config.Config) { c.Hub = strings.Repeat("h", 256) }, "hub: must not be longer than 255 bytes, has 256"},
		"a node's name with a line end":      {func(c *config.Config) { c.Node = "a\n-1" }, `node: must be without white space and control characters, is "a\n-1"`},
		"more nodes than there can be":       {func(c *config.Config) { c.Replicas = 100 }, "replicas: must be from 0 to 99, is 100"},
		"an address that nobody reaches":     {func(c *config.Config) { c.Advertise = "0.0.0.0" }, `advertise: must be an address that others can reach, is "0.0.0.0"`},
		"a host with a blank":                {func(c *config.Config) { c.Advertise = "a b" }, `advertise: must be an IP address or a DNS name without a port, is "a b"`},
		"a peer that nobody reaches":         {func(c *config.Config) { c.Peers = []string{"[::]:7402"} }, `peers[0]: must be an address that others can reach, is "::"`},
		"a peer without a port":              {func(c *config.Config) { c.Peers = []string{"a:0"} }, `peers[0]: must have a port above 0, is "a:0"`},
		"peers without end":                  {func(c *config.Config) { c.Peers = make([]string, 257) }, "peers: must not have more than 256 elements, has 257"},
		"topics without end":                 {func(c *config.Config) { c.Topics = make([]config.Topic, 8193) }, "topics: must not have more than 8192 elements, has 8193"},
		"an address that is not one":         {func(c *config.Config) { c.Listen.HTTP = "a b:1" }, `listen.http: must be host:port with a port up to 65535, is "a b:1"`},
		"no time to answer":                  {func(c *config.Config) { c.HealthCheck.Timeout = 0 }, "healthCheck.timeout: must be above zero, is 0s"},
		"a negative interval":                {func(c *config.Config) { c.HealthCheck.Interval = -1 }, "healthCheck.interval: must not be negative, is -1ns"},
		"a filter without end":               {func(c *config.Config) { c.Topics = []config.Topic{{Pattern: "a", Filter: strings.Repeat("x", 4097)}} }, "topics[0].filter: must not be longer than 4096 bytes, has 4097"},
		"a queue without end":                {func(c *config.Config) { c.Limits.MaxPendingBytes = 1 << 40 }, "limits.maxPendingBytes: must be from 1Ki to 64Gi, is 1Ti"},
		"a directory that depends":           {func(c *config.Config) { c.Storage.Dir = "x" }, `storage.dir: must be an absolute path, is "x"`},
		"a policy that is none":              {func(c *config.Config) { c.Storage.Sync = "Never" }, `storage.sync: must be one of Always, Interval, is "Never"`},
		"no interval":                        {func(c *config.Config) { c.Storage.SyncInterval = 0 }, "storage.syncInterval: must be above zero, is 0s"},
		"no replica":                         {func(c *config.Config) { c.Storage.Replicas = 0 }, "storage.replicas: must be from 1 to 7, is 0"},
		"too many shards":                    {func(c *config.Config) { c.Storage.Shards = 257 }, "storage.shards: must be from 1 to 256, is 257"},
		"a session that ends before":         {func(c *config.Config) { c.Sessions.ResumeWindow = -1 }, "sessions.resumeWindow: must not be negative, is -1ns"},
	} {
		t.Run(name, func(t *testing.T) {
			c := config.Default()
			c.Hub = "h"
			test.change(&c)
			err := c.Validate()
			if (err == nil) != (test.want == "") || err != nil && err.Error() != test.want {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
			var fault *config.FieldError
			if err != nil && !errors.As(err, &fault) {
				t.Errorf("got no FieldError in %v", err)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(full))
	for _, seed := range []string{"", "hub: h", "a: &a [*a]", "hub: &x h\nnode: *x", "<<: {hub: h}", "hub: h\ntopics: [{pattern: '*', history: {}}]", "? {a: b}\n: c", "hub: !!binary aGk=", "hub: h\nlimits: {maxPendingBytes: 1048577}", "--- \n...\n", "hub: h\nlog: {level: !!int info}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := config.Parse(data)
		if err != nil {
			return
		}
		if err := c.Validate(); err != nil {
			t.Fatalf("what Parse took is not valid: %v", err)
		}
		out, err := c.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		again, err := config.Parse(out)
		if err != nil {
			t.Fatalf("what Marshal wrote can't be read: %v\n%s", err, out)
		}
		if diff := cmp.Diff(c, again); diff != "" {
			t.Fatalf("what Marshal wrote says something else: %s", diff)
		}
	})
}

func TestParseTakesOnlyTrueAndFalse(t *testing.T) {
	for value, wrong := range map[string]string{"true": "", "false": "", "yes": `"yes"`, "1": `"1"`, `"true"`: `"true"`, "[]": "a list"} {
		_, err := config.Parse([]byte("hub: h\nsessions: {rebalance: " + value + "}\n"))
		want := ""
		if wrong != "" {
			want = "line 2: sessions.rebalance: must be true or false, not " + wrong
		}
		if got := fmt.Sprint(err); (err == nil) != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %v, want %q", value, err, want)
		}
	}
}
