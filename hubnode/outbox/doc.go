// Package outbox is the bounded queue of frames that wait for one connection,
// and the writer that empties it.
//
// Small frames are copied into the queue's own chunks, so that a slow reader
// pins nothing of the publishers' buffers and a writer sends many frames with
// one system call. Large ones are kept by reference and written from where
// they were read. Who flushes writes, as far as the connection takes it at
// once and it is not much; else the writer is a goroutine, while there is
// something to write: an idle outbox costs its struct.
//
// Pushing only queues. Who pushed calls Flush when it has no more to push, so
// that a burst costs one write; Push tells whether somebody else already will.
package outbox
