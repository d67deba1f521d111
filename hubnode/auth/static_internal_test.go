package auth

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// Where a name should be there may be a secret, or a hash.
func TestErrorsOfAListRepeatNothingOfIt(t *testing.T) {
	const hash = "$2y$05$sesamesesamesesamesesOJ9Z4b9eYwq6mFqkHdXnXHhJ8c0jQ8yG"
	for list, want := range map[string]string{
		"me:sesame":                           "line 1: the hash is not one of bcrypt",
		"sesame":                              "line 1: want NAME:HASH",
		"open sesame:" + hash:                 "line 1: want NAME:HASH",
		hash + ":me":                          "line 1: the hash is not one of bcrypt",
		"\nsesame:me":                         "line 2: the hash is not one of bcrypt",
		"sesame:" + hash + "\nsesame:" + hash: "line 2: its name is that of a line before",
	} {
		if err := CheckList([]byte(list)); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "sesame") {
			t.Errorf("%q: %v, want one that says %q", list, err, want)
		}
	}
}

// A name that is not on the list costs what one that is costs: else time would tell which are.
func TestAnUnknownNameCostsWhatTheListDoes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	s := newStatic(path)
	for _, list := range []struct {
		costs []int
		want  int
	}{{[]int{5}, 5}, {[]int{4, 6, 5}, 6}, {[]int{4}, 4}, {nil, bcrypt.DefaultCost}} {
		var text strings.Builder
		for i, cost := range list.costs {
			hash, err := bcrypt.GenerateFromPassword([]byte("sesame"), cost)
			if err != nil {
				t.Fatal(err)
			}
			text.WriteString(string(rune('a'+i)) + ":" + string(hash) + "\n")
		}
		if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.reread(); err != nil {
			t.Fatal(err)
		}
		entry, ok := s.entryLocked("nobody") // nobody else has s
		if cost, err := bcrypt.Cost(entry.hash); cost != list.want || err != nil || ok {
			t.Errorf("costs %v: an unknown name is compared at cost %d, %v, and is known: %v; want cost %d", list.costs, cost, err, ok, list.want)
		}
		// It is compared, and not found to be no hash, which takes no time.
		if err := bcrypt.CompareHashAndPassword(entry.hash, []byte("sesame")); !errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
			t.Errorf("costs %v: the comparison says %v", list.costs, err)
		}
		if _, err := s.identify(t.Context(), "10.0.0.9:1", "nobody:sesame"); !errors.Is(err, errWrongToken) {
			t.Errorf("an unknown name is told %v", err)
		}
	}
}
