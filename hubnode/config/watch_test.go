package config_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/config"
)

// watcher runs Watch and keeps what it says in the order it says it.
type watcher struct {
	said chan any // config.Config or error
	done chan error
}

func watch(t *testing.T, path string) *watcher {
	t.Helper()
	w := &watcher{said: make(chan any, 100), done: make(chan error, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		w.done <- config.Watch(ctx, path, func(c config.Config) { w.said <- c }, func(err error) { w.said <- err })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-w.done; err != nil {
			t.Errorf("Watch: got %v, want nil", err)
		}
		close(w.said)
		for s := range w.said {
			t.Errorf("left over: %v", s)
		}
	})
	return w
}

func (w *watcher) next(t *testing.T) any {
	t.Helper()
	select {
	case s := <-w.said:
		return s
	case <-time.After(20 * time.Second): // far beyond what it takes: a test that fails, not one that hangs
		t.Fatal("Watch says nothing")
		return nil
	}
}

func (w *watcher) wantHub(t *testing.T, hub string) {
	t.Helper()
	if c, ok := w.next(t).(config.Config); !ok || c.Hub != hub {
		t.Fatalf("got %+v, want a configuration of hub %s", c, hub)
	}
}

func (w *watcher) wantError(t *testing.T, part string) {
	t.Helper()
	if err, ok := w.next(t).(error); !ok || !strings.Contains(err.Error(), part) {
		t.Fatalf("got %v, want an error with %q", err, part)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// replace gives a file a new content in one step, as careful writers do.
func replace(t *testing.T, path, content string) {
	t.Helper()
	write(t, path+".new", content)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// project lays out a folder as the kubelet does for a ConfigMap: the file is a
// link through ..data, and ..data one to a folder that is replaced whole.
func project(t *testing.T, folder, version, content string) {
	t.Helper()
	for _, err := range []error{
		os.Mkdir(filepath.Join(folder, version), 0o700),
		os.WriteFile(filepath.Join(folder, version, "hub.yaml"), []byte(content), 0o600),
		os.Symlink(version, filepath.Join(folder, "..data_tmp")),
		os.Rename(filepath.Join(folder, "..data_tmp"), filepath.Join(folder, "..data")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestWatchFollowsAConfigMap(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "hub.yaml")
	project(t, folder, "..1", "hub: one")
	if err := os.Symlink(filepath.Join("..data", "hub.yaml"), path); err != nil {
		t.Fatal(err)
	}
	w := watch(t, path)
	w.wantHub(t, "one")
	project(t, folder, "..2", "hub: two")
	if err := os.RemoveAll(filepath.Join(folder, "..1")); err != nil {
		t.Fatal(err)
	}
	w.wantHub(t, "two")
	project(t, folder, "..3", "hub: three")
	w.wantHub(t, "three")
}

func TestWatchFollowsAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.yaml")
	write(t, path, "hub: one")
	w := watch(t, path)
	w.wantHub(t, "one")

	replace(t, path, "hub: two")
	w.wantHub(t, "two")

	replace(t, path, "hub: three\nreplicas: -1")
	w.wantError(t, path+": line 2: replicas: must be from 0 to 99, is -1")

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err, ok := w.next(t).(error); !ok || !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got %v, want one that says that the file is not there", err)
	}
	replace(t, path, "hub: four")
	w.wantHub(t, "four")
}

func TestWatchIgnoresWhatChangesNothing(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "hub.yaml")
	write(t, path, "hub: one")
	w := watch(t, path)
	w.wantHub(t, "one")
	write(t, filepath.Join(folder, "other.yaml"), "hub: other")
	replace(t, path, "hub: one")
	replace(t, path, "hub: two")
	w.wantHub(t, "two") // and the cleanup finds nothing else
}

func TestWatchStartsWithoutAGoodFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.yaml")
	w := watch(t, path)
	w.wantError(t, "no such file")
	replace(t, path, "hub: one")
	w.wantHub(t, "one")
}

func TestWatchReturnsWhenTheFolderIsGone(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "etc")
	ignore := func(error) {}
	err := config.Watch(t.Context(), filepath.Join(folder, "hub.yaml"), nil, ignore)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a folder: got %v", err)
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	err = config.Watch(t.Context(), filepath.Join(folder, "hub.yaml"), nil, func(error) {
		_ = os.Remove(folder) // once it is watched, and before the first event
	})
	if err == nil || !strings.Contains(err.Error(), "is gone") {
		t.Errorf("with a folder that is removed: got %v", err)
	}
}
