package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Duration is a time.Duration written as "10s" or "1h30m".
type Duration time.Duration

// String writes the shortest form that reads back as the same duration.
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText returns what String does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what time.ParseDuration does.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%.40q is not a duration such as 500ms, 10s or 1h30m", text)
	}
	*d = Duration(v)
	return nil
}

// Bytes is a size, written as a whole number with an optional suffix as in
// Kubernetes: k, M, G, T for powers of 1000 and Ki, Mi, Gi, Ti for those of
// 1024.
type Bytes int64

var suffixes = []struct {
	text string
	unit int64
}{
	{"Ti", 1 << 40},
	{"Gi", 1 << 30},
	{"Mi", 1 << 20},
	{"Ki", 1 << 10},
	{"T", 1e12},
	{"G", 1e9},
	{"M", 1e6},
	{"k", 1e3},
}

// String writes the shortest form that reads back as the same size.
func (b Bytes) String() string {
	shortest := strconv.FormatInt(int64(b), 10)
	for _, s := range suffixes {
		if int64(b)%s.unit != 0 {
			continue
		}
		if text := strconv.FormatInt(int64(b)/s.unit, 10) + s.text; len(text) < len(shortest) {
			shortest = text
		}
	}
	return shortest
}

// MarshalText returns what String does.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// MarshalYAML writes plain numbers without quotes.
func (b Bytes) MarshalYAML() (any, error) {
	return &yaml.Node{Kind: yaml.ScalarNode, Value: b.String()}, nil
}

// UnmarshalText reads what String writes, and any other whole number with a
// suffix whose product an int64 can hold.
func (b *Bytes) UnmarshalText(text []byte) error {
	number, unit := string(text), int64(1)
	for _, s := range suffixes {
		if rest, ok := strings.CutSuffix(number, s.text); ok {
			number, unit = rest, s.unit
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n*unit/unit != n {
		return fmt.Errorf("%.40q is not a size such as 65536, 64Ki or 1Gi", text)
	}
	*b = Bytes(n * unit)
	return nil
}
