package hubnode

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSpreadFillsTheEmptiestFirst(t *testing.T) {
	s := &spread{to: []destination{{"a", 5}, {"b", 1}, {"c", 3}}}
	got := make(map[string]int)
	for range 6 {
		order := s.next()
		if len(order) != 3 {
			t.Fatalf("order %v", order)
		}
		got[order[0]]++
	}
	if diff := cmp.Diff(map[string]int{"b": 4, "c": 2}, got); diff != "" {
		t.Errorf("sent to (-want +got):\n%s", diff)
	}
}

func TestExcessIsWhatIsBeyondAFairShare(t *testing.T) {
	for name, test := range map[string]struct {
		own    int
		others []destination
		want   int
	}{
		"even":                         {10, []destination{{"a", 10}, {"b", 10}}, 0},
		"a new node":                   {30, []destination{{"a", 30}, {"b", 0}}, 10},
		"fewer than a fair":            {1, []destination{{"a", 9}}, 0},
		"rounded in favour of staying": {4, []destination{{"a", 3}, {"b", 3}}, 0},
		"alone":                        {5, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := (&spread{to: test.others}).excess(test.own); got != test.want {
				t.Errorf("excess = %d, want %d", got, test.want)
			}
		})
	}
}
