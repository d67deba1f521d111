//go:build fault

package fault

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/hubnode/placement"
	"github.com/switchboardhub/switchboard/test/check"
)

var (
	failovers = flag.Int("failovers", 5, "how many `times` TestFailover kills a node")
	damages   = flag.Uint64("damage.seed", 7, "what TestHistorySurvivesDamagedDisks does to which files")
	soak      = flag.Duration("soak", 20*time.Second, "how long TestSoak goes on")
)

// keeper is a network under a load of history.
type keeper struct {
	*network
	ledger *check.Ledger
}

// onDisk keeps history on disk, with few shards: each has leaders on some node.
func onDisk(sync config.SyncPolicy) func(*config.Config) {
	return func(c *config.Config) {
		c.Storage.Sync, c.Storage.Shards = sync, 4
		c.History.MaxArtifacts, c.History.MaxBytes = 1<<20, 1<<30
	}
}

func keep(t *testing.T, settings func(*config.Config)) *keeper {
	t.Helper()
	root := t.TempDir()
	n := newNetwork(t, 3, func(c *config.Config) {
		settings(c)
		c.Storage.Dir = filepath.Join(root, c.Node)
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	l, err := check.StartLedger(ctx, check.LedgerConfig{
		Servers: n.servers(), Topics: 6, Publishers: 3, Window: 256, Pause: time.Millisecond,
		Options: []client.Option{client.WithDialer(n.dial)},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	k := &keeper{n, l}
	k.flows("before the fault")
	return k
}

// flows returns when some more artifacts were acknowledged.
func (k *keeper) flows(when string) {
	k.t.Helper()
	before := k.ledger.Acknowledged()
	k.wait("acknowledgements "+when, func() bool { return k.ledger.Acknowledged() > before+500 })
}

// end stops the load and judges it.
func (k *keeper) end() {
	k.t.Helper()
	k.flows("at the end")
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	v, err := k.ledger.Stop(ctx)
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Logf("acknowledged %d, stored %d, handled again %d", v.Acknowledged, v.Stored, v.Repeats)
	if err := v.Err(); err != nil {
		k.t.Error(err)
	}
}

// All nodes are killed at once under load, again and again.
func TestHistorySurvivesTheCrashOfAllNodes(t *testing.T) {
	for _, sync := range []config.SyncPolicy{config.SyncAlways, config.SyncInterval} {
		t.Run(string(sync), func(t *testing.T) {
			k := keep(t, onDisk(sync))
			for range 3 {
				for _, n := range k.nodes {
					n.kill()
				}
				for _, n := range k.nodes {
					n.start()
				}
				k.ready()
				k.flows("after a crash of all nodes")
			}
			k.end()
		})
	}
}

// The disk of one node after another is damaged while the node is dead: bits flip in
// any of its files, ends are cut off. What was acknowledged is there all the same, and
// no reader is given anything else.
func TestHistorySurvivesDamagedDisks(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, chance *rand.Rand, path string, size int64){
		"flipped bits": func(t *testing.T, chance *rand.Rand, path string, size int64) {
			t.Helper()
			for range 1 + size/(1<<20) {
				flip(t, path, chance.Int64N(size), byte(1)<<chance.IntN(8))
			}
		},
		"ends cut off": func(t *testing.T, chance *rand.Rand, path string, size int64) {
			t.Helper()
			if err := os.Truncate(path, chance.Int64N(size)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			k := keep(t, onDisk(config.SyncAlways))
			chance := rand.New(rand.NewPCG(*damages, 7))
			for _, n := range k.nodes {
				n.kill()
				k.flows("while a node is dead")
				files := filesOf(t, n.cfg.Storage.Dir)
				for range 6 {
					at := files[chance.IntN(len(files))]
					info, err := os.Stat(at)
					if err != nil || info.Size() == 0 {
						continue
					}
					t.Logf("%s: %s", n.cfg.Node, strings.TrimPrefix(at, n.cfg.Storage.Dir))
					damage(t, chance, at, info.Size())
				}
				n.start()
				k.ready()
				k.flows("with a damaged node back")
			}
			k.end()
		})
	}
}

func flip(t *testing.T, path string, at int64, bit byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= bit
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

func filesOf(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			all = append(all, path)
		}
		return err
	})
	if err != nil || len(all) == 0 {
		t.Fatalf("%d files in %s: %v", len(all), dir, err)
	}
	return all
}

// A node loses its disk for good: it begins anew, and has everything again.
func TestHistorySurvivesALostDisk(t *testing.T) {
	k := keep(t, onDisk(config.SyncInterval))
	for _, n := range k.nodes {
		n.kill()
		if err := os.RemoveAll(n.cfg.Storage.Dir); err != nil {
			t.Fatal(err)
		}
		n.start()
		k.ready()
		k.flows("after a disk was lost")
	}
	k.end()
}

// Nodes that lead are killed one after another. How long nothing was acknowledged on
// some topic is told, from the kill on; what was acknowledged is there.
func TestFailover(t *testing.T) {
	k := keep(t, onDisk(config.SyncInterval))
	var silences []time.Duration
	for i := range *failovers {
		n := k.leader(i)
		k.ledger.Mark()
		n.kill()
		var longest check.Silence
		k.wait("acknowledgements on every topic", func() (over bool) {
			longest, over = k.ledger.Silence()
			return over
		})
		if longest.Length() > time.Second {
			t.Logf("%s was killed, and %s was silent for %v from %v on", n.cfg.Node, longest.Topic, longest.Length(), longest.From.UTC().Format(time.StampMilli))
		}
		silences = append(silences, longest.Length())
		n.start()
		k.ready()
	}
	slices.Sort(silences)
	t.Logf("nothing was acknowledged on some topic for up to: p50 %v, p99 %v, max %v of %d", silences[len(silences)/2], silences[len(silences)*99/100], silences[len(silences)-1], len(silences))
	k.end()
}

// leader waits until a node leads a shard that is published to, and returns it: of
// several the next one in turn.
func (k *keeper) leader(turn int) (leads *host) {
	k.t.Helper()
	k.wait("a node that leads", func() bool {
		for i := range k.nodes {
			n := k.nodes[(turn+i)%len(k.nodes)]
			metrics := k.read(n, "/metrics")
			if slices.ContainsFunc(k.ledger.Topics(), func(topic string) bool {
				return strings.Contains(metrics, fmt.Sprintf("raft_leader{shard=\"%d\"} 1\n", placement.ShardOf(topic, n.cfg.Storage.Shards)))
			}) {
				leads = n
				return true
			}
		}
		return false
	})
	return leads
}

// One fault after another, at random, for as long as -soak says.
func TestSoak(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	chance := rand.New(rand.NewPCG(seed, 1))
	k := keep(t, onDisk(config.SyncInterval))
	for end := time.Now().Add(*soak); time.Now().Before(end); {
		n, other := k.nodes[chance.IntN(3)], k.nodes[chance.IntN(3)]
		switch chance.IntN(5) {
		case 0:
			n.kill()
			n.start()
		case 1:
			n.end()
			n.start()
		case 2:
			for _, n := range k.nodes {
				n.kill()
			}
			for _, n := range k.nodes {
				n.start()
			}
		case 3:
			n.kill()
			if err := os.RemoveAll(n.cfg.Storage.Dir); err != nil {
				t.Fatal(err)
			}
			n.start()
		case 4:
			if n != other {
				n.deafen(other)
				other.deafen(n)
				k.flows("while two nodes don't hear each other")
				n.hear(other)
				other.hear(n)
			}
		}
		k.ready()
		k.flows("after a fault")
	}
	k.end()
}
