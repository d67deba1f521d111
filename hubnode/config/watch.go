package config

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long Watch waits after the first sign of a change: a writer
// may need several steps.
const settle = 50 * time.Millisecond

// Watch follows a file until ctx ends, and then returns nil. It calls onChange
// with what the file says when watching has begun, so that nothing is missed
// since it was loaded, and then each time that its content has changed. What
// can't be read or is not valid goes to onError, and the last good
// configuration stays in force. Both are called one after another, by the
// goroutine that called Watch.
//
// It watches the folder and not the file: a ConfigMap's volume replaces the
// symbolic link that its files lead through, and editors replace files. A file
// that is mounted alone (subPath) never changes.
//
// It returns an error only when the folder can't be watched, or is gone.
func Watch(ctx context.Context, path string, onChange func(Config), onError func(error)) (err error) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch config: %w", err)
	}
	defer func() { err = errors.Join(err, watcher.Close()) }()
	folder := filepath.Dir(path)
	if err := watcher.Add(folder); err != nil {
		return fmt.Errorf("watch config: %w", err)
	}

	w := watched{path: path, onChange: onChange, onError: onError}
	w.read()
	var settled <-chan time.Time // nil while nothing has changed
	for {
		select {
		case <-ctx.Done():
			return nil
		case event := <-watcher.Events:
			if event.Name == folder && event.Has(fsnotify.Remove|fsnotify.Rename) {
				return fmt.Errorf("watch config: the folder %s is gone", folder)
			}
			// Not put off by further events: a busy folder would put it off
			// for ever.
			if settled == nil {
				settled = time.After(settle)
			}
		case err := <-watcher.Errors:
			onError(fmt.Errorf("watch config: %w", err))
			if settled == nil {
				settled = time.After(settle) // events may have been lost
			}
		case <-settled:
			settled = nil
			w.read()
		}
	}
}

// watched is a file and what it said last.
type watched struct {
	path     string
	onChange func(Config)
	onError  func(error)

	content    []byte // that was read last; nil before
	unreadable bool   // since then
}

// read tells of the file's content when it is not what it was.
func (w *watched) read() {
	content, err := os.ReadFile(w.path)
	if err != nil {
		if !w.unreadable {
			w.unreadable = true
			w.onError(fmt.Errorf("read config: %w", err))
		}
		return
	}
	w.unreadable = false
	if w.content != nil && bytes.Equal(content, w.content) {
		return
	}
	w.content = content
	c, err := Parse(content)
	if err != nil {
		w.onError(fmt.Errorf("config %s: %w", w.path, err))
		return
	}
	w.onChange(c)
}
