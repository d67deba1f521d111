package kubehub

import (
	"bytes"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"
)

// messageAtMost is how much of an event fits a line.
const messageAtMost = 100

// Text is the report on one screen, as of now.
func (r *Report) Text(now time.Time) string {
	var b bytes.Buffer
	r.head(&b)
	r.conditions(&b, now)
	r.nodes(&b, now)
	r.events(&b, now)
	for _, what := range r.Unread {
		fmt.Fprintf(&b, "\nCould not read %s\n", what)
	}
	return b.String()
}

func (r *Report) head(b *bytes.Buffer) {
	fmt.Fprintf(b, "Hub %s in %s: %s\n", r.Hub, r.Namespace, headlines[r.State])
	if r.Behind {
		b.WriteString("The operator has not seen the newest spec: what follows is about an earlier one.\n")
	}
	fmt.Fprintf(b, "\n  nodes    %d of %d ready\n", r.ReadyReplicas, r.Replicas)
	fmt.Fprintf(b, "  clients  %d, connect to %s\n", r.Clients, orDash(r.Address))
	if s := r.Shards; s != nil {
		fmt.Fprintf(b, "  shards   %d of %d have all replicas, caught up", s.Whole, s.Shards)
		if s.Led < s.Shards {
			fmt.Fprintf(b, "; %d have no leader that answers: nothing can be published to their topics", s.Shards-s.Led)
		}
		b.WriteByte('\n')
	}
	if u := r.Rollout; u != nil && u.Updated < u.Nodes {
		fmt.Fprintf(b, "  rollout  %d of %d nodes have the newest pod template\n", u.Updated, u.Nodes)
	}
	switch {
	case !r.SafeToRestart:
		fmt.Fprintf(b, "  restart  NO node may stop now: %s\n", r.NotSafe)
	case r.Replicas == 0 && len(r.Nodes) == 0:
		b.WriteString("  restart  there is no node to restart\n")
	default:
		b.WriteString("  restart  any one node may stop now\n")
	}
}

var headlines = map[string]string{
	"well":     "all is well",
	"changing": "is being changed",
	"paused":   "PAUSED: the operator leaves it as it is",
	"degraded": "DEGRADED: it serves clients, and something is wrong",
	"down":     "DOWN: too few nodes are ready",
	"stopped":  "stopped, the spec asks for no nodes",
}

func (r *Report) conditions(b *bytes.Buffer, now time.Time) {
	if len(r.Conditions) == 0 {
		b.WriteString("\nThe operator has not reported on this Hub: does it run, and watch this namespace?\n")
		return
	}
	b.WriteByte('\n')
	w := newTable(b)
	for _, c := range r.Conditions {
		mark := " "
		if c.Bad {
			mark = "!"
		}
		w.row("%s %s\t%s\tfor %s\t%s: %s\n", mark, c.Type, yesNo[c.Status], since(c.Since, now), c.Reason, c.Message)
	}
	w.flush()
	for _, c := range r.Conditions {
		if c.Next != "" {
			fmt.Fprintf(b, "  → %s: %s\n", c.Reason, c.Next)
		}
	}
}

var yesNo = map[string]string{"True": "yes", "False": "no", "Unknown": "unknown"}

func (r *Report) nodes(b *bytes.Buffer, now time.Time) {
	if len(r.Nodes) == 0 {
		return
	}
	b.WriteByte('\n')
	w := newTable(b)
	w.row("NODE\tREADY\tCLIENTS\tLEADS\tDISK\tRESTARTS\tAGE\tMACHINE\tIMAGE\n")
	for i := range r.Nodes {
		n := &r.Nodes[i]
		clients, leads, disk := "-", "-", "-"
		if s := n.Status; s != nil {
			clients = fmt.Sprint(s.Clients)
			if s.History.Shards > 0 {
				leads = fmt.Sprint(s.History.Led)
			}
			if d := s.Disk; d != nil {
				disk = fmt.Sprintf("%d%% free", 100*d.FreeBytes/max(d.SizeBytes, 1))
				switch {
				case d.AwaySince != nil:
					disk = "AWAY for " + since(*d.AwaySince, now)
				case d.FullSince != nil:
					disk = "FULL for " + since(*d.FullSince, now)
				}
			}
		}
		w.row("%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", n.Node, n.ready(), clients, leads, disk,
			n.Restarts, since(n.Created, now), orDash(n.Machine), n.Image)
	}
	w.flush()
	for i := range r.Nodes {
		n := &r.Nodes[i]
		if n.Status != nil && n.Status.ConfigError != "" {
			fmt.Fprintf(b, "  ! %s refuses its settings: %s\n", n.Node, n.Status.ConfigError)
		}
		if n.Status != nil && n.Status.Disk != nil && n.Status.Disk.Away != "" {
			fmt.Fprintf(b, "  ! %s can't open its disk: %s\n", n.Node, n.Status.Disk.Away)
		}
		if n.Ready && n.Silent != "" {
			fmt.Fprintf(b, "  ! %s does not answer: %s\n", n.Node, n.Silent)
		}
	}
}

func (n *NodeReport) ready() string {
	text := "no"
	switch {
	case n.Ending:
		text = "ending"
	case n.Ready:
		text = "yes"
	case n.Problem != "":
		text = "no: " + n.Problem
	}
	return text
}

func (r *Report) events(b *bytes.Buffer, now time.Time) {
	if len(r.Events) == 0 {
		return
	}
	b.WriteString("\nNewest events:\n")
	w := newTable(b)
	for _, e := range r.Events {
		mark := " "
		if e.Type != "Normal" {
			mark = "!"
		}
		times := ""
		if e.Count > 1 {
			times = fmt.Sprintf(" (%d times)", e.Count)
		}
		w.row("%s %s ago\t%s\t%s%s: %s\n", mark, since(e.Time, now), e.Object, e.Reason, times, oneLine(e.Message))
	}
	w.flush()
}

// table is one in a buffer, which takes everything.
type table struct{ w *tabwriter.Writer }

func newTable(b *bytes.Buffer) table { return table{tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)} }

func (t table) row(format string, cells ...any) { _, _ = fmt.Fprintf(t.w, format, cells...) }

func (t table) flush() { _ = t.w.Flush() }

// oneLine is the beginning of a text that may be long.
func oneLine(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if runes := []rune(text); len(runes) > messageAtMost {
		return string(runes[:messageAtMost]) + "…"
	}
	return text
}

func since(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return duration.HumanDuration(max(0, now.Sub(t)))
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
