package server_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/hubnode/server"
	"github.com/switchboardhub/switchboard/wire"
)

// lines is a log.
type lines struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.all.String(), text)
}

// Who makes the same mistake again and again does not fill the log, and who makes another one
// is heard.
func TestTheSameRefusalIsLoggedOnce(t *testing.T) {
	var log lines
	_, _, addr := serveWith(t, hub.Settings{}, func(cfg *server.Config) { cfg.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	refused := func(frame []byte) {
		t.Helper()
		c := dial(t, addr)
		c.send(frame)
		if f := c.next(); f.Kind() != wire.KindError {
			t.Fatalf("the answer is of kind %d", f.Kind())
		}
		if _, err := c.r.Next(); err == nil { // its line is written before the connection is gone, or never
			t.Fatal("the connection goes on")
		}
	}
	ping := wire.AppendFrame(nil, wire.Header{Kind: wire.KindPing}, "", "", nil)
	for range 20 {
		refused(ping)
	}
	refused(hello("a b"))
	for _, kind := range []string{"the first frame has to be Hello", "white space"} {
		if n := log.count(kind); n != 1 {
			t.Errorf("%q is logged %d times, want once", kind, n)
		}
	}
}
