package mesh_test

import (
	"bytes"
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/mesh"
	"github.com/switchboardhub/switchboard/test/exhausted"
)

// A node that has no file left for a link tries again, takes no processor for it, and does
// not fill the log.
func TestANodeOutOfFilesNeitherSpinsNorFillsTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := exhausted.New()
		var log bytes.Buffer
		m := mesh.New(mesh.Config{Log: slog.New(slog.NewTextHandler(&log, nil))}, ln)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := m.Run(ctx); err != nil {
			t.Errorf("Run = %v", err)
		}
		if n := len(ln.Tried); n < 10 || n > 30 {
			t.Errorf("it tried %d times in ten seconds", n)
		}
		if n := bytes.Count(log.Bytes(), []byte("link not accepted")); n != 1 {
			t.Errorf("it logged %d lines, want 1", n)
		}
	})
}
