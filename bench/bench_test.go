package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
)

// TestMain makes the test's program what a scenario runs it as.
func TestMain(m *testing.M) {
	if ran, err := runPart(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	} else if ran {
		os.Exit(0)
	}
	os.Exit(m.Run())
}

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
		systems := []string{ours, oursWithClient, "nats", "nats, nats.go"}
		if strings.Contains(r.Scenario, "TLS") || strings.Contains(r.Scenario, "rules") {
			systems = []string{ours, withoutGuard}
		}
		if strings.Contains(r.Scenario, "hostile") {
			systems = []string{ours, natsName}
		}
		if strings.Contains(r.Scenario, "taken") {
			systems = []string{ours, withoutGuard}
		}
		for _, s := range systems {
			if r.Medians[s] == 0 {
				t.Errorf("%s, %s: not measured for %s: %v", r.Scenario, r.Metric, s, r.Medians)
			}
		}
	}
	if len(seen) != len(scenarios()) {
		t.Errorf("%d scenarios have rows, want %d", len(seen), len(scenarios()))
	}
}

func TestJudge(t *testing.T) {
	sc := scenario{name: "x", targets: map[string]float64{perSecond: 2, cpuPerMsg: 0.5}}
	rows := judge(sc, map[string]rounds{
		perSecond: {ours: {10, 30, 20}, oursWithClient: {1, 1, 1}, "nats": {8, 8, 8}, "redis": {10, 10, 10}, reference: {99, 99, 99}},
		cpuPerMsg: {ours: {3, 3, 3}, oursWithClient: {1, 1, 1}, "nats": {1, 1, 1}, "redis": {5, 5, 5}, reference: {0, 0, 0}},
	}, nil)
	if len(rows) != 2 {
		t.Fatalf("%d rows, want one for each metric: %+v", len(rows), rows)
	}
	for i, want := range []row{
		{Metric: perSecond, Peer: "redis", Ratio: 2, Met: true},
		{Metric: cpuPerMsg, Peer: "redis", Ratio: 0.6, Met: false}, // of the same systems as the row before
	} {
		if r := rows[i]; r.Metric != want.Metric || r.Peer != want.Peer || r.Ratio != want.Ratio || r.Met != want.Met {
			t.Errorf("row %d is %+v, want %+v", i, r, want)
		}
	}
	sc.versus = "nats"
	if r := judge(sc, map[string]rounds{p50: {ours: {2}, "nats": {4}, "redis": {1}}}, nil)[0]; r.Peer != "nats" || r.Ratio != 0.5 {
		t.Errorf("judged against nats: %+v", r)
	}
}
