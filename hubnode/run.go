package hubnode

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"

	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/hubnode/memory"
	"github.com/switchboardhub/switchboard/internal/garbage"
)

// Options say how [RunFile] runs a node.
type Options struct {
	ConfigFile string // required
	Node       string // overrides the file's node, when not empty
	Advertise  string // overrides the file's advertise, when not empty
	// ClusterTLS is the directory of the certificate for links between nodes, when not
	// empty: the cluster port then takes TLS, too, where the file has it Disabled.
	ClusterTLS string
	Version    string    // of the program
	LogOutput  io.Writer // required
}

// ErrConfig marks an error in the config file or in what overrides it: the
// node can't start before somebody has mended it.
var ErrConfig = errors.New("the configuration is wrong")

// RunFile runs a node by its config file and follows changes of it, until ctx
// ends and the node has drained. A file that is wrong at the start is an
// error; one that becomes wrong later leaves the last good one in force, which
// the log and /v1/status say. It sets how much garbage the process may have, as
// [garbage.Limit] and [memory.Bound] do.
func RunFile(ctx context.Context, o Options) error {
	cfg, hash, err := o.load()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	level := new(slog.LevelVar)
	log := newLogger(o.LogOutput, cfg.Log, level)
	n, err := New(cfg, WithLog(log), WithVersion(o.Version), WithConfigHash(hash))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	garbage.Limit(ctx, n.stores.inMemory)
	memory.Bound(int64(cfg.Limits.MaxMemory))
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	var watch sync.WaitGroup
	watch.Go(func() {
		refused := func(err error) {
			n.ConfigRefused(err)
			log.Error("config refused: the last good one stays", slog.Any("error", err))
		}
		if err := config.Watch(watching, o.ConfigFile, func(config.Config) { o.reload(n, log, level) }, refused); err != nil {
			refused(err)
		}
	})
	err = n.Run(ctx)
	stopWatching()
	watch.Wait()
	return err
}

// load reads the file once, so that the hash is of what was parsed.
func (o Options) load() (config.Config, string, error) {
	text, err := os.ReadFile(o.ConfigFile)
	if err != nil {
		return config.Config{}, "", err
	}
	cfg, err := config.Parse(text)
	if err != nil {
		return cfg, "", fmt.Errorf("config %s: %w", o.ConfigFile, err)
	}
	if o.Node != "" {
		cfg.Node = o.Node
	}
	if o.Advertise != "" {
		cfg.Advertise = o.Advertise
	}
	if o.ClusterTLS != "" && cfg.TLS.Cluster == config.TLSDisabled {
		cfg.TLS.Cluster, cfg.TLS.ClusterDirectory = config.TLSOptional, o.ClusterTLS
	}
	sum := sha256.Sum256(text)
	return cfg, hex.EncodeToString(sum[:]), cfg.Validate()
}

func (o Options) reload(n *Node, log *slog.Logger, level *slog.LevelVar) {
	cfg, hash, err := o.load()
	if err == nil {
		err = n.Configure(cfg, hash)
	}
	if err != nil {
		n.ConfigRefused(err)
		log.Error("config refused: the last good one stays", slog.Any("error", err))
		return
	}
	memory.Bound(int64(cfg.Limits.MaxMemory))
	level.Set(levelOf(cfg.Log))
	log.Info("config applied", slog.String("hash", hash))
}

func newLogger(w io.Writer, l config.Log, level *slog.LevelVar) *slog.Logger {
	level.Set(levelOf(l))
	opts := &slog.HandlerOptions{Level: level}
	if l.Format == "text" {
		return slog.New(slog.NewTextHandler(w, opts))
	}
	return slog.New(slog.NewJSONHandler(w, opts))
}

func levelOf(l config.Log) slog.Level {
	var level slog.Level
	_ = level.UnmarshalText([]byte(l.Level)) // validated: one of the four that slog knows
	return level
}
