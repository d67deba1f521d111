package durable

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/switchboardhub/switchboard/wire"
)

// firstWord says that a topic is of whom its name begins with.
func firstWord(topic string) string {
	owner, _, ok := strings.Cut(topic, ".")
	if !ok {
		return ""
	}
	return owner
}

// begin begins n subscriptions of a topic, as what was proposed does.
func begin(t *testing.T, s *Set, topic string, n int) {
	t.Helper()
	for i := range n {
		if _, err := s.Do(Key{topic, fmt.Sprint(i)}, start, 1, Request{Member: "a", Policy: shared, Start: 1}); err != nil {
			t.Fatal(err)
		}
	}
}

// A claim is for what one owner may have of a set: what is there and what is on its way to be.
func TestAnOwnerHasItsShareOfASet(t *testing.T) {
	next := Key{"shop.orders", "next"}
	claim := func(t *testing.T, s *Set, key Key) func() {
		t.Helper()
		release, err := s.Claim(key, firstWord)
		if err != nil {
			t.Fatal(err)
		}
		return release
	}
	for name, test := range map[string]struct {
		before  func(t *testing.T, s *Set)
		key     Key
		refused bool
	}{
		"the last one": {func(t *testing.T, s *Set) {
			t.Helper()
			begin(t, s, "shop.jobs", ownerMax-1)
		}, next, false},
		"one more": {func(t *testing.T, s *Set) {
			t.Helper()
			begin(t, s, "shop.jobs", ownerMax)
		}, next, true},
		"one more of several topics": {func(t *testing.T, s *Set) {
			t.Helper()
			begin(t, s, "shop.jobs", ownerMax/2)
			begin(t, s, "shop.orders", ownerMax/2)
		}, next, true},
		"one more than what an older leader let in": {func(t *testing.T, s *Set) {
			t.Helper()
			begin(t, s, "shop.jobs", ownerMax+100)
		}, next, true},
		"one that is there": {func(t *testing.T, s *Set) {
			t.Helper()
			begin(t, s, "shop.jobs", ownerMax)
		}, Key{"shop.jobs", "7"}, false},
		"another owner's": {func(t *testing.T, s *Set) {
			t.Helper()
			begin(t, s, "shop.jobs", ownerMax)
		}, Key{"bank.jobs", "0"}, false},
		"a namesake's": {func(t *testing.T, s *Set) {
			t.Helper()
			begin(t, s, "shop.jobs", ownerMax)
		}, Key{"shopping.jobs", "0"}, false},
		"nobody's": {func(t *testing.T, s *Set) {
			t.Helper()
			begin(t, s, "jobs", ownerMax)
		}, Key{"jobs", "next"}, false},
		"what is on its way": {func(t *testing.T, s *Set) {
			t.Helper()
			begin(t, s, "shop.jobs", ownerMax-1)
			claim(t, s, Key{"shop.jobs", "x"})
		}, next, true},
		"the same, twice": {func(t *testing.T, s *Set) {
			t.Helper()
			begin(t, s, "shop.jobs", ownerMax-1)
			claim(t, s, next)
		}, next, false},
		"what has come to none": {func(t *testing.T, s *Set) {
			t.Helper()
			begin(t, s, "shop.jobs", ownerMax-1)
			claim(t, s, Key{"shop.jobs", "x"})()
		}, next, false},
		"the same, once done": {func(t *testing.T, s *Set) {
			t.Helper()
			begin(t, s, "shop.jobs", ownerMax-2)
			release := claim(t, s, Key{"shop.jobs", "x"})
			claim(t, s, Key{"shop.jobs", "x"})
			release()
			claim(t, s, Key{"shop.jobs", "y"})
		}, next, true},
		"what has arrived counts once": {func(t *testing.T, s *Set) {
			t.Helper()
			begin(t, s, "shop.jobs", ownerMax-2)
			claim(t, s, Key{"shop.more", "0"})
			begin(t, s, "shop.more", 1)
		}, next, false},
		"in place of a deleted one": {func(t *testing.T, s *Set) {
			t.Helper()
			begin(t, s, "shop.jobs", ownerMax)
			if _, err := s.Do(Key{"shop.jobs", "3"}, start, 1, Request{Drop: true}); err != nil {
				t.Fatal(err)
			}
		}, next, false},
		"what came since it was counted": {func(t *testing.T, s *Set) {
			t.Helper()
			begin(t, s, "shop.jobs", 3)
			claim(t, s, next)()
			begin(t, s, "shop.jobs", ownerMax) // three are there
		}, next, true},
		"what went since it was counted": {func(t *testing.T, s *Set) {
			t.Helper()
			begin(t, s, "shop.jobs", ownerMax-1)
			claim(t, s, next)()
			begin(t, s, "shop.jobs", ownerMax)
			for range 2 { // the second time there is none
				_, _ = s.Do(Key{"shop.jobs", "3"}, start, 1, Request{Drop: true})
			}
		}, next, false},
		"what a snapshot has": {func(t *testing.T, s *Set) {
			t.Helper()
			claim(t, s, next)()
			other := NewSet()
			begin(t, other, "shop.jobs", ownerMax)
			s.Restore(other.List())
		}, next, true},
		"what a snapshot has not": {func(t *testing.T, s *Set) {
			t.Helper()
			begin(t, s, "shop.jobs", ownerMax-1)
			claim(t, s, next)()
			begin(t, s, "shop.jobs", ownerMax)
			s.Restore(nil)
		}, next, false},
		"in place of one that is begun again as it is deleted": {func(t *testing.T, s *Set) {
			t.Helper()
			begin(t, s, "shop.jobs", ownerMax)
			claim(t, s, Key{"shop.jobs", "3"})
			if _, err := s.Do(Key{"shop.jobs", "3"}, start, 1, Request{Drop: true}); err != nil {
				t.Fatal(err)
			}
		}, next, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewSet()
			test.before(t, s)
			release, err := s.Claim(test.key, firstWord)
			if !test.refused {
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
				release()
				return
			}
			coded, ok := errors.AsType[*wire.Error](err)
			if !ok || coded.Code != wire.CodeInvalidRequest {
				t.Fatalf("Claim = %v, want it refused", err)
			}
			for _, part := range []string{"namespace shop", "1024", "hubctl durables delete TOPIC NAME"} {
				if !strings.Contains(coded.Detail, part) {
					t.Errorf("%q does not say %q", coded.Detail, part)
				}
			}
		})
	}
}

// What a leader of a version without shares has let in, every replica does: they have to agree.
func TestASetDoesWhatIsBeyondAShare(t *testing.T) {
	s := NewSet()
	begin(t, s, "shop.jobs", setMax)
	_, err := s.Do(Key{"bank.jobs", "0"}, start, 1, Request{Member: "a", Policy: shared, Start: 1})
	if !errors.Is(err, errManyDurables) || len(s.List()) != setMax {
		t.Errorf("got %v, and %d subscriptions", err, len(s.List()))
	}
}

func BenchmarkClaim(b *testing.B) {
	s := NewSet()
	for i := range setMax {
		key := Key{fmt.Sprintf("team-%d.jobs", i%8), fmt.Sprint(i)}
		if _, err := s.Do(key, start, 1, Request{Member: "a", Policy: shared, Start: 1}); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		release, err := s.Claim(Key{"team-1.jobs", "next"}, firstWord)
		if err != nil {
			b.Fatal(err)
		}
		release()
	}
}
