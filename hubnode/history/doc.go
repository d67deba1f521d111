// Package history keeps bounded topic histories.
//
// A [Store] holds those of many topics; [Memory] is one, package disk has the
// other. A [Log] is the history of one topic in memory. The invariants:
//
//   - a new topic's first artifact has sequence 1; sequences rise by 1 for each
//     artifact appended and are never reused, whatever retention takes;
//   - what is stored is a [Run], the artifacts of one frame: it goes in whole
//     and comes out whole, and its bytes never change;
//   - what can be read has no holes: it reaches from Bounds().First to the
//     newest artifact.
//
// The package starts no goroutine and reads no clock: the caller passes the time
// in, and calls [Log.Expire] now and then for topics where nothing is appended.
// It does not know what is in an artifact.
package history
