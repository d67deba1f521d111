package config_test

import (
	"bytes"
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"github.com/switchboardhub/switchboard/hubnode/config"
)

func TestDecodeGossipKeys(t *testing.T) {
	a, b, c := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 16), bytes.Repeat([]byte{3}, 24)
	text := func(key []byte) string { return base64.StdEncoding.EncodeToString(key) }
	for name, tt := range map[string]struct {
		text string
		keys [][]byte
		want string // of the error
	}{
		"one":                         {text(a), [][]byte{a}, ""},
		"one with a line end":         {text(a) + "\n", [][]byte{a}, ""},
		"two, the first is used":      {text(b) + "\n" + text(a), [][]byte{b, a}, ""},
		"white space and empty lines": {"\n  " + text(c) + "\r\n\n\t" + text(a) + " \n\n", [][]byte{c, a}, ""},
		"nothing":                     {"", nil, "has 0 bytes"},
		"nothing but lines":           {"\n\n", nil, "has 0 bytes"},
		"three":                       {text(a) + "\n" + text(b) + "\n" + text(c), nil, "there are 3 gossip keys"},
		"one twice":                   {text(a) + "\n" + text(a), nil, "there twice"},
		"a short one":                 {text(a) + "\n" + text(a[:31]), nil, "has 31 bytes"},
		"no base64":                   {text(a) + "\nopen sesame", nil, "not base64"},
		"two on one line":             {text(a) + text(b), nil, "not base64"},
	} {
		t.Run(name, func(t *testing.T) {
			keys, err := config.DecodeGossipKeys([]byte(tt.text))
			if !slices.EqualFunc(keys, tt.keys, bytes.Equal) {
				t.Errorf("keys %x, want %x", keys, tt.keys)
			}
			switch {
			case (err == nil) != (tt.want == ""), err != nil && !strings.Contains(err.Error(), tt.want):
				t.Errorf("error %v, want %q", err, tt.want)
			case err != nil && (strings.Contains(err.Error(), text(a)) || strings.Contains(err.Error(), "sesame")):
				t.Errorf("error %v gives the text away", err)
			}
			if err != nil {
				return
			}
			if again, err := config.DecodeGossipKeys(config.EncodeGossipKeys(keys)); err != nil || !slices.EqualFunc(again, keys, bytes.Equal) {
				t.Errorf("written and read again: %x, %v", again, err)
			}
		})
	}
	if got := string(config.EncodeGossipKeys([][]byte{a})); got != text(a) {
		t.Errorf("a file of one key is %q, nodes of before read %q", got, text(a))
	}
}

func TestGossipKeyFingerprint(t *testing.T) {
	a, b := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	mark := config.GossipKeyFingerprint(a)
	if mark != config.GossipKeyFingerprint(a) || mark == config.GossipKeyFingerprint(b) || len(mark) != 12 {
		t.Errorf("fingerprints %s and %s", mark, config.GossipKeyFingerprint(b))
	}
}
