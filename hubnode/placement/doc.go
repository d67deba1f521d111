// Package placement says where the history of a topic lives: topics are hashed
// onto a fixed number of shards, and a shard's replicas onto nodes.
//
// Nodes are the ordinals of a StatefulSet, 0 to n-1, and not those that happen
// to be up: a node that restarts or flaps moves nothing. Everybody computes the
// same answer from the same three numbers, in every version of the program:
// what a hash says here is where data is stored, so it must never change.
//
// The package decides only; it moves no data and asks nobody.
package placement
