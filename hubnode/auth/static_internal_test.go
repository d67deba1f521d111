package auth

import (
	"strings"
	"testing"
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
