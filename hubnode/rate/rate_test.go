package rate_test

import (
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/rate"
)

func TestMeter(t *testing.T) {
	type use struct {
		at, cost time.Duration
		wait     time.Duration // with Take; TryTake refuses when it is positive
	}
	for name, uses := range map[string][]use{
		"a second's worth at once":             {{0, time.Second, 0}, {0, time.Millisecond, time.Millisecond}},
		"in small pieces":                      {{0, time.Second / 2, -time.Second / 2}, {0, time.Second / 2, 0}, {0, 1, 1}},
		"what was earned since":                {{0, time.Second, 0}, {300 * time.Millisecond, 300 * time.Millisecond, 0}, {300 * time.Millisecond, 1, 1}},
		"no more than a burst is saved up":     {{0, 0, -time.Second}, {time.Hour, time.Second, 0}, {time.Hour, 1, 1}},
		"more at once than a burst":            {{0, 3 * time.Second, 2 * time.Second}},
		"what costs nothing":                   {{0, 0, -time.Second}, {0, 0, -time.Second}},
		"a clock that is put back earns none":  {{time.Minute, time.Second, 0}, {time.Minute - time.Second, 1, time.Second + 1}},
		"a clock that is put on earns a burst": {{0, time.Second, 0}, {24 * time.Hour, time.Second, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			var takes, tries rate.Meter
			start := time.Unix(1_000_000, 0)
			for i, u := range uses {
				now := start.Add(u.at)
				if got := takes.Take(u.cost, now); got != u.wait {
					t.Errorf("Take %d = %v, want %v", i, got, u.wait)
				}
				if got, want := tries.TryTake(u.cost, now), u.wait <= 0; got != want {
					t.Errorf("TryTake %d = %v, want %v", i, got, want)
				}
			}
		})
	}
}

// Who was refused has used nothing up, who was let wait has.
func TestRefusedCostsNothing(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	var m rate.Meter
	m.Take(rate.Burst, now)
	for range 10 {
		if m.TryTake(time.Second, now) {
			t.Fatal("it may go on though it has used all up")
		}
	}
	if got := m.Ahead(now.Add(rate.Burst - 1)); got != 1 {
		t.Errorf("ahead by %v just before all is earned, want 1ns", got)
	}
	if got := m.Ahead(now.Add(rate.Burst + 1)); got != 0 || !m.TryTake(time.Second, now.Add(rate.Burst)) {
		t.Errorf("what was refused was taken into account: ahead by %v", got)
	}
}

func TestCost(t *testing.T) {
	for _, tt := range []struct {
		amount, perSecond int
		want              time.Duration
	}{
		{1, 0, 0},
		{0, 10, 0},
		{1, 10, 100 * time.Millisecond},
		{1, 3, 333_333_333},
		{20, 10, 2 * time.Second},
		{1 << 30, 1 << 20, 1024 * time.Second},
		{1, 1_000_000_000, 1},
	} {
		if got := rate.Cost(tt.amount, tt.perSecond); got != tt.want {
			t.Errorf("Cost(%d, %d) = %v, want %v", tt.amount, tt.perSecond, got, tt.want)
		}
	}
}
