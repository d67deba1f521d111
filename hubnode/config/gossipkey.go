package config

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
)

// MaxGossipKeys is how many keys the gossip key's file may hold.
const MaxGossipKeys = 2

// DecodeGossipKeys reads what the gossip key's file holds: on each line 16, 24 or 32
// bytes in base64. What is sent is encrypted with the first one; all are accepted. An
// error does not repeat the text.
func DecodeGossipKeys(text []byte) ([][]byte, error) {
	var keys [][]byte
	for line := range bytes.Lines(text) {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(string(line))
		if err != nil {
			return nil, fmt.Errorf("gossip key is not base64: %w", err)
		}
		switch len(key) {
		case 16, 24, 32:
		default:
			return nil, fmt.Errorf("gossip key has %d bytes: it needs 16, 24 or 32", len(key))
		}
		for _, k := range keys {
			if bytes.Equal(k, key) {
				return nil, errors.New("gossip key is there twice")
			}
		}
		keys = append(keys, key)
	}
	switch {
	case len(keys) == 0:
		return nil, errors.New("gossip key has 0 bytes: it needs 16, 24 or 32")
	case len(keys) > MaxGossipKeys:
		return nil, fmt.Errorf("there are %d gossip keys: one is used, and one more may be on its way in or out", len(keys))
	}
	return keys, nil
}

// EncodeGossipKeys is the file that DecodeGossipKeys reads. That of one key is as it
// was when there was only one.
func EncodeGossipKeys(keys [][]byte) []byte {
	var text []byte
	for i, key := range keys {
		if i > 0 {
			text = append(text, '\n')
		}
		text = base64.StdEncoding.AppendEncode(text, key)
	}
	return text
}

// GossipKeyFingerprint tells keys apart and says nothing of a key of random bytes.
func GossipKeyFingerprint(key []byte) string {
	sum := sha256.Sum256(append([]byte("switchboard gossip key\x00"), key...))
	return hex.EncodeToString(sum[:6])
}
