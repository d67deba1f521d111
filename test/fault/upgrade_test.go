//go:build fault

package fault

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/test/check"
)

var previous = flag.String("previous", "HEAD~1", "the git `revision` whose nodes work together with this one's")

// previousBin builds the nodes' program of the revision before.
func previousBin(t *testing.T) string {
	t.Helper()
	sources, to := t.TempDir(), filepath.Join(t.TempDir(), "hubnode")
	archive := filepath.Join(t.TempDir(), "sources.tar")
	if out, err := exec.Command("git", "-C", "../..", "archive", "-o", archive, *previous).CombinedOutput(); err != nil {
		t.Logf("this checkout has no revision %s, its own sources stand in for it: %v: %s", *previous, err, out)
		return bin
	}
	if out, err := exec.Command("tar", "-C", sources, "-xf", archive).CombinedOutput(); err != nil {
		t.Fatalf("unpack: %v: %s", err, out)
	}
	if err := build(sources, to); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(sources); err != nil {
		t.Fatal(err)
	}
	return to
}

// change replaces a node's program and runs it again.
func (h *host) change(bin string) {
	h.net.t.Helper()
	h.end()
	h.bin = bin
	h.start()
	h.net.ready()
}

// Nodes go back to the version before, one after the other, and forth again. In between
// both versions are in one hub.
func TestVersionsWorkTogether(t *testing.T) {
	earlier := previousBin(t)
	t.Run("live", func(t *testing.T) {
		h := begin(t)
		for _, version := range []string{earlier, bin} {
			for _, n := range h.nodes {
				n.change(version)
				h.flows("after " + n.cfg.Node + " changed its version")
			}
		}
		h.end(check.Allowed{})
	})
	t.Run("history", func(t *testing.T) {
		k := keep(t, onDisk(config.SyncInterval))
		for _, version := range []string{earlier, bin} {
			for _, n := range k.nodes {
				n.change(version)
				k.flows("after " + n.cfg.Node + " changed its version")
			}
		}
		k.end()
	})
}
