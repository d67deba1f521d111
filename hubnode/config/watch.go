package config

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/switchboardhub/switchboard/hubnode/follow"
)

// Watch follows a file until ctx ends, and then returns nil. It calls onChange
// with what the file says when watching has begun, so that nothing is missed
// since it was loaded, and then each time that its content has changed. What
// can't be read or is not valid goes to onError, and the last good
// configuration stays in force. Both are called one after another, by the
// goroutine that called Watch.
//
// A file that is mounted alone (subPath) never changes: see [follow.Folder].
//
// It returns an error only when the file's folder can't be watched, or is gone.
func Watch(ctx context.Context, path string, onChange func(Config), onError func(error)) error {
	w := watched{path: path, onChange: onChange, onError: onError}
	err := follow.Folder(ctx, filepath.Dir(path), w.read, func(err error) {
		onError(fmt.Errorf("watch config: %w", err))
	})
	if err != nil {
		return fmt.Errorf("watch config: %w", err)
	}
	return nil
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
