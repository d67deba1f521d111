package config_test

import (
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/config"
)

func TestBytes(t *testing.T) {
	for text, want := range map[string]struct {
		n         config.Bytes
		canonical string
	}{
		"0": {0, "0"}, "1": {1, "1"}, "65536": {65536, "64Ki"}, "64Ki": {65536, "64Ki"},
		"1Mi": {1 << 20, "1Mi"}, "1024Ki": {1 << 20, "1Mi"}, "3Gi": {3 << 30, "3Gi"}, "2Ti": {2 << 40, "2Ti"},
		"1k": {1000, "1k"}, "5M": {5e6, "5M"}, "7G": {7e9, "7G"}, "1T": {1e12, "1T"}, "1000k": {1e6, "1M"},
		"1001": {1001, "1001"}, "-1Mi": {-1 << 20, "-1Mi"},
		"9223372036854775807": {1<<63 - 1, "9223372036854775807"},
	} {
		var got config.Bytes
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want.n {
			t.Errorf("%q: got %d, %v, want %d", text, got, err, want.n)
		}
		if got.String() != want.canonical {
			t.Errorf("%q: got %q, want %q", text, got, want.canonical)
		}
	}
	for _, text := range []string{"", "Mi", "1.5Gi", "1e6", "1 Mi", "1mi", "1KB", "0x10", "9223372036854775808", "9007199254740992Ki", "8388608Ti", "ten"} {
		var got config.Bytes
		if err := got.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q: got %d, want an error", text, got)
		}
	}
}

func TestDuration(t *testing.T) {
	for text, canonical := range map[string]string{
		"10s": "10s", "60s": "1m", "90m": "1h30m", "24h": "24h", "0": "0s", "1500ms": "1.5s", "1h0m5s": "1h0m5s", "-10s": "-10s", "10m": "10m", "100h": "100h",
	} {
		var got, again config.Duration
		if err := got.UnmarshalText([]byte(text)); err != nil || got.String() != canonical {
			t.Errorf("%q: got %v, %v, want %s", text, got, err, canonical)
		}
		if want, err := time.ParseDuration(text); err != nil || time.Duration(got) != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
		if err := again.UnmarshalText([]byte(got.String())); err != nil || again != got {
			t.Errorf("%q does not read back: got %v, %v", got, again, err)
		}
	}
	for _, text := range []string{"", "10", "1d", "1w", "ten", "1 s", "9999999h"} {
		var got config.Duration
		if err := got.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}
