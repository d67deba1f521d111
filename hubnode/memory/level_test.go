package memory

import (
	"fmt"
	"math"
	"testing"
)

func TestLevels(t *testing.T) {
	const limit = 1000
	for name, test := range map[string]struct {
		now  Level
		used int64
		want Level
	}{
		"little":                          {Ample, 100, Ample},
		"just below the mark":             {Ample, 849, Ample},
		"at the mark":                     {Ample, 850, Tight},
		"all at once":                     {Ample, 950, Critical},
		"more than there is":              {Ample, 2000, Critical},
		"tight, and falls a little":       {Tight, 800, Tight},
		"tight, and falls":                {Tight, 799, Ample},
		"tight, and rises a little":       {Tight, 949, Tight},
		"tight, and rises":                {Tight, 950, Critical},
		"critical, and falls a little":    {Critical, 900, Critical},
		"critical, and falls":             {Critical, 899, Tight},
		"critical, and falls by a lot":    {Critical, 820, Tight},
		"critical, and falls to nothing":  {Critical, 0, Ample},
		"negative, as no measure will be": {Critical, -1, Ample},
	} {
		if got := test.now.next(test.used, limit); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
	for _, now := range []Level{Ample, Tight, Critical} {
		if got := now.next(math.MaxInt64, 0); got != Ample {
			t.Errorf("%v without a limit: %v, want ample", now, got)
		}
	}
}

// Whoever lets go of as much as is asked for leaves the level.
func TestExcessEndsCritical(t *testing.T) {
	for _, limit := range []int64{100, 32 << 20, 1<<40 + 99} {
		for percent := int64(90); percent < 200; percent++ {
			used := limit / 100 * percent
			if now := Critical.next(used, limit); now != Critical {
				t.Fatalf("%d of %d is %v", used, limit, now)
			}
			if now := Critical.next(used-excess(used, limit, criticalTo), limit); now != Tight {
				t.Errorf("%d of %d less %d is %v, want tight", used, limit, excess(used, limit, criticalTo), now)
			}
		}
	}
}

func TestLevelsHaveNames(t *testing.T) {
	if got := fmt.Sprint(Ample, Tight, Critical); got != "ample tight critical" {
		t.Errorf("got %q", got)
	}
}
