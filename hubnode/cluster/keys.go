package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
)

// ErrOtherKeys reports keys that can't follow those that are there: this node would
// understand nobody who has not taken the same step, or not be understood.
var ErrOtherKeys = errors.New("neither is the key that is to be used accepted so far, nor would the key that is used be accepted any more")

// Keys returns the keys, the one that encrypts first; none of gossip that is plain.
func (c *Cluster) Keys() [][]byte {
	if c.keyring == nil {
		return nil
	}
	return slices.Clone(c.keyring.GetKeys())
}

// SetKeys replaces the keys: the first encrypts from now on, all are accepted. There
// must be one or two, and one in common with those of before, so that a hub whose nodes
// take one step after the other stays together: else it is [ErrOtherKeys], and nothing
// changes. It must not be called concurrently.
func (c *Cluster) SetKeys(next [][]byte) error {
	if c.keyring == nil {
		return errors.New("the gossip is not encrypted, and that can't change while the node runs")
	}
	now := c.keyring.GetKeys()
	in := func(keys [][]byte, key []byte) bool {
		return slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, key) })
	}
	known := in(now, next[0])
	if !known && !in(next, now[0]) {
		return ErrOtherKeys
	}
	var steps []error
	if known {
		steps = append(steps, c.keyring.UseKey(next[0]))
	}
	// Before others are added: of two the second one goes. To take one out of the
	// midst of the ring would change it under those who read it.
	for _, key := range now {
		if !in(next, key) {
			steps = append(steps, c.keyring.RemoveKey(key))
		}
	}
	for _, key := range next {
		steps = append(steps, c.keyring.AddKey(key))
	}
	steps = append(steps, c.keyring.UseKey(next[0]))
	if err := errors.Join(steps...); err != nil {
		return fmt.Errorf("gossip keys: %w", err) // of keys that are not what DecodeGossipKeys returns
	}
	return nil
}
