package cluster

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"strings"
)

// newLogger makes memberlist's log lines ours.
func newLogger(l *slog.Logger) *log.Logger { return log.New(lines{l}, "", 0) }

// lines turns "[WARN] memberlist: text" into log records. What memberlist says
// as information is detail here.
type lines struct{ log *slog.Logger }

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
	w.log.LogAttrs(context.Background(), level, "gossip", slog.String("detail", strings.TrimPrefix(text, "memberlist: ")))
	return len(b), nil
}
