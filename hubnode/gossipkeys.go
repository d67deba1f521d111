package hubnode

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/hubnode/follow"
)

// GossipKeys says by which keys a node's gossip is encrypted, without giving them away.
type GossipKeys struct {
	// Primary is the fingerprint of the key that encrypts what the node sends; empty:
	// the gossip is plain.
	Primary string `json:"primary"`
	// Accepted are those of all keys that it understands, sorted.
	Accepted []string `json:"accepted"`
	// Error is why the file that is there is not in use, or empty.
	Error string `json:"error,omitempty"`
}

// gossipKeys are the keys of the node's gossip, and the file that they are in.
type gossipKeys struct {
	path    string // empty: the gossip is plain
	first   [][]byte
	refused atomic.Pointer[string] // why the file is not in use; nil: it is
}

// read reads the keys that the node starts with.
func (k *gossipKeys) read(path string) (err error) {
	if k.path = path; path == "" {
		return nil
	}
	k.first, err = readKeys(path)
	return err
}

func readKeys(path string) ([][]byte, error) {
	text, err := os.ReadFile(path) //nolint:gosec // the operator of the node names the file
	if err != nil {
		return nil, fmt.Errorf("gossip key: %w", err)
	}
	return config.DecodeGossipKeys(text)
}

// followGossipKeys takes over what the file comes to say, until ctx ends.
func (n *Node) followGossipKeys(ctx context.Context) error {
	if n.keys.path == "" {
		return nil
	}
	follow.Always(ctx, filepath.Dir(n.keys.path), n.rereadKeys, n.keysRefused)
	return nil
}

// rereadKeys takes over what the file says when it is good and new.
func (n *Node) rereadKeys() {
	next, err := readKeys(n.keys.path)
	if err != nil {
		n.keysRefused(err)
		return
	}
	if !slices.EqualFunc(next, n.cluster.Keys(), bytes.Equal) {
		if err := n.cluster.SetKeys(next); err != nil {
			n.keysRefused(err)
			return
		}
		now := n.gossipKeys()
		n.log.Info("gossip keys changed", slog.String("primary", now.Primary), slog.Any("accepted", now.Accepted))
	}
	n.keys.refused.Store(nil)
}

// keysRefused records why the file is not in use, and logs what was not logged last.
func (n *Node) keysRefused(err error) {
	text := err.Error()
	if was := n.keys.refused.Swap(&text); was == nil || *was != text {
		n.log.Error("gossip keys refused: the last good ones stay", slog.Any("error", err))
	}
}

// gossipKeys says by which keys the gossip is encrypted.
func (n *Node) gossipKeys() GossipKeys {
	s := GossipKeys{Accepted: []string{}}
	for i, key := range n.cluster.Keys() {
		mark := config.GossipKeyFingerprint(key)
		if i == 0 {
			s.Primary = mark
		}
		s.Accepted = append(s.Accepted, mark)
	}
	slices.Sort(s.Accepted)
	if text := n.keys.refused.Load(); text != nil {
		s.Error = *text
	}
	return s
}
