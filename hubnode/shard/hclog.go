package shard

import (
	"log/slog"
	"strings"

	"github.com/hashicorp/go-hclog"
)

// hclogTo returns a logger for Raft. What Raft says is for debugging, its errors
// most often that another node is away; what people have to know of shards this
// package says itself.
func hclogTo(log *slog.Logger, debug bool) hclog.Logger {
	level := hclog.Off
	if debug {
		level = hclog.Debug
	}
	return hclog.New(&hclog.LoggerOptions{Level: level, Output: lines{log}, DisableTime: true})
}

// lines logs each line that is written to it.
type lines struct{ log *slog.Logger }

func (l lines) Write(b []byte) (int, error) {
	l.log.Debug("raft", slog.String("said", strings.TrimSpace(string(b))))
	return len(b), nil
}
