// Package disk keeps topic histories on disk, in one pebble database per node.
//
// A [DB] holds the shards of a node, a [Store] one of them. What is kept:
//
//   - a run under its topic and its last sequence, so that one seek finds the
//     run that holds a sequence; with it goes how many bytes of bodies its topic
//     was ever given, so that what lies between two runs is known without
//     reading it;
//   - for each topic its name, once, and its state, with each change: what comes
//     next, what can be read, the limits. Opening reads these and no run.
//
// In memory a topic costs its name and its state, however much it holds.
//
// Large runs lie in files of their own, apart from their keys, and are written once.
//
// There is no write-ahead log: who appends has one, and appends again what a
// crash took. What is there after a crash is what was written up to some
// moment, for all topics of all shards alike; Flush moves that moment to now.
//
// Retention takes runs from disk in steps: an append does it when a topic is
// over a limit by a sixteenth of it (and by as many artifacts as the limit
// allows, up to 16), or when all that it holds is too old; Retain and a change
// of limits do it at once. Until then a topic may hold and show more than
// MaxBytes, and older runs than MaxAge, by that much; MaxArtifacts holds for
// readers at any time.
//
// The package starts no goroutine of its own, pebble does.
package disk
