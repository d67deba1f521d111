package config

import (
	"encoding/base64"
	"fmt"
	"strings"
)

// DecodeGossipKey reads what the gossip key's file holds: 16, 24 or 32 bytes in
// base64. An error does not repeat the text.
func DecodeGossipKey(text []byte) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("gossip key is not base64: %w", err)
	}
	switch len(key) {
	case 16, 24, 32:
		return key, nil
	default:
		return nil, fmt.Errorf("gossip key has %d bytes: it needs 16, 24 or 32", len(key))
	}
}
