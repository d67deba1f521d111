package outbox

import "net"

// keepMax is how many segments' records an idle outbox keeps room for.
const keepMax = 16

// writeAll is the writer: it empties the queue and ends.
func (o *Outbox) writeAll() {
	var (
		wrote int
		err   error
	)
	for {
		batch := o.next(wrote, err)
		if batch == nil {
			return
		}
		wrote, err = o.writeBatch(batch)
		recycle(batch)
	}
}

func (o *Outbox) writeBatch(batch []segment) (size int, err error) {
	if len(batch) == 1 {
		_, err = o.w.Write(batch[0].b)
		return len(batch[0].b), err
	}
	all := o.buffers[:0]
	for _, s := range batch {
		all = append(all, s.b)
		size += len(s.b)
	}
	o.buffers = all // WriteTo consumes its receiver
	_, err = o.buffers.WriteTo(o.w)
	clear(all)
	o.buffers = all[:0]
	return size, err
}

// next accounts for the write before and takes all that waits; nil ends the
// writer.
func (o *Outbox) next(wrote int, err error) []segment {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pending -= wrote
	if err != nil {
		o.failLocked(err)
	}
	if len(o.queue) == 0 {
		o.writing = false
		o.trimLocked()
		o.wakeLocked()
		return nil
	}
	o.wakeLocked()
	batch := o.queue
	o.queue, o.spare = o.spare[:0], batch
	return batch
}

// failLocked closes the outbox after a write error and says so, unless it was
// closed before: then the error is only the connection's end. o.mu is held
// but for the call.
func (o *Outbox) failLocked(err error) {
	o.lost = true
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
