// Package directory holds every node's view of which client, and which topic
// interest, is on which node.
//
// Each node is the only writer of its own part, a [Log]: an ordered log of
// changes under a version that rises by 1 with each change. The others keep
// copies of it in a [Table]. A part travels as announcements: a range of
// changes, or a snapshot of the whole part. The invariants:
//
//   - a change has one version for ever within an incarnation of its owner, so
//     that applying an announcement twice, or two that overlap, changes nothing;
//   - a table holds, of each owner, exactly what the owner's log held at the
//     version that [Table.Version] returns: never a later change without an
//     earlier one;
//   - a higher incarnation replaces all that a lower one said; the part of a
//     node that left goes as a whole, and nothing is kept of it.
//
// The package decides and does nothing else: it starts no goroutine, reads no
// clock and sends nothing. Batching, repair and membership are its caller's.
// In particular the caller hands a table only what members of the cluster
// announce about themselves: a straggler of a node that was dropped would
// otherwise bring its part back.
package directory
