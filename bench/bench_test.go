package main

import (
	"encoding/json"
	"io"
	"strings"
	"testing"
)

// TestEveryScenarioWorksForEverySystem runs all with few messages. It looks at
// what arrived, never at how fast.
func TestEveryScenarioWorksForEverySystem(t *testing.T) {
	var out strings.Builder
	if err := command(t.Context(), []string{"-quick", "-o", "json"}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	var rows []row
	if err := json.Unmarshal([]byte(out.String()), &rows); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, r := range rows {
		seen[r.Scenario] = true
		if len(r.Wrong) > 0 {
			t.Errorf("%s: %v", r.Scenario, r.Wrong)
		}
		if len(r.Medians) != 2 {
			t.Errorf("%s, %s: measured for %v, want switchboard and nats", r.Scenario, r.Metric, r.Medians)
		}
	}
	if len(seen) != len(scenarios()) {
		t.Errorf("%d scenarios have rows, want %d", len(seen), len(scenarios()))
	}
}
