package cluster_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/switchboardhub/switchboard/hubnode"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/test/cluster"
)

// keyFiles are the gossip keys' files of a hub's nodes, one each, as each pod has its
// own copy of a Secret.
type keyFiles struct {
	t   *testing.T
	dir string
}

func newKeyFiles(t *testing.T, nodes int, keys ...[]byte) *keyFiles {
	t.Helper()
	f := &keyFiles{t, t.TempDir()}
	for i := range nodes {
		if err := os.Mkdir(filepath.Dir(f.path(i)), 0o700); err != nil {
			t.Fatal(err)
		}
		f.write(i, config.EncodeGossipKeys(keys))
	}
	return f
}

func (f *keyFiles) path(ordinal int) string {
	return filepath.Join(f.dir, fmt.Sprint(ordinal), "key")
}

func (f *keyFiles) write(ordinal int, text []byte) { replaceFile(f.t, f.path(ordinal), text) }

// set is for the config of the nodes.
func (f *keyFiles) set(cfg *config.Config) {
	var ordinal int
	if _, err := fmt.Sscanf(cfg.Node, "node-%d", &ordinal); err != nil {
		f.t.Fatal(err)
	}
	cfg.GossipKeyFile = f.path(ordinal)
}

// gossipKeys is what a node says of its keys.
func gossipKeys(t *testing.T, n *cluster.Node) hubnode.GossipKeys {
	t.Helper()
	resp, err := http.Get(n.HTTP() + "/v1/status")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var s hubnode.Status
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	return s.GossipKeys
}

// has reports whether a node says that it has just these keys, and uses the first.
func has(t *testing.T, n *cluster.Node, keys ...[]byte) bool {
	t.Helper()
	says := gossipKeys(t, n)
	var marks []string
	for _, key := range keys {
		marks = append(marks, config.GossipKeyFingerprint(key))
	}
	primary := marks[0]
	slices.Sort(marks)
	return says.Primary == primary && slices.Equal(says.Accepted, marks) && says.Error == ""
}

func gossipKey(n byte) []byte { return bytes.Repeat([]byte{n}, 32) }

// The key is replaced, step by step and node by node, while clients publish and send.
// No node is taken for dead, no link ends, and nothing is lost.
func TestGossipKeyIsRotatedUnderLoad(t *testing.T) {
	const nodes = 3
	first, second := gossipKey(1), gossipKey(2)
	files := newKeyFiles(t, nodes, first)
	c := cluster.Start(t, nodes, func(cfg *config.Config) {
		files.set(cfg)
		cfg.History.MaxArtifacts, cfg.History.MaxBytes = 1_000_000, 0
		cfg.Storage.Shards = 4
	})
	ledger := startLedger(t, c, nodes)
	const artifacts = 900
	box := make(inbox, artifacts+1)
	connect(t, c.Node(1), "to", numbered(box))
	from := connect(t, c.Node(0), "from")
	together := func(when string) {
		t.Helper()
		for i := range nodes {
			if got := metric(c, i, "gossip_members"); got != "3" {
				t.Errorf("%s node %d knows %s members", when, i, got)
			}
		}
	}
	var links [nodes]string
	for i := range links {
		links[i] = metric(c, i, "mesh_links_made_total")
	}
	steps := [][][]byte{{first, second}, {second, first}, {second}}
	sendAll(t, from, "to", artifacts, func(i int) {
		step, node := i/100/nodes, i/100%nodes
		keys := steps[step]
		files.write(node, config.EncodeGossipKeys(keys))
		c.WaitFor(fmt.Sprintf("step %d of node %d", step, node), func() bool { return has(t, c.Node(node), keys...) })
		together(fmt.Sprintf("in step %d", step))
	})
	expectAll(t, box, artifacts)
	c.Restart(2) // which joins by the new key, and nobody hears the old one
	together("in the end")
	for i := range nodes {
		if got := metric(c, i, "gossip_keys"); got != "1" {
			t.Errorf("node %d has %s keys", i, got)
		}
		if got := metric(c, i, "mesh_links_made_total"); i != 2 && got != links[i] && got != fmt.Sprint(1+atoi(t, links[i])) { // but to the node that was restarted
			t.Errorf("node %d has made %s links, had %s", i, got, links[i])
		}
	}
	keepsPromises(t, ledger)
}

func atoi(t *testing.T, text string) (n int) {
	t.Helper()
	if _, err := fmt.Sscan(text, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// A file that is broken, or of keys that none of those of before is among, changes
// nothing, and the node says so without saying a key.
func TestGossipKeysThatCannotFollowChangeNothing(t *testing.T) {
	first, second := gossipKey(1), gossipKey(2)
	files := newKeyFiles(t, 2, first)
	c := cluster.Start(t, 2, files.set)
	for name, tt := range map[string]struct {
		text []byte
		says string
	}{
		"nothing":     {nil, "has 0 bytes"},
		"nonsense":    {[]byte("open sesame"), "not base64"},
		"too many":    {config.EncodeGossipKeys([][]byte{first, second, gossipKey(3)}), "there are 3 gossip keys"},
		"another key": {config.EncodeGossipKeys([][]byte{second}), "neither is the key that is to be used accepted so far"},
	} {
		t.Run(name, func(t *testing.T) {
			files.write(1, tt.text)
			c.WaitFor("the error", func() bool { return strings.Contains(gossipKeys(t, c.Node(1)).Error, tt.says) })
			says := gossipKeys(t, c.Node(1))
			if says.Primary != config.GossipKeyFingerprint(first) || len(says.Accepted) != 1 || metric(c, 1, "gossip_keys_stale") != "1" {
				t.Errorf("the node says %+v", says)
			}
			if strings.Contains(says.Error, string(config.EncodeGossipKeys([][]byte{first}))) || strings.Contains(says.Error, "sesame") {
				t.Errorf("it gives away what is in the file: %s", says.Error)
			}
			files.write(1, config.EncodeGossipKeys([][]byte{first}))
			c.WaitFor("the end of the error", func() bool { return has(t, c.Node(1), first) && metric(c, 1, "gossip_keys_stale") == "0" })
		})
	}
	if err := os.Remove(files.path(1)); err != nil {
		t.Fatal(err)
	}
	c.WaitFor("the error", func() bool { return strings.Contains(gossipKeys(t, c.Node(1)).Error, "no such file") })
	if got := metric(c, 0, "gossip_members"); got != "2" {
		t.Errorf("node 0 knows %s members", got)
	}
}
