package shard

import "testing"

func TestReignsTellWhatWasApplied(t *testing.T) {
	var all reigns
	for i, term := range []uint64{1, 1, 1, 0, 3, 3, 0, 4} { // 0: an entry that is no record
		if term > 0 {
			all = all.with(uint64(10+i), term)
		}
	}
	for what, test := range map[string]struct {
		index, term uint64
		is, sure    bool
	}{
		"the first":                    {10, 1, true, true},
		"the last of a term":           {12, 1, true, true},
		"the last":                     {17, 4, true, true},
		"of a later term":              {12, 3, false, true},
		"of a term that got no record": {13, 2, false, true},
		"beyond what its leader wrote": {14, 1, false, true},
		"beyond the last":              {18, 4, false, true},
		"from before what is known":    {9, 1, false, false},
	} {
		if is, sure := all.tell(test.index, test.term); is != test.is || sure != test.sure {
			t.Errorf("%s: %t and sure %t, want %t and %t", what, is, sure, test.is, test.sure)
		}
	}
	if index, term := all.end(); index != 17 || term != 4 {
		t.Errorf("it ends with %d of term %d", index, term)
	}
	for i := range uint64(3 * reignsMost) {
		all = all.with(100+i, 100+i)
	}
	if len(all) != reignsMost {
		t.Errorf("%d are remembered, want %d", len(all), reignsMost)
	}
	if is, sure := all.tell(10, 1); is || sure {
		t.Error("what is forgotten is told of")
	}
}
