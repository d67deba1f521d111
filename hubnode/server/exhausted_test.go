package server_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/server"
)

// exhausted is a listener whose process has no file left for a connection, however often it
// tries, but not beyond all reason.
type exhausted struct {
	net.Listener
	tried  int
	close  func()
	closed chan struct{}
}

const beyondReason = 10_000

func newExhausted() *exhausted {
	e := &exhausted{closed: make(chan struct{})}
	e.close = sync.OnceFunc(func() { close(e.closed) })
	return e
}

func (e *exhausted) Accept() (net.Conn, error) {
	if e.tried++; e.tried >= beyondReason {
		<-e.closed
	}
	select {
	case <-e.closed:
		return nil, net.ErrClosed
	default:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: syscall.EMFILE}
	}
}

func (e *exhausted) Close() error {
	e.close()
	return nil
}

// A node that has no file left for a client tries again, takes no processor for it, and does
// not fill the log.
func TestANodeOutOfFilesNeitherSpinsNorFillsTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newExhausted()
		var log bytes.Buffer
		s := server.New(server.Config{Log: slog.New(slog.NewTextHandler(&log, nil))}, ln)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := s.Run(ctx); err != nil {
			t.Errorf("Run = %v", err)
		}
		if ln.tried < 10 || ln.tried > 30 {
			t.Errorf("it tried %d times in ten seconds", ln.tried)
		}
		if n := bytes.Count(log.Bytes(), []byte("client not accepted")); n != 1 {
			t.Errorf("it logged %d lines, want 1", n)
		}
	})
}
