package cluster

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/seldom"
)

// newLogger makes memberlist's log lines ours.
func newLogger(l *slog.Logger, ending *atomic.Bool) *log.Logger {
	return log.New(&lines{log: l, ending: ending}, "", 0)
}

// kindOf returns what lines have in common that differ in who and how often: all
// without digits.
func kindOf(text string) string {
	return strings.Map(func(r rune) rune {
		if '0' <= r && r <= '9' {
			return -1
		}
		return r
	}, text)
}

// lines turns "[WARN] memberlist: text" into log records. What memberlist says
// as information is detail here, and so is what fails because this node ends.
type lines struct {
	log    *slog.Logger
	ending *atomic.Bool
	wrong  seldom.Log // what is worth a warning, by its kind
}

func (w *lines) Write(b []byte) (int, error) {
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
	if level > slog.LevelDebug {
		due, silent := w.wrong.Due(kindOf(text), time.Now())
		if !due {
			return len(b), nil
		}
		if silent > 0 {
			text += fmt.Sprintf(" (and %d like it before)", silent)
		}
	}
	w.log.LogAttrs(context.Background(), level, "gossip", slog.String("detail", strings.TrimPrefix(text, "memberlist: ")))
	return len(b), nil
}
