package client

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// People give the token where its file's name is meant.
func TestATokenInThePlaceOfItsFileIsNotRepeated(t *testing.T) {
	for name, token := range map[string]string{
		"a web token":      "eyJhbGciOiJub25lIn0.eyJzdWIiOiJzZXNhbWUifQ.c2VzYW1l",
		"a long web token": "eyJhbGciOiJub25lIn0." + strings.Repeat("eyJzdWIiOiJzZXNhbWUifQ", 100) + ".c2VzYW1l",
		"a static token":   "alice:eyJzdWIiOiJzZXNhbWUifQ",
	} {
		o := &options{tokenFile: token}
		if _, err := o.readToken(); err == nil || strings.Contains(err.Error(), "eyJ") || !strings.Contains(err.Error(), "WithToken takes one") {
			t.Errorf("%s: %v", name, err)
		}
	}
	missing := filepath.Join(t.TempDir(), "a:b")
	o := &options{tokenFile: missing}
	if _, err := o.readToken(); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), missing) {
		t.Errorf("a file that is not there: %v", err)
	}
}
