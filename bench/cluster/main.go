// Command cluster measures what happens between the nodes of a hub: how soon a
// client is known everywhere, what the death of a node costs, how long a node that
// joins takes, what an idle hub costs, and what a drain does to clients under load; and
// of histories, how publishing goes on without a replica, how long a node takes that
// starts with much, and what memory it takes.
// Nodes are processes on loopback with real sockets and gossip; clients are those
// of the client library, but for the many idle ones, which only shake hands.
//
//	cd bench && go run ./cluster [-run "routable;kill"] [-clients 10000] [-idle 100000] [-span 30s] [-o json]
//
// docs/performance.md has the results.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// row is one line of the result.
type row struct {
	Step   string  `json:"step"`
	What   string  `json:"what"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Target string  `json:"target,omitempty"`
}

// bench is what the steps share.
type bench struct {
	dir     string // for configs and the binary
	hubnode string
	clients int
	idle    int
	span    time.Duration // that the steps idle, shards and replica measure

	history   int64 // bytes that the step restart fills a node with
	replicas  int   // of these
	artifacts int   // of the step memory
	rows      []row
	say       func(row)
}

func (b *bench) report(step, what string, value float64, unit, target string) {
	r := row{step, what, value, unit, target}
	b.rows = append(b.rows, r)
	b.say(r)
}

type step struct {
	name string
	run  func(context.Context, *bench) error
}

var steps = []step{
	{"routable", routable},
	{"kill", kill},
	{"death", death},
	{"drain", drain},
	{"join", join},
	{"idle", idle},
	{"shards", shards},
	{"replica", replica},
	{"restart", restart},
	{"memory", memory},
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "hold" {
		if err := hold(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "cluster: hold:", err)
			os.Exit(1)
		}
	}
	var (
		only    = flag.String("run", "", "the steps to run, separated by ';'; empty: all")
		clients = flag.Int("clients", 10_000, "clients of the steps kill and drain")
		many    = flag.Int("idle", 100_000, "clients of the steps join and idle")
		span    = flag.Duration("span", 30*time.Second, "how long the steps idle and shards measure; replica takes a third for each rate")
		history = flag.Int64("history", 10<<10, "MiB of history of the step restart")
		nodes   = flag.Int("replicas", 3, "nodes of the step restart, each with all of it")
		kept    = flag.Int("artifacts", 1_000_000, "artifacts of the step memory")
		output  = flag.String("o", "text", "text or json")
	)
	flag.Parse()
	b := &bench{clients: *clients, idle: *many, span: *span, history: *history << 20, replicas: *nodes, artifacts: *kept, say: printer(*output)}
	if err := b.run(interrupted(), *only); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// interrupted returns a context that Ctrl-C ends.
func interrupted() context.Context {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second one ends the program
	return ctx
}

// run makes the steps that only names.
func (b *bench) run(ctx context.Context, only string) error {
	var wanted []string
	if only != "" {
		wanted = strings.Split(only, ";")
	}
	for _, name := range wanted {
		if !slices.ContainsFunc(steps, func(s step) bool { return s.name == name }) {
			return fmt.Errorf("there is no step %q", name)
		}
	}
	if err := raiseFileLimit(b.clients); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "switchboard-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // what is left is the system's to clean
	b.dir = dir
	fmt.Fprintln(os.Stderr, "building hubnode")
	if b.hubnode, err = build(ctx, dir); err != nil {
		return err
	}
	for _, s := range steps {
		if len(wanted) > 0 && !slices.Contains(wanted, s.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s: %s\n", time.Now().Format(time.TimeOnly), s.name)
		if err := s.run(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// printer returns what prints a row.
func printer(output string) func(row) {
	if output == "json" {
		encoder := json.NewEncoder(os.Stdout)
		return func(r row) { _ = encoder.Encode(r) } // nobody reads it any more
	}
	return func(r row) {
		w := tabwriter.NewWriter(os.Stdout, 60, 1, 2, ' ', 0)
		_, _ = fmt.Fprintf(w, "%s: %s\t%.4g %s\t%s\n", r.Step, r.What, r.Value, r.Unit, r.Target)
		_ = w.Flush() // nobody reads it any more
	}
}

// percentile returns the p-th percentile of times, in milliseconds.
func percentile(times []time.Duration, p float64) float64 {
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	return times[min(len(times)-1, int(float64(len(times))*p/100))].Seconds() * 1000
}
