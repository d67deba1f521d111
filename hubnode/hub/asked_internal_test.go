package hub

import "testing"

func TestTheOldestQuestionsAreForgotten(t *testing.T) {
	var a asked
	const more = 3 * askedMax
	for i := range uint32(more) {
		a.add(request{"from", i})
		a.add(request{"from", i}) // it may be sent twice
		if i%2 == 1 && !a.answered([]byte("from"), i) {
			t.Fatalf("question %d is forgotten at once", i)
		}
	}
	if n := len(a.list()); n != askedMax-1 { // the last one was answered, and took the place of another
		t.Errorf("%d are open, want %d", n, askedMax-1)
	}
	if n := len(a.order); n > 2*askedMax {
		t.Errorf("the order of %d is kept, of which %d are open", n, askedMax)
	}
	for _, i := range []uint32{0, more - 2*askedMax, more - 1} {
		if a.answered([]byte("from"), i) {
			t.Errorf("question %d may be answered", i)
		}
	}
	for _, i := range []uint32{more - 2*askedMax + 2, more - 2} {
		if !a.answered([]byte("from"), i) {
			t.Errorf("question %d may not be answered", i)
		}
	}
}
