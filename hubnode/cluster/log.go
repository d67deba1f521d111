package cluster

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"strings"
	"sync/atomic"
)

// newLogger makes memberlist's log lines ours.
func newLogger(l *slog.Logger, ending *atomic.Bool) *log.Logger {
	return log.New(lines{l, ending}, "", 0)
}

// lines turns "[WARN] memberlist: text" into log records. What memberlist says
// as information is detail here, and so is what fails because this node ends.
type lines struct {
	log    *slog.Logger
	ending *atomic.Bool
}

func (w lines) Write(b []byte) (int, error) {
	level, text := slog.LevelDebug, string(bytes.TrimSpace(b))
	for prefix, l := range map[string]slog.Level{
		"[WARN] ": slog.LevelInfo, "[ERR] ": slog.LevelWarn, "[ERROR] ": slog.LevelWarn, "[INFO] ": slog.LevelDebug, "[DEBUG] ": slog.LevelDebug,
	} {
		if rest, ok := strings.CutPrefix(text, prefix); ok {
			level, text = l, rest
			break
		}
	}
	if w.ending.Load() {
		level = slog.LevelDebug
	}
	w.log.LogAttrs(context.Background(), level, "gossip", slog.String("detail", strings.TrimPrefix(text, "memberlist: ")))
	return len(b), nil
}
