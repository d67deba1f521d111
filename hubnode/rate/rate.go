// Package rate tells who uses more of something in a second than they may, by the generic
// cell rate algorithm in its form as virtual scheduling (ITU-T I.371, annex A): it knows of
// each only until when what was used so far would take, at the rate. It reads no clock and
// holds no lock.
package rate

import "time"

// Burst is how much of its rate somebody may use at once, where nothing else is said.
const Burst = time.Second

// Cost is how long it takes at a rate to earn an amount; nothing at a rate of 0, which is
// none.
func Cost(amount, perSecond int) time.Duration {
	if perSecond == 0 {
		return 0
	}
	return time.Duration(float64(amount) / float64(perSecond) * float64(time.Second))
}

// Meter is how far somebody has used up a rate. The zero value has not.
type Meter struct {
	paid time.Time // until when what was used uses it up
}

// Take uses something up, and returns how long to wait before going on: not at all
// unless it is positive.
func (m *Meter) Take(cost time.Duration, now time.Time) (wait time.Duration) {
	if m.paid.Before(now) {
		m.paid = now
	}
	m.paid = m.paid.Add(cost)
	return m.paid.Sub(now) - Burst
}

// TryTake uses something up if nobody would have to wait for it, and reports whether it
// has.
func (m *Meter) TryTake(cost time.Duration, now time.Time) bool {
	next := *m
	if next.Take(cost, now) > 0 {
		return false
	}
	*m = next
	return true
}

// Ahead returns how long it is until what was used is earned; 0: there is nothing to
// remember any more.
func (m *Meter) Ahead(now time.Time) time.Duration { return max(0, m.paid.Sub(now)) }
