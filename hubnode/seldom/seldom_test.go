package seldom

import (
	"fmt"
	"testing"
	"time"
)

func TestOneAMinuteOfEachSource(t *testing.T) {
	var l Log
	now := time.Unix(1000, 0)
	expect := func(from string, at time.Duration, want bool, silent int) {
		t.Helper()
		if due, n := l.Due(from, now.Add(at)); due != want || n != silent {
			t.Errorf("%s after %v = %v, %d; want %v, %d", from, at, due, n, want, silent)
		}
	}
	expect("a", 0, true, 0)
	expect("a", 0, false, 0)
	expect("b", time.Second, true, 0)
	expect("a", 59*time.Second, false, 0)
	expect("a", time.Minute, true, 2)
	expect("a", 2*time.Minute, true, 0)
}

func TestSourcesAreBounded(t *testing.T) {
	var l Log
	now := time.Unix(1000, 0)
	logged := 0
	for i := range 10 * sourcesMax {
		if due, _ := l.Due(fmt.Sprint(i), now); due {
			logged++
		}
	}
	if logged != sourcesMax+1 || len(l.sources) > sourcesMax+1 {
		t.Errorf("%d events were logged and %d sources are known, the bound is %d", logged, len(l.sources), sourcesMax)
	}
	if due, _ := l.Due("new", now.Add(2*Every)); !due || len(l.sources) != 1 {
		t.Errorf("a new source is logged: %v; %d sources are known", due, len(l.sources))
	}
}
