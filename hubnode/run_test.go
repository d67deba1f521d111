package hubnode_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.uber.org/goleak"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/hubnode"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/test/ports"
	"github.com/switchboardhub/switchboard/wire"
)

// memberlist's Shutdown does not wait for the probe under way, which ends by
// itself within a second.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

const patience = 30 * time.Second

// file is a config file under test, and the node that runs by it.
type file struct {
	t    *testing.T
	path string
	base string // what every version of the file begins with
	http string
}

// runFile writes a config and runs a node by it until the test ends.
func runFile(t *testing.T, extra string) *file {
	t.Helper()
	return runFileWith(t, extra, hubnode.Options{})
}

// runFileWith is runFile with options beside those that every node under test has.
func runFileWith(t *testing.T, extra string, o hubnode.Options) *file {
	t.Helper()
	f := beginFile(t, extra, o)
	f.waitFor("readiness", f.ready)
	return f
}

// beginFile is runFileWith for a node that may not become ready.
func beginFile(t *testing.T, extra string, o hubnode.Options) *file {
	t.Helper()
	f := &file{t: t, path: filepath.Join(t.TempDir(), "hubnode.yaml"), http: ports.Free(t)}
	f.base = fmt.Sprintf("hub: test\nnode: node-0\nadvertise: 127.0.0.1\nlisten: {client: %q, cluster: %q, gossip: %q, http: %q}\n", ports.Free(t), ports.Free(t), ports.Free(t), f.http)
	f.write(extra)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { // ended and waited for below
		o.ConfigFile, o.Version, o.LogOutput = f.path, "test", io.Discard
		done <- hubnode.RunFile(ctx, o)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("RunFile = %v", err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return f
}

func (f *file) ready() bool {
	f.t.Helper()
	_, code := f.get("/readyz")
	return code == http.StatusOK
}

// write replaces the file in one step, as an editor does.
func (f *file) write(extra string) (hash string) {
	f.t.Helper()
	text := []byte(f.base + extra)
	if err := os.WriteFile(f.path+".new", text, 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Rename(f.path+".new", f.path); err != nil {
		f.t.Fatal(err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

func (f *file) get(path string) (body string, code int) {
	f.t.Helper()
	resp, err := http.Get("http://" + f.http + path)
	if err != nil {
		return err.Error(), 0
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return string(b), resp.StatusCode
}

func (f *file) status() hubnode.Status {
	f.t.Helper()
	var s hubnode.Status
	body, _ := f.get("/v1/status")
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		f.t.Fatalf("status %q: %v", body, err)
	}
	return s
}

func (f *file) waitFor(what string, holds func() bool) {
	f.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			f.t.Fatalf("no %s within %s", what, patience)
		}
	}
}

func TestConfigIsReloadedInPlaceAndAWrongOneIsRefused(t *testing.T) {
	f := runFile(t, "")
	before := f.status()
	if before.ConfigError != "" || before.Node != "node-0" || before.State != "active" || !before.Ready {
		t.Errorf("status is %+v", before)
	}

	hash := f.write("history: {maxArtifacts: 5}\n")
	f.waitFor("new config's hash", func() bool { return f.status().ConfigHash == hash })

	f.write("history: {maxArtifacts: -1}\ntopics: [{pattern: 'a..b'}]\nnonsense: 1\n")
	f.waitFor("refusal", func() bool { return f.status().ConfigError != "" })
	refused := f.status()
	for _, path := range []string{"maxArtifacts", "pattern", "nonsense"} {
		if !strings.Contains(refused.ConfigError, path) {
			t.Errorf("the refusal %q does not name %s", refused.ConfigError, path)
		}
	}
	if refused.ConfigHash != hash {
		t.Errorf("config %s is in use, want the last good one %s", refused.ConfigHash, hash)
	}

	hash = f.write("history: {maxArtifacts: 7}\n")
	f.waitFor("recovery", func() bool { s := f.status(); return s.ConfigHash == hash && s.ConfigError == "" })
	if f.status().Incarnation != before.Incarnation {
		t.Error("the node was restarted")
	}
}

func TestHTTPAnswers(t *testing.T) {
	f := runFile(t, "")
	for path, want := range map[string]string{
		"/healthz":    "ok",
		"/readyz":     "ok",
		"/v1/clients": `{"clients":[]}`,
		"/v1/topics":  `{"topics":[],"shards":[]}`,
		"/v1/nodes":   `"node":"node-0"`,

		"/v1/namespaces": `{"maxHistoryBytes":0,"namespaces":[]}`,
		"/v1/durables":   `{"durables":[]}`,
		"/":              "/v1/status",
	} {
		if body, code := f.get(path); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s = %d, %q; want 200 with %q", path, code, body, want)
		}
	}
	if _, code := f.get("/nothing"); code != http.StatusNotFound {
		t.Errorf("/nothing = %d, want 404", code)
	}

	body, _ := f.get("/metrics")
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"clients", "sessions", "artifacts_received_total", "artifacts_delivered_total", "artifacts_dropped_total", "bytes_received_total",
		"pending_bytes", "slow_clients_total", "clients_joined_total", "clients_left_total", "filter_errors_total", "client_round_trip_seconds", "directory_entries", "mesh_links", "gossip_members", "history_artifacts", "history_bytes",
	} {
		if families["switchboard_"+name] == nil {
			t.Errorf("there is no metric switchboard_%s", name)
		}
	}
}

func TestFilterWithoutAnAnswerIsNoMatchAndCounted(t *testing.T) {
	f := runFile(t, "topics: [{pattern: strict, filter: 'artifact.attributes[\"tenant\"] == \"x\"'}]\n")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := client.Connect(ctx, f.status().Client, client.WithID("a"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var refused *client.Error
	if _, err := c.Publish(ctx, "strict", &wire.Artifact{}); !errors.As(err, &refused) || refused.Code != wire.CodeRefused {
		t.Errorf("Publish = %v, want it refused by the topic's filter", err)
	}
	heard := make(chan string, 10)
	hear := func(_ context.Context, a *wire.Artifact) error {
		heard <- string(a.Payload)
		return nil
	}
	if _, err := c.Subscribe(ctx, "t", hear, client.Filter(`artifact.attributes["n"] == "1"`)); err != nil {
		t.Fatal(err)
	}
	for _, a := range []*wire.Artifact{{Payload: []byte("without")}, {Payload: []byte("with"), Attributes: map[string]string{"n": "1"}}} {
		if _, err := c.Publish(ctx, "t", a); err != nil {
			t.Fatal(err)
		}
	}
	if got := <-heard; got != "with" {
		t.Errorf("heard what came %s the attribute", got)
	}
	if body, _ := f.get("/metrics"); !strings.Contains(body, "\nswitchboard_filter_errors_total 2\n") {
		t.Errorf("two filter errors are not counted:\n%s", body)
	}
	const pairs = `artifact.attributes.exists(a, artifact.attributes.exists(b, a == b))`
	if _, err := c.Subscribe(ctx, "t", hear, client.Filter(pairs)); !errors.As(err, &refused) || refused.Code != wire.CodeInvalidFilter || !strings.Contains(refused.Detail, "allowed are 100000") {
		t.Errorf("Subscribe with an expensive filter = %v, want a refusal that says what is allowed", err)
	}
	if _, err := c.Subscribe(ctx, strings.Repeat("*.", 32)+"*", hear); !errors.As(err, &refused) || refused.Code != wire.CodeInvalidTopic || !strings.Contains(refused.Detail, "32") {
		t.Errorf("Subscribe to an expensive pattern = %v, want a refusal that says what is allowed", err)
	}
}

func TestNodeThatCantStartSaysWhy(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, tt := range map[string]struct {
		yaml   string
		config bool // it is the config's fault
		want   string
	}{
		"no node name":     {"hub: h\n", true, "SWITCHBOARD_NODE"},
		"a field unknown":  {"hub: h\nnode: n-0\nspeed: 9\n", true, "speed"},
		"no such key file": {"hub: h\nnode: n-0\ngossipKeyFile: /nowhere/key\n", true, "/nowhere/key"},
		"a bad filter":     {"hub: h\nnode: n-0\ntopics: [{pattern: a, filter: 'artifact.sise > 1'}]\n", true, "topics[0].filter"},
		"a port in use":    {fmt.Sprintf("hub: h\nnode: n-0\nlisten: {client: %q}\n", taken.Addr()), false, "listen for clients"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "hubnode.yaml")
			if err := os.WriteFile(path, []byte(tt.yaml), 0o600); err != nil {
				t.Fatal(err)
			}
			err := hubnode.RunFile(t.Context(), hubnode.Options{ConfigFile: path, LogOutput: io.Discard})
			if err == nil || !strings.Contains(err.Error(), tt.want) || errors.Is(err, hubnode.ErrConfig) != tt.config {
				t.Errorf("RunFile = %v; want one that says %q, of the config: %v", err, tt.want, tt.config)
			}
		})
	}
}

func TestWhatNeedsARestartStaysAsItIs(t *testing.T) {
	f := runFile(t, "")
	address := f.status().Client
	hash := f.write("gossipKeyFile: /nowhere/key\n")
	f.waitFor("config", func() bool { return f.status().ConfigHash == hash })
	if got := f.status().Client; got != address {
		t.Errorf("the client address became %s", got)
	}
	c := config.Default()
	if got := config.Reloadable(c, c); len(got) != 0 {
		t.Errorf("the same config needs a restart for %v", got)
	}
}

// A disk that can't be opened when the node starts takes it its shards, and nothing else;
// once it can be, they begin.
func TestNodeServesWhileItsDiskCantBeOpened(t *testing.T) {
	mount := filepath.Join(t.TempDir(), "mount")
	if err := os.WriteFile(mount, nil, 0o600); err != nil { // no directory can be made below
		t.Fatal(err)
	}
	f := beginFile(t, fmt.Sprintf("topics: [{pattern: kept, history: {maxArtifacts: 10}}]\nstorage: {dir: %q}\n", filepath.Join(mount, "data")), hubnode.Options{})
	f.waitFor("word of the disk", func() bool {
		_, code := f.get("/v1/status")
		return code == http.StatusOK && f.status().Disk.AwaySince != nil
	})
	if away := f.status().Disk.Away; !strings.Contains(away, "not a directory") {
		t.Errorf("the status says %q of the disk", away)
	}
	gauge := func(want string) {
		t.Helper()
		if metrics, _ := f.get("/metrics"); !strings.Contains(metrics, "\nswitchboard_history_disk_away "+want+"\n") {
			t.Errorf("switchboard_history_disk_away is not %s", want)
		}
	}
	gauge("1")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := client.Connect(ctx, f.status().Client, client.WithID("a"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	heard := make(chan string, 1)
	if _, err := c.Subscribe(ctx, "live", func(_ context.Context, a *wire.Artifact) error {
		heard <- string(a.Payload)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Publish(ctx, "live", &wire.Artifact{Payload: []byte("x")}); err != nil {
		t.Errorf("publish to a topic without history: %v", err)
	} else if got := <-heard; got != "x" {
		t.Errorf("heard %q", got)
	}
	if f.ready() {
		t.Error("the node is ready without its shards")
	}

	if err := os.Remove(mount); err != nil {
		t.Fatal(err)
	}
	f.waitFor("readiness", f.ready)
	if d := f.status().Disk; d.AwaySince != nil || d.Away != "" {
		t.Errorf("the disk is open, and the status says %q", d.Away)
	}
	gauge("0")
	if seq, err := c.Publish(ctx, "kept", &wire.Artifact{Payload: []byte("y")}); err != nil || seq != 1 {
		t.Errorf("publish to a topic with history = %d, %v", seq, err)
	}
}
