// Package shard replicates histories: it is the only importer of raft.
//
// A hub's topics are dealt out to a fixed number of shards. Each is a Raft group
// whose state machine is a history.Store. [Shards] runs the replicas of one
// node, says who leads each shard, and keeps the groups' members where placement
// wants them.
//
// What is proposed is a record: the artifacts of one frame, or a change of what
// is kept. Records that wait together share one log entry. The state machine
// gives sequences, drops what a publisher sent twice, and appends; the leader
// then hands what it stored to the hub for delivery, in the log's order.
//
// A replica is a member under an id of its own, made when its state was: a node
// that lost its memory or its disk comes back under a new id and is added anew,
// never as its old self with an empty log.
package shard
