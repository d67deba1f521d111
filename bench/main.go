package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// onceTime bounds one run of a scenario.
const onceTime = 2 * time.Minute

// quickScale is the share of the messages that -quick sends.
const quickScale = 0.02

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := command(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		say(os.Stderr, "bench: %v", err)
		os.Exit(1)
	}
}

// say writes a line; a terminal that is gone is no reason to stop.
func say(w io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }

func command(ctx context.Context, args []string, out, progress io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	rounds := flags.Int("rounds", 5, "how often each system does each scenario; medians are reported")
	quick := flags.Bool("quick", false, "one round with few messages: shows that it works, not how fast")
	only := flags.String("run", "", "only scenarios whose name contains this")
	format := flags.String("o", "text", "text or json")
	if err := flags.Parse(args); err != nil {
		return err
	}
	scale := 1.0
	if *quick {
		scale, *rounds = quickScale, 1
	}
	dir, err := os.MkdirTemp("", "switchboard-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // a temporary folder
	systems, err := prepare(ctx, dir, progress)
	if err != nil {
		return err
	}
	var rows []row
	for _, sc := range scenarios() {
		if strings.Contains(sc.name, *only) {
			r, err := measure(ctx, sc, systems, *rounds, scale, progress)
			if err != nil {
				return err
			}
			rows = append(rows, r...)
		}
	}
	if *format == "json" {
		return json.NewEncoder(out).Encode(rows)
	}
	return table(out, rows)
}

// prepare builds the servers.
func prepare(ctx context.Context, dir string, progress io.Writer) ([]system, error) {
	say(progress, "building hubnode and nats-server …")
	hubnode, err := build(ctx, dir, "hubnode", "..", "./cmd/hubnode")
	if err != nil {
		return nil, err
	}
	nats, err := build(ctx, dir, "nats-server", ".", "github.com/nats-io/nats-server/v2")
	if err != nil {
		return nil, err
	}
	return []system{&switchboard{binary: hubnode, dir: dir}, &natsServer{binary: nats}}, nil
}

// row is one metric of one scenario.
type row struct {
	Scenario string             `json:"scenario"`
	Metric   string             `json:"metric"`
	Medians  map[string]float64 `json:"medians"`
	// Ratio is switchboard's median over that of nats; 0 when that is 0.
	Ratio float64  `json:"ratio"`
	Wrong []string `json:"wrong,omitempty"`
}

// measure runs a scenario in rounds. In each round every system starts afresh,
// does the work and stops, so that what disturbs the machine meets all.
func measure(ctx context.Context, sc scenario, systems []system, rounds int, scale float64, progress io.Writer) ([]row, error) {
	found := make(map[string]map[string][]float64) // metric → system → values
	var wrong []string
	for round := range rounds {
		for i := range systems {
			s := systems[(i+round)%len(systems)]
			say(progress, "%s: round %d of %d, %s", sc.name, round+1, rounds, s.name())
			r, err := once(ctx, sc, s, scale)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", sc.name, s.name(), err)
			}
			if r.wrong != "" {
				wrong = append(wrong, s.name()+": "+r.wrong)
			}
			for metric, v := range r.metrics {
				if found[metric] == nil {
					found[metric] = make(map[string][]float64)
				}
				found[metric][s.name()] = append(found[metric][s.name()], v)
			}
		}
	}
	var rows []row
	for _, metric := range []string{perSecond, p50, p99, connection, perConn, cpuPerMsg} {
		if values, ok := found[metric]; ok {
			r := row{Scenario: sc.name, Metric: metric, Medians: make(map[string]float64), Wrong: wrong}
			for name, v := range values {
				r.Medians[name] = median(v)
			}
			if peer := r.Medians["nats"]; peer > 0 { // else too little for the clock
				r.Ratio = r.Medians["switchboard"] / peer
			}
			rows = append(rows, r)
		}
	}
	return rows, nil
}

func once(ctx context.Context, sc scenario, s system, scale float64) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, onceTime)
	defer cancel()
	defer s.stop()
	if err := s.start(ctx, sc.servers); err != nil {
		return result{}, err
	}
	return sc.run(ctx, s, scale)
}

func median(values []float64) float64 {
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

func table(out io.Writer, rows []row) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	say(w, "scenario\tmetric\tswitchboard\tnats\tratio\tbetter is\t")
	for _, r := range rows {
		better := "lower"
		if higherIsBetter[r.Metric] {
			better = "higher"
		}
		say(w, "%s\t%s\t%s\t%s\t%.2f\t%s\t%s", r.Scenario, r.Metric,
			number(r.Medians["switchboard"]), number(r.Medians["nats"]), r.Ratio, better, strings.Join(r.Wrong, "; "))
	}
	return w.Flush()
}

func number(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%.2f M", v/1e6)
	case v >= 1e4:
		return fmt.Sprintf("%.1f k", v/1e3)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}
