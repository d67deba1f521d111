package sim

import (
	"container/heap"
	"time"
)

// clock holds what is going to happen, in the order of virtual time.
type clock struct {
	now    time.Duration
	count  uint64 // orders what happens at one moment
	coming moments
}

type moment struct {
	at    time.Duration
	count uint64
	do    func()
}

func (c *clock) after(d time.Duration, do func()) {
	c.count++
	heap.Push(&c.coming, moment{c.now + d, c.count, do})
}

// run lets everything happen that is due before end.
func (c *clock) run(end time.Duration) {
	for len(c.coming) > 0 && c.coming[0].at <= end {
		m := heap.Pop(&c.coming).(moment)
		c.now = m.at
		m.do()
	}
	c.now = end
}

type moments []moment

func (m *moments) Len() int      { return len(*m) }
func (m *moments) Swap(i, j int) { (*m)[i], (*m)[j] = (*m)[j], (*m)[i] }
func (m *moments) Less(i, j int) bool {
	a, b := &(*m)[i], &(*m)[j]
	if a.at != b.at {
		return a.at < b.at
	}
	return a.count < b.count
}

// Push is heap's.
func (m *moments) Push(x any) { *m = append(*m, x.(moment)) }

// Pop is heap's.
func (m *moments) Pop() any {
	last := (*m)[len(*m)-1]
	(*m)[len(*m)-1] = moment{}
	*m = (*m)[:len(*m)-1]
	return last
}
