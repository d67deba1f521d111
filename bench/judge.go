package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Whose systems are whose. Each may be there with several clients: the better
// one counts. The relay is no peer: it shows what the machine gives.
const (
	ours           = "switchboard"
	oursWithClient = "switchboard, Go client"
	reference      = "relay"
)

// row is one metric of one scenario.
type row struct {
	Scenario string             `json:"scenario"`
	Metric   string             `json:"metric"`
	Medians  map[string]float64 `json:"medians"`
	Peer     string             `json:"peer,omitempty"` // the best one
	// Ratio is the median of the rounds' ratios: our better client's over the
	// best peer's in the same round; 0 without a peer.
	Ratio  float64  `json:"ratio,omitempty"`
	Target float64  `json:"target,omitempty"`
	Met    bool     `json:"met"` // true without a target
	Wrong  []string `json:"wrong,omitempty"`
}

// rounds holds values by system, in the order of the rounds; a round that a
// system did not do has none for it.
type rounds map[string][]float64

// measure runs a scenario in rounds. In each round every system starts afresh,
// does the work and stops, so that what disturbs the machine meets all.
func measure(ctx context.Context, sc scenario, systems []system, n int, scale float64, progress io.Writer) ([]row, error) {
	found := make(map[string]rounds) // by metric
	cannot := make(map[string]bool)
	var wrong []string
	for round := range n {
		for i := range systems {
			s := systems[(i+round)%len(systems)]
			if cannot[s.name()] {
				continue
			}
			r, err := once(ctx, sc, s, scale)
			if errors.Is(err, errCannot) {
				cannot[s.name()] = true
				continue
			}
			if err != nil && isOurs(s.name()) {
				return nil, fmt.Errorf("%s, %s: %w", sc.name, s.name(), err)
			}
			if err != nil { // a peer's fault is not the end of the rest
				cannot[s.name()] = true
				wrong = append(wrong, fmt.Sprintf("%s gave up: %v", s.name(), err))
				say(progress, "%s, round %d of %d, %s gave up: %v", sc.name, round+1, n, s.name(), err)
				continue
			}
			say(progress, "%s, round %d of %d, %s: %s", sc.name, round+1, n, s.name(), brief(r))
			if r.wrong != "" {
				wrong = append(wrong, s.name()+": "+r.wrong)
			}
			for metric, v := range r.metrics {
				if found[metric] == nil {
					found[metric] = make(rounds)
				}
				found[metric][s.name()] = append(found[metric][s.name()], v)
			}
		}
	}
	return judge(sc, found, wrong), nil
}

func once(ctx context.Context, sc scenario, s system, scale float64) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(sc.time, onceTime))
	defer cancel()
	defer s.stop()
	if k, ok := s.(keeper); ok {
		k.storing(sc.storage)
	}
	if err := s.start(ctx, sc.servers); err != nil {
		return result{}, fmt.Errorf("%w%s", err, s.lastWords())
	}
	return sc.run(ctx, s, scale)
}

// judge makes the rows of one scenario. The best peer is the one that is best at
// the scenario's first metric; what its other metrics are compared with is the
// same system.
func judge(sc scenario, found map[string]rounds, wrong []string) []row {
	var rows []row
	us, peer := "", ""
	for _, m := range metrics {
		values := found[m.name]
		if values == nil {
			continue
		}
		if us == "" {
			us = best(values, m.higher, isOurs)
			peer = best(values, m.higher, func(name string) bool { return isPeer(name) && strings.HasPrefix(name, sc.versus) })
		}
		r := row{Scenario: sc.name, Metric: m.name, Medians: make(map[string]float64), Peer: peer, Target: sc.targets[m.name], Wrong: wrong}
		for name, v := range values {
			r.Medians[name] = median(v)
		}
		r.Ratio = median(ratios(values[us], values[peer]))
		r.Met = r.Target == 0 || (m.higher && r.Ratio >= r.Target) || (!m.higher && r.Ratio > 0 && r.Ratio <= r.Target)
		rows = append(rows, r)
	}
	return rows
}

func isOurs(name string) bool { return strings.HasPrefix(name, ours) }
func isPeer(name string) bool { return !isOurs(name) && name != reference }

// best returns the name of the best of those that count.
func best(values rounds, higher bool, counts func(string) bool) string {
	chosen := ""
	for name, v := range values {
		if !counts(name) {
			continue
		}
		if chosen == "" || (median(v) > median(values[chosen])) == higher {
			chosen = name
		}
	}
	return chosen
}

func ratios(a, b []float64) []float64 {
	var all []float64
	for i := range min(len(a), len(b)) {
		if b[i] > 0 {
			all = append(all, a[i]/b[i])
		}
	}
	return all
}

func median(values []float64) float64 {
	n := len(values)
	if n == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// table prints the rows: what is ours by both clients, every peer by its better
// one, and the relay.
func table(out io.Writer, rows []row) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	say(w, "scenario\tmetric\tswitchboard\twith its Go client\tbest peer\t\trelay\tratio\ttarget\t")
	for _, r := range rows {
		target, verdict := "", ""
		if r.Target > 0 {
			target = fmt.Sprintf("%.2f", r.Target)
			switch {
			case r.Ratio == 0:
				verdict = "no peer"
			case r.Met:
				verdict = "met"
			default:
				verdict = "MISSED"
			}
		}
		say(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%.2f\t%s\t%s", r.Scenario, r.Metric,
			number(r.Medians[ours]), number(r.Medians[oursWithClient]), number(r.Medians[r.Peer]), r.Peer, number(r.Medians[reference]),
			r.Ratio, target, strings.Join(append([]string{verdict}, r.Wrong...), "; "))
	}
	return w.Flush()
}

func brief(r result) string {
	var parts []string
	for _, m := range metrics {
		if v, ok := r.metrics[m.name]; ok {
			parts = append(parts, number(v)+" "+m.name)
		}
	}
	return strings.Join(parts, ", ")
}

func number(v float64) string {
	switch {
	case v == 0:
		return "-"
	case v >= 1e6:
		return fmt.Sprintf("%.2f M", v/1e6)
	case v >= 1e4:
		return fmt.Sprintf("%.1f k", v/1e3)
	case v < 1:
		return fmt.Sprintf("%.3f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}
