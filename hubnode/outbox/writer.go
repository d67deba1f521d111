package outbox

import "net"

const (
	// keepMax is how many segments' records an idle outbox keeps room for.
	keepMax = 16
	// stepBytes is about what one write takes at most: after it the bytes no
	// longer count as waiting, and who waits for that sees progress.
	stepBytes = 256 << 10
	// inPassing is how many bytes are written by whoever flushes. Starting a
	// goroutine costs as much as writing little, and of more it would find
	// nothing in its processor's cache.
	inPassing = 256 << 10
)

// tryWriter is a connection that can be written without waiting: TryWrite takes
// as much of the buffers as there is room for at once. What it leaves is written
// next.
type tryWriter interface {
	TryWrite(all [][]byte) (int, error)
}

// allWriter is a connection that makes more of several buffers than one after the
// other, and is no net.Conn of package net.
type allWriter interface {
	WriteAll(all [][]byte) (int, error)
}

// writeInPassing tries to write a batch and returns what it leaves to the
// writer, which then has to run. An error is for the writer to find again.
func (o *Outbox) writeInPassing(batch []segment) (rest []segment) {
	all := o.gather(batch)
	n, _ := o.try.TryWrite(all)
	clear(all)
	wrote := n
	for len(batch) > 0 && n >= len(batch[0].b) {
		n -= len(batch[0].b)
		o.recycle(batch[:1])
		batch = batch[1:]
	}
	if len(batch) == 0 {
		return o.next(wrote, nil)
	}
	batch[0].b = batch[0].b[n:]
	o.written(wrote)
	return batch
}

// writeAll is the writer: it writes a batch that was taken before, if any,
// empties the queue and ends.
func (o *Outbox) writeAll(batch []segment) {
	var (
		wrote int
		err   error
	)
	for {
		if len(batch) == 0 {
			if batch = o.next(wrote, err); batch == nil {
				return
			}
		}
		for wrote, err = 0, nil; len(batch) > 0; {
			n, size := step(batch)
			if err == nil {
				o.written(wrote)
				wrote, err = 0, o.writeStep(batch[:n])
			}
			o.recycle(batch[:n])
			batch = batch[n:]
			wrote += size
		}
	}
}

// step returns how many of the segments are written at once, and their bytes.
func step(batch []segment) (n, size int) {
	for n < len(batch) && size < stepBytes {
		size += len(batch[n].b)
		n++
	}
	return n, size
}

// written accounts for bytes that have been written.
func (o *Outbox) written(n int) {
	if n == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pending -= n
	o.wakeLocked()
}

func (o *Outbox) writeStep(segments []segment) error {
	if len(segments) == 1 {
		_, err := o.w.Write(segments[0].b)
		return err
	}
	all := o.gather(segments)
	var err error
	if o.all != nil {
		_, err = o.all.WriteAll(all)
	} else {
		_, err = o.buffers.WriteTo(o.w) // which consumes its receiver
	}
	clear(all)
	o.buffers = all[:0]
	return err
}

// gather returns the segments' bytes in o.buffers.
func (o *Outbox) gather(segments []segment) net.Buffers {
	o.buffers = o.buffers[:0]
	for _, s := range segments {
		o.buffers = append(o.buffers, s.b)
	}
	return o.buffers
}

// next accounts for the write before and takes all that waits; nil ends the
// writer.
func (o *Outbox) next(wrote int, err error) []segment {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pending -= wrote
	if err != nil {
		o.lost += wrote // from the write that failed on
		o.failLocked(err)
	}
	if o.emptyLocked() {
		o.writing = false
		o.trimLocked()
		o.wakeLocked()
		return nil
	}
	o.wakeLocked()
	return o.takeLocked()
}

// takeLocked takes what is written next: all that waits, unless there are
// artifacts in it that newer ones may replace.
func (o *Outbox) takeLocked() []segment {
	if len(o.queue) == 0 && o.sorted != nil {
		n := stepBytes
		if o.sorted.bytes <= 2*stepBytes { // the reader keeps up again
			n = o.sorted.bytes
		}
		o.unsortLocked(n)
	}
	if o.conflates {
		return o.nextStepLocked()
	}
	batch := o.queue
	o.queue, o.spare = o.spare[:0], batch
	return batch
}

// failLocked closes the outbox after a write error and says so, unless it was
// closed before: then the error is only the connection's end. o.mu is held
// but for the call.
func (o *Outbox) failLocked(err error) {
	if o.closed {
		return
	}
	o.closeLocked()
	if o.cfg.Failed != nil {
		o.mu.Unlock()
		o.cfg.Failed(err)
		o.mu.Lock()
	}
}

// trimLocked gives back what a burst left behind.
func (o *Outbox) trimLocked() {
	if cap(o.queue) > keepMax {
		o.queue = nil
	}
	if cap(o.spare) > keepMax {
		o.spare = nil
	}
	if cap(o.buffers) > keepMax {
		o.buffers = net.Buffers(nil)
	}
}
