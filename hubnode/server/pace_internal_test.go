package server

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	for name, test := range map[string]struct {
		perSecond int
		at        []time.Duration // when connections come
		wait      []time.Duration
	}{
		"no limit":              {0, []time.Duration{0, 0, 0}, []time.Duration{0, 0, 0}},
		"the first never waits": {1, []time.Duration{0, 0}, []time.Duration{0, 900 * time.Millisecond}},
		"a tenth at once": {
			30, []time.Duration{0, 0, 0, 0, 0, 0}, []time.Duration{0, 0, 0, 0, time.Second / 30, 2 * time.Second / 30},
		},
		"at the rate nobody waits": {
			2, []time.Duration{0, time.Second / 2, time.Second, 3 * time.Second / 2}, []time.Duration{0, 0, 0, 0},
		},
		"what was not used is gone": {
			10, []time.Duration{time.Hour, time.Hour, time.Hour}, []time.Duration{0, 0, 100 * time.Millisecond},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var p pace
			late := uint64(0)
			for i, at := range test.at {
				wait := p.take(test.perSecond, start.Add(at))
				if diff := wait - test.wait[i]; diff < -time.Microsecond || diff > time.Microsecond {
					t.Errorf("number %d waits %v, want %v", i+1, wait, test.wait[i])
				}
				if wait > 0 {
					late++
				}
			}
			if n := p.delayed.Load(); n != late {
				t.Errorf("%d are counted, want %d", n, late)
			}
		})
	}
}
