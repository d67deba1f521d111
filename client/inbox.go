package client

import "sync"

// inbox is a bounded queue with a goroutine that handles one item after
// another and lives only while there are some.
type inbox[T any] struct {
	limit  int // of the sizes' sum; a single item always fits an empty inbox
	handle func(T)
	spawn  func(func()) // starts the goroutine; who calls offer keeps the owner alive
	eased  func(lost int)

	mu      sync.Mutex // guards the fields below
	items   []entry[T]
	size    int
	running bool
	closed  bool
	room    chan struct{} // closed once there is room; nil while nobody waits
	awaited bool          // eased is to be called
	lost    int           // what eased is to be told
	idle    chan struct{} // closed once nothing is left; nil while nobody waits
}

type entry[T any] struct {
	item T
	size int
}

// offer queues an item. When there is no room it returns a channel that is
// closed once it is worth trying again. A closed inbox swallows the item.
func (q *inbox[T]) offer(item T, size int) (full <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.putLocked(item, size, q.limit) {
		return nil
	}
	if q.room == nil {
		q.room = make(chan struct{})
	}
	return q.room
}

// press queues an item beyond the limit, when no more than most is there then, and
// reports whether it did.
func (q *inbox[T]) press(item T, size, most int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.putLocked(item, size, most)
}

func (q *inbox[T]) putLocked(item T, size, most int) bool {
	switch {
	case q.closed:
		return true
	case q.size > 0 && q.size+size > most:
		return false
	}
	q.items = append(q.items, entry[T]{item, size})
	q.size += size
	if !q.running {
		q.running = true
		q.spawn(q.run)
	}
	return true
}

// over reports whether more is there than the limit.
func (q *inbox[T]) over() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.size > q.limit
}

// whenEased sees to it that eased is called once half of the inbox is free, at once if
// it is, with how many artifacts found no room until then: these and those before.
func (q *inbox[T]) whenEased(lost int) {
	q.mu.Lock()
	q.awaited, q.lost = true, q.lost+lost
	call, lost := q.easedLocked()
	q.mu.Unlock()
	if call {
		q.eased(lost)
	}
}

// easedLocked reports whether eased is to be called now, and with what.
func (q *inbox[T]) easedLocked() (call bool, lost int) {
	if !q.awaited || q.closed || q.size > q.limit/2 {
		return false, 0
	}
	lost = q.lost
	q.awaited, q.lost = false, 0
	return true, lost
}

// close drops what waits; an item that is being handled is not waited for.
func (q *inbox[T]) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.items, q.size = nil, 0
	q.freeLocked()
}

// rest waits until everything is handled or stop is closed.
func (q *inbox[T]) rest(stop <-chan struct{}) {
	q.mu.Lock()
	if !q.running {
		q.mu.Unlock()
		return
	}
	if q.idle == nil {
		q.idle = make(chan struct{})
	}
	idle := q.idle
	q.mu.Unlock()
	select {
	case <-idle:
	case <-stop:
	}
}

func (q *inbox[T]) run() {
	var batch []entry[T]
	for {
		q.mu.Lock()
		if len(q.items) == 0 {
			q.running = false
			q.items = nil // an idle inbox holds no memory
			if q.idle != nil {
				close(q.idle)
				q.idle = nil
			}
			q.mu.Unlock()
			return
		}
		batch, q.items = q.items, batch[:0]
		q.mu.Unlock()
		for i := range batch {
			if !q.handleOne(&batch[i]) {
				break
			}
		}
		clear(batch)
	}
}

// handleOne handles an item and gives its room back; it reports false when the
// inbox was closed in between.
func (q *inbox[T]) handleOne(e *entry[T]) bool {
	q.handle(e.item)
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return false
	}
	q.size -= e.size
	if q.size <= q.limit/2 {
		q.freeLocked()
	}
	call, lost := q.easedLocked()
	q.mu.Unlock()
	if call {
		q.eased(lost)
	}
	return true
}

func (q *inbox[T]) freeLocked() {
	if q.room != nil {
		close(q.room)
		q.room = nil
	}
}
