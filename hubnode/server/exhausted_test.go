package server_test

import (
	"bytes"
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/server"
	"github.com/switchboardhub/switchboard/test/exhausted"
)

// A node that has no file left for a client tries again, takes no processor for it, and does
// not fill the log.
func TestANodeOutOfFilesNeitherSpinsNorFillsTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := exhausted.New()
		var log bytes.Buffer
		s := server.New(server.Config{Log: slog.New(slog.NewTextHandler(&log, nil))}, ln)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := s.Run(ctx); err != nil {
			t.Errorf("Run = %v", err)
		}
		if n := len(ln.Tried); n < 10 || n > 30 {
			t.Errorf("it tried %d times in ten seconds", n)
		}
		if n := bytes.Count(log.Bytes(), []byte("client not accepted")); n != 1 {
			t.Errorf("it logged %d lines, want 1", n)
		}
	})
}
