package client

import (
	"testing"
	"time"
)

// However long a hub takes to choose a leader, little is added to it, and a hub that has
// none for long is left alone.
func TestWhatIsRefusedIsSentAgainInTime(t *testing.T) {
	for refused, want := range map[time.Duration]time.Duration{
		0:                      againMin,
		20 * time.Millisecond:  againMin,
		400 * time.Millisecond: 100 * time.Millisecond,
		2 * time.Second:        500 * time.Millisecond,
		time.Hour:              againMax,
	} {
		if got := againAfter(refused); got != want {
			t.Errorf("refused for %v: again after %v, want %v", refused, got, want)
		}
	}
}
