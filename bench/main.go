package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// onceTime bounds one run of a scenario.
const onceTime = 2 * time.Minute

// quickScale is the share of the messages that -quick sends.
const quickScale = 0.02

func main() {
	if ran, err := runPart(os.Args[1:]); err != nil {
		say(os.Stderr, "bench: %v", err)
		os.Exit(1)
	} else if ran {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := command(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		say(os.Stderr, "bench: %v", err)
		os.Exit(1)
	}
}

// runPart runs what a scenario starts this program as besides itself, if the arguments
// ask for that: a relay, or hostile clients.
func runPart(args []string) (ran bool, err error) {
	switch {
	case len(args) > 1 && args[0] == relayArg:
		return true, fmt.Errorf("relay: %w", runRelay(args[1], args[2:]))
	case len(args) == 1 && args[0] == siegeArg:
		if err := runSiege(os.Stdin, os.Stdout); err != nil {
			return true, fmt.Errorf("hostile clients: %w", err)
		}
		return true, nil
	}
	return false, nil
}

// say writes a line; a terminal that is gone is no reason to stop.
func say(w io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }

func command(ctx context.Context, args []string, out, progress io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	repeat := flags.Int("rounds", 5, "how often each system does each scenario; medians are reported")
	quick := flags.Bool("quick", false, "one round with few messages: shows that it works, not how fast")
	only := flags.String("run", "", "only scenarios whose name contains one of these, separated by semicolons")
	with := flags.String("with", "", "only systems whose name contains one of these, separated by commas")
	format := flags.String("o", "text", "text or json")
	if err := flags.Parse(args); err != nil {
		return err
	}
	scale := 1.0
	if *quick {
		scale, *repeat = quickScale, 1
	}
	dir, err := os.MkdirTemp("", "switchboard-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // a temporary folder
	systems, err := prepare(ctx, dir, *with, progress)
	if err != nil {
		return err
	}
	var rows []row
	for _, sc := range scenarios() {
		if containsOne(sc.name, strings.Split(*only, ";")) {
			r, err := measure(ctx, sc, forScenario(sc, systems), *repeat, scale, progress)
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

// prepare builds the servers that come as source, and finds the others.
func prepare(ctx context.Context, dir, with string, progress io.Writer) ([]system, error) {
	say(progress, "building hubnode and nats-server …")
	hubnode, err := build(ctx, dir, "hubnode", "..", "./cmd/hubnode")
	if err != nil {
		return nil, err
	}
	nats, err := build(ctx, dir, "nats-server", ".", "github.com/nats-io/nats-server/v2")
	if err != nil {
		return nil, err
	}
	node := switchboard{binary: hubnode, dir: dir}
	natsd := natsServer{binary: nats, dir: dir}
	all := []system{&node, &switchboardClient{node}, &encrypted{switchboard: node}, &ruled{switchboard: node}, &paced{node}, &plain{node}, &natsd, &natsClient{natsd}}
	if redis, ok := installed("redis-server", progress); ok {
		all = append(all, &redisServer{binary: redis, dir: dir})
	}
	if broker, ok := installed("mosquitto", progress); ok {
		all = append(all, &mosquitto{binary: broker, dir: dir})
	}
	all = append(all, &relay{})
	return slices.DeleteFunc(all, func(s system) bool {
		return !containsOne(s.name(), strings.Split(with, ","))
	}), nil
}

// forScenario returns the systems that do a scenario.
func forScenario(sc scenario, systems []system) []system {
	return slices.DeleteFunc(slices.Clone(systems), func(s system) bool {
		switch s.(type) {
		case *encrypted:
			return sc.guard != byTLS
		case *ruled:
			return sc.guard != byRules
		case *paced:
			return sc.guard != byPace
		case *plain:
			return sc.guard == unguarded
		default:
			return sc.guard != unguarded
		}
	})
}

func containsOne(text string, parts []string) bool {
	return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(text, part) })
}

// installed finds a server of Debian's.
func installed(name string, progress io.Writer) (string, bool) {
	path, err := exec.LookPath(name)
	if err != nil {
		path = filepath.Join("/usr/sbin", name) // not on everybody's path
		if _, err = os.Stat(path); err != nil {
			say(progress, "left out: %s is not installed (apt-get install %s)", name, name)
			return "", false
		}
	}
	return path, true
}
