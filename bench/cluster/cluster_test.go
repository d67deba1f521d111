package main

import (
	"os"
	"testing"
	"time"
)

// The processes that hold idle clients are this program again.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "hold" {
		if hold(os.Args[2:]) != nil {
			os.Exit(1)
		}
		return
	}
	m.Run()
}

// The steps work; what they measure is for the command. The step death is left to
// it as well: test/cluster tests what it measures, without its bound of a minute.
func TestSteps(t *testing.T) {
	seen := make(map[string]float64)
	b := &bench{clients: 100, idle: 100, span: time.Second, history: 20 << 20, replicas: 3, artifacts: 20_000, say: func(r row) { seen[r.Step+": "+r.What] = r.Value }}
	if err := b.run(t.Context(), "routable;kill;drain;join;idle;shards;replica;restart;memory"); err != nil {
		t.Fatal(err)
	}
	for _, none := range []string{"drain: artifacts lost", "drain: artifacts doubled", "drain: artifacts out of order", "drain: sends that failed"} {
		if n, ok := seen[none]; !ok || n != 0 {
			t.Errorf("%s: %v, want 0", none, n)
		}
	}
	for _, some := range []string{"replica: … while one of them is down", "replica: … while it catches up", "restart: a killed node of 3 with 0.0195 GiB of history is ready after"} {
		if _, ok := seen[some]; !ok {
			t.Errorf("%s is not measured", some)
		}
	}
	if ratio := seen["memory: 20000 artifacts of 128 B in memory: resident, at once"]; ratio <= 0 {
		t.Errorf("artifacts in memory take %v of their bytes", ratio)
	}
	if err := b.run(t.Context(), "nothing"); err == nil {
		t.Error("a step that there is not is run")
	}
}
