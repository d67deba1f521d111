//go:build fault

package fault

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/test/cluster"
	"github.com/switchboardhub/switchboard/wire"
)

// A disk becomes nearly full under load: publishing is refused with a reason,
// everything acknowledged can be read, and publishing goes on by itself once
// something else has freed the disk. The first and only sequences given are those of
// what is there.
func TestFullDiskRefusesPublishesAndKeepsReads(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a file system needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("history", dir, "tmpfs", 0, "size=1000m"); err != nil {
		t.Skipf("this kernel or user mounts no file systems: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	const size = 256 << 10
	ballast := filepath.Join(dir, "ballast") // somebody else's file
	if err := os.WriteFile(ballast, make([]byte, 500<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	c := cluster.Start(t, 1, func(c *config.Config) {
		c.Storage.Dir = filepath.Join(dir, "node")
		c.Storage.Shards = 2
		c.History.MaxArtifacts, c.History.MaxBytes = 1<<20, 10<<30
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	pub, err := client.Connect(ctx, c.Node(0).Client())
	if err != nil {
		t.Fatal(err)
	}
	defer pub.Close()
	publish := func() (wire.Sequence, error) {
		return pub.Publish(ctx, "t.x", &wire.Artifact{Payload: make([]byte, size)})
	}
	full := func(err error) bool {
		var coded *client.Error
		return errors.As(err, &coded) && coded.Code == wire.CodeStorageFull
	}
	var stored wire.Sequence
	for {
		seq, err := publish()
		if full(err) {
			t.Logf("after %d artifacts of %d KiB: %v", stored, size>>10, err)
			break
		}
		if err != nil || seq != stored+1 {
			t.Fatalf("Publish = %d, %v; want %d or a full disk", seq, err, stored+1)
		}
		stored = seq
	}
	read := func() {
		next := wire.Sequence(1)
		for a, err := range pub.History(ctx, "t.x", client.Range{}) {
			if err != nil || a.Sequence != next || len(a.Payload) != size {
				t.Fatalf("reading %d: %v, %v", next, a, err)
			}
			next++
		}
		if next != stored+1 {
			t.Fatalf("read %d artifacts, %d were acknowledged", next-1, stored)
		}
	}
	read()
	if _, err := publish(); !full(err) {
		t.Fatalf("Publish = %v, want it refused still", err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	c.WaitFor("publishing to go on", func() bool {
		seq, err := publish()
		if err == nil && seq != stored+1 {
			t.Errorf("Publish = %d, want %d", seq, stored+1)
		}
		if err == nil {
			stored = seq
		}
		return err == nil
	})
	read()
}
