// Package durable keeps what is known of a durable subscription: where it is in its
// topic, which artifacts are with which member and until when, and how often each
// was given out. It knows no clock and nothing of replication: the same requests
// at the same times lead to the same state, in every replica of a shard.
package durable
