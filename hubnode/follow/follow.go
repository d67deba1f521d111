// Package follow tells of changes in a folder whose files others replace, such
// as one that a ConfigMap or a Secret is mounted on. It does not look at what
// the files say.
package follow

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long Folder waits after the first sign of a change: a writer
// may need several steps.
const settle = 50 * time.Millisecond

// retryEvery is how long Always waits before it tries again to watch a folder that it
// can't.
const retryEvery = 30 * time.Second

// Always is [Folder] that does not give up: while the folder can't be watched it tries
// again every 30 seconds, having told failed why, and changed that there may be nothing.
func Always(ctx context.Context, folder string, changed func(), failed func(error)) {
	for {
		err := Folder(ctx, folder, changed, failed)
		if err == nil {
			return
		}
		failed(err)
		changed()
		retry := time.NewTimer(retryEvery)
		select {
		case <-retry.C:
		case <-ctx.Done():
			retry.Stop()
			return
		}
	}
}

// Folder follows a folder until ctx ends, and then returns nil. It calls changed
// when watching has begun, so that nothing is missed since the files were read
// before, and then each time that something in the folder may have changed. Signs
// of changes that may have been lost go to failed, and changed is called too. Both
// are called one after another, by the goroutine that called Folder.
//
// The folder is watched and not a file: a volume of Kubernetes replaces the
// symbolic link that its files lead through, and editors replace files. A file
// that is mounted alone (subPath) never changes.
//
// It returns an error only when the folder can't be watched, or is gone.
func Folder(ctx context.Context, folder string, changed func(), failed func(error)) (err error) {
	folder = filepath.Clean(folder)
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, watcher.Close()) }()
	if err := watcher.Add(folder); errors.Is(err, fs.ErrNotExist) {
		return gone(folder)
	} else if err != nil {
		return fmt.Errorf("watch the folder %s: %w", folder, err)
	}
	changed()
	var settled <-chan time.Time // nil while nothing has changed
	for {
		select {
		case <-ctx.Done():
			return nil
		case event := <-watcher.Events:
			if event.Name == folder && event.Has(fsnotify.Remove|fsnotify.Rename) {
				return gone(folder)
			}
			// Not put off by further events: a busy folder would put it off
			// for ever.
			if settled == nil {
				settled = time.After(settle)
			}
		case err := <-watcher.Errors:
			failed(err)
			if settled == nil {
				settled = time.After(settle) // events may have been lost
			}
		case <-settled:
			settled = nil
			changed()
		}
	}
}

func gone(folder string) error {
	return fmt.Errorf("the folder %s is gone: %w", folder, fs.ErrNotExist)
}
