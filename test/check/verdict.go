// Package check tells whether a hub kept its promises: clients number what they
// send each other, and a verdict compares what was acknowledged with what came.
package check

import (
	"fmt"
	"slices"
	"strings"
)

// Outcome is what the sender of an artifact heard.
type Outcome int

// The outcomes of a send.
const (
	Refused Outcome = iota // it was not delivered, and will not be
	Acknowledged
	Unknown // it may or may not have been delivered
)

// Route is one sender's way to one receiver. Artifacts on it are numbered from 0.
type Route struct{ From, To string }

func (r Route) String() string { return r.From + " → " + r.To }

// Record is what clients saw of one route.
type Record struct {
	Sent     []Outcome // by number
	Received []uint64  // numbers, as they came
}

// Misdelivery is an artifact that came to somebody it was not for.
type Misdelivery struct {
	Route  Route
	Number uint64
	By     string
}

// Verdict counts what the hub did. For each kind of offence it names the first
// one found, in the order of the routes.
type Verdict struct {
	Sent         int    `json:"sent"`
	Acknowledged int    `json:"acknowledged"`
	Unknown      int    `json:"unknown"` // sends whose outcome nobody heard
	Received     int    `json:"received"`
	Lost         int    `json:"lost"`       // acknowledged, and never came
	Doubled      int    `json:"doubled"`    // came more than once
	OutOfOrder   int    `json:"outOfOrder"` // came after a later one of its route
	Misdelivered int    `json:"misdelivered"`
	Invented     int    `json:"invented"` // came, though it was refused or never sent
	First        Firsts `json:"first"`
}

// Firsts describe the first offence of each kind.
type Firsts struct {
	Lost         string `json:"lost,omitempty"`
	Doubled      string `json:"doubled,omitempty"`
	OutOfOrder   string `json:"outOfOrder,omitempty"`
	Misdelivered string `json:"misdelivered,omitempty"`
	Invented     string `json:"invented,omitempty"`
}

// Judge compares what was sent with what came.
func Judge(records map[Route]*Record, misdelivered []Misdelivery) Verdict {
	v := Verdict{Misdelivered: len(misdelivered)}
	if len(misdelivered) > 0 {
		m := misdelivered[0]
		v.First.Misdelivered = fmt.Sprintf("%s: number %d came to %s", m.Route, m.Number, m.By)
	}
	routes := make([]Route, 0, len(records))
	for r := range records {
		routes = append(routes, r)
	}
	slices.SortFunc(routes, func(a, b Route) int {
		return strings.Compare(a.From+"\x00"+a.To, b.From+"\x00"+b.To)
	})
	for _, r := range routes {
		v.judge(r, records[r])
	}
	return v
}

func (v *Verdict) judge(route Route, r *Record) {
	v.Sent += len(r.Sent)
	v.Received += len(r.Received)
	came := make(map[uint64]bool, len(r.Received))
	newest, some := uint64(0), false
	for _, n := range r.Received {
		switch {
		case n >= uint64(len(r.Sent)) || r.Sent[n] == Refused:
			offend(&v.Invented, &v.First.Invented, route, "number %d came, and was refused or never sent", n)
		case came[n]:
			offend(&v.Doubled, &v.First.Doubled, route, "number %d came twice", n)
		case some && n < newest:
			offend(&v.OutOfOrder, &v.First.OutOfOrder, route, "number %d came after %d", n, newest)
		}
		came[n] = true
		newest, some = max(newest, n), true
	}
	for i, outcome := range r.Sent {
		switch outcome {
		case Acknowledged:
			v.Acknowledged++
			if !came[uint64(i)] {
				offend(&v.Lost, &v.First.Lost, route, "number %d was acknowledged and never came", i)
			}
		case Unknown:
			v.Unknown++
		case Refused:
		}
	}
}

func offend(count *int, first *string, route Route, format string, args ...any) {
	if *count++; *count == 1 {
		*first = route.String() + ": " + fmt.Sprintf(format, args...)
	}
}

// Allowed is what a fault may cost. Everything else costs nothing, whatever
// happens: at most once, in order, and to whom it is for.
type Allowed struct {
	Lost int // acknowledged artifacts that never came
}

// Err returns an error that names what the hub did beyond what is allowed, nil
// when it kept its promises. A verdict on nothing is an error as well.
func (v *Verdict) Err(allowed Allowed) error {
	var faults []string
	for _, f := range []struct {
		count, most int
		what, first string
	}{
		{v.Lost, allowed.Lost, "lost", v.First.Lost},
		{v.Doubled, 0, "doubled", v.First.Doubled},
		{v.OutOfOrder, 0, "out of order", v.First.OutOfOrder},
		{v.Misdelivered, 0, "misdelivered", v.First.Misdelivered},
		{v.Invented, 0, "invented", v.First.Invented},
	} {
		if f.count > f.most {
			faults = append(faults, fmt.Sprintf("%d %s, %d allowed (%s)", f.count, f.what, f.most, f.first))
		}
	}
	if v.Acknowledged == 0 || v.Received == 0 {
		faults = append(faults, "nothing was delivered")
	}
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("of %d artifacts: %s", v.Sent, strings.Join(faults, "; "))
}
