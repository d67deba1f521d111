package hubctl

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/wire"
)

// list is one of the lists that the hub itself gives.
type list struct {
	name    string // of the command, and behind "$hub."
	short   string
	long    string // behind short
	columns string
	ofTopic bool   // hubctl's command takes the name of a topic, to list what is of that
	topic   string // what it was given; empty: all
	// rows adds what the answer says to a table; self is this client's id.
	rows func(answer []byte, self wire.ClientID, row func(cells ...string)) error
	note func(answer []byte) string // what else there is to say; may be nil
}

var (
	clientsList = list{name: "clients", short: "Show who is connected, and where", columns: "ID\tNODE\tADDRESS\tPROGRAM\tCONNECTED\tSUBSCRIPTIONS\tPENDING\tROUND TRIP\tDROPPED", rows: clientRows}
	topicsList  = list{name: "topics", short: "Show topics with subscribers or history", columns: "TOPIC\tSUBSCRIBERS\tHISTORY\tLEADER\tSEQUENCES\tARTIFACTS\tBYTES\tOLDEST\tREPLICAS (LAG)", rows: topicRows, note: leaderless, long: `.

HISTORY says whether the topic keeps its artifacts: SEQUENCES first to last, OLDEST how long
the first has been there. LAG is how many entries of the log a replica still has to get from
the leader; a disk that is nearly full is told beside it. "hubctl topics describe TOPIC" says
more of one`}
	nodesList = list{name: "nodes", short: "Show the hub's nodes", columns: "NODE\tSTATE\tREADY\tCLIENT\tHTTP\tCLIENTS\tDISK\tVERSION\tUPTIME", rows: nodeRows, long: `.

DISK is what is free of the disk for history, or since when it is nearly full: then what is
published to topics that the node leads is refused; or since when it is away: it can't be opened,
and the node goes on without its shards. The node that answers is marked *`}
	durablesList = list{name: "durables", short: "Show durable subscriptions, and how far each has got", columns: "TOPIC\tNAME\tSHARED\tPOSITION\tPENDING\tIN FLIGHT\tREDELIVERED\tLOST\tCLIENTS\tUSED\tFILTER", rows: durableRows, note: durablesMissing, ofTopic: true, long: `.

POSITION is the first sequence that is not settled, PENDING how many artifacts wait to
be given out, IN FLIGHT how many clients are at work on, REDELIVERED how many of what
is not settled were given out more than once, and LOST how many retention took before
they were done: the topic keeps too little for this backlog. PENDING counts what a filter
has not looked at yet`}
	namespacesList = list{name: "namespaces", short: "Show what the topics of each namespace keep", columns: "NAMESPACE\tHISTORY BYTES\tLIMIT\tUSED", rows: namespaceRows, note: uncounted, long: `.

They are counted while limits.perNamespace.historyBytes is set: what would be more than that
is refused. The node that answers may be some seconds behind for what others lead`}
)

func (a *App) listCommand(l list) *cobra.Command {
	var watch bool
	var interval time.Duration
	use, rule := l.name, cobra.NoArgs
	if l.ofTopic {
		use, rule = l.name+" [TOPIC]", cobra.MaximumNArgs(1)
	}
	cmd := &cobra.Command{
		Use:   use,
		Short: l.short,
		Long: l.short + l.long + `.

With -o json the hub's answer is printed on one line, with --watch one line for
each look.`,
		Example: fmt.Sprintf("  hubctl %[1]s\n  hubctl %[1]s --watch\n  hubctl %[1]s -o json | jq .", l.name),
		Args:    Args(rule),
		RunE: func(cmd *cobra.Command, args []string) error {
			if interval <= 0 {
				return Usagef(cmd, "interval %v: want more than 0", interval)
			}
			if len(args) > 0 {
				if err := checkTopic(cmd, args[0]); err != nil {
					return err
				}
				l.topic = args[0]
			}
			return a.list(cmd.Context(), l, watch, interval)
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "look again and again until Ctrl-C")
	cmd.Flags().DurationVar(&interval, "interval", 2*time.Second, "time between two looks of --watch")
	return cmd
}

func (a *App) list(ctx context.Context, l list, watch bool, interval time.Duration) error {
	var opts []client.Option
	if watch {
		opts = a.notices()
	}
	from, end, err := a.source(ctx, opts...)
	if err != nil && watch {
		return OrInterrupted(ctx, err)
	}
	if err != nil {
		return err
	}
	defer end()
	if !watch {
		return a.look(ctx, from, l)
	}
	next := time.NewTicker(interval)
	defer next.Stop()
	for {
		if isTerminal(a.Out) && !a.JSON() {
			if _, err := io.WriteString(a.Out, "\x1b[H\x1b[2J"); err != nil { // home, clear
				return err
			}
		}
		if err := a.look(ctx, from, l); err != nil {
			if _, printing := err.(*printError); printing || ctx.Err() != nil { //nolint:errorlint // never wrapped
				return OrInterrupted(ctx, err)
			}
			a.Tellf("%v", err) // the node may be away; the next look asks another
		}
		select {
		case <-ctx.Done():
			return nil
		case <-from.gone:
			return from.why()
		case <-next.C:
		}
	}
}

// printError is an error of our own output: looking again won't help.
type printError struct{ err error }

func (e *printError) Error() string { return e.err.Error() }
func (e *printError) Unwrap() error { return e.err }

// look asks the hub once and prints its answer.
func (a *App) look(ctx context.Context, from source, l list) error {
	answer, err := from.ask(ctx, l)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if a.JSON() {
		b.Write(answer)
		b.WriteByte('\n')
	} else if err := l.table(&b, answer, from.self); err != nil {
		return fmt.Errorf("read the list of %s: %w", l.name, err)
	}
	if _, err := a.Out.Write(b.Bytes()); err != nil {
		return &printError{err}
	}
	if l.note != nil {
		if text := l.note(answer); text != "" {
			a.Tellf("%s", text)
		}
	}
	return nil
}

// askAll asks the hub for a list. One that comes in pages is put together.
func askAll(ctx context.Context, c *client.Client, l list) ([]byte, error) {
	const patience = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var clients []json.RawMessage
	for after := ""; ; {
		question, err := json.Marshal(struct {
			wire.PageRequest
			Topic string `json:"topic,omitempty"`
		}{wire.PageRequest{After: after}, l.topic})
		if err != nil {
			return nil, err
		}
		answer, err := c.Request(ctx, systemPrefix+l.name, &wire.Artifact{Payload: question})
		if err != nil {
			return nil, err
		}
		var page struct {
			Clients []json.RawMessage `json:"clients"`
			Next    wire.ClientID     `json:"next,omitempty"`
		}
		if err := json.Unmarshal(answer.Payload, &page); err != nil {
			return nil, err
		}
		if page.Next == "" && after == "" {
			return answer.Payload, nil
		}
		clients = append(clients, page.Clients...)
		if page.Next <= after { // the last one has none
			page.Clients, page.Next = clients, ""
			return json.Marshal(page)
		}
		after = page.Next
	}
}

func (l list) table(out io.Writer, answer []byte, self wire.ClientID) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(cells ...string) {
		_, _ = io.WriteString(w, strings.Join(cells, "\t")+"\n") // a buffer takes everything
	}
	line(l.columns)
	if err := l.rows(answer, self, line); err != nil {
		return err
	}
	return w.Flush()
}

func clientRows(answer []byte, self wire.ClientID, row func(...string)) error {
	var l struct {
		Clients []struct {
			ID               string    `json:"id"`
			Node             string    `json:"node"`
			Address          string    `json:"address"`
			Name             string    `json:"name"`
			Version          string    `json:"version"`
			ConnectedAt      time.Time `json:"connectedAt"`
			Subscriptions    int       `json:"subscriptions"`
			PendingBytes     int       `json:"pendingBytes"`
			RoundTripSeconds float64   `json:"roundTripSeconds"`
			DroppedArtifacts uint64    `json:"droppedArtifacts"`
		} `json:"clients"`
	}
	if err := json.Unmarshal(answer, &l); err != nil {
		return err
	}
	for _, c := range l.Clients {
		if c.ID == self {
			continue // who looks is not what one looks for
		}
		row(c.ID, c.Node, orDash(c.Address), orDash(cell(strings.TrimSpace(c.Name+" "+c.Version))), ago(c.ConnectedAt),
			strconv.Itoa(c.Subscriptions), strconv.Itoa(c.PendingBytes), roundTrip(c.RoundTripSeconds), strconv.FormatUint(c.DroppedArtifacts, 10))
	}
	return nil
}

func topicRows(answer []byte, _ wire.ClientID, row func(...string)) error {
	var l struct {
		Topics []struct {
			Topic       string    `json:"topic"`
			Subscribers int       `json:"subscribers"`
			History     bool      `json:"history"`
			Node        string    `json:"node"`
			First       uint64    `json:"first"`
			Last        uint64    `json:"last"`
			Artifacts   int       `json:"artifacts"`
			Bytes       int64     `json:"bytes"`
			Oldest      time.Time `json:"oldest"`
			Shard       int       `json:"shard"`
		} `json:"topics"`
		Shards []shardInfo `json:"shards"`
	}
	if err := json.Unmarshal(answer, &l); err != nil {
		return err
	}
	replicas := make(map[int]string)
	for _, s := range l.Shards {
		replicas[s.Shard] = s.text()
	}
	for _, t := range l.Topics {
		history, sequences, where := "no", "-", ""
		if t.History {
			history, where = "yes", replicas[t.Shard]
			if t.Artifacts > 0 {
				sequences = fmt.Sprintf("%d-%d", t.First, t.Last)
			}
		}
		row(t.Topic, strconv.Itoa(t.Subscribers), history, orDash(t.Node), sequences, strconv.Itoa(t.Artifacts), strconv.FormatInt(t.Bytes, 10),
			ago(t.Oldest), orDash(where))
	}
	return nil
}

func namespaceRows(answer []byte, _ wire.ClientID, row func(...string)) error {
	var l struct {
		Max        int64 `json:"maxHistoryBytes"`
		Namespaces []struct {
			Namespace string `json:"namespace"`
			Bytes     int64  `json:"historyBytes"`
		} `json:"namespaces"`
	}
	if err := json.Unmarshal(answer, &l); err != nil {
		return err
	}
	for _, n := range l.Namespaces {
		row(n.Namespace, strconv.FormatInt(n.Bytes, 10), strconv.FormatInt(l.Max, 10), fmt.Sprintf("%.0f%%", 100*float64(n.Bytes)/float64(l.Max)))
	}
	return nil
}

// uncounted says why no namespace is listed.
func uncounted(answer []byte) string {
	var l struct {
		Max int64 `json:"maxHistoryBytes"`
	}
	if json.Unmarshal(answer, &l) != nil || l.Max > 0 {
		return ""
	}
	return "nothing is counted: limits.perNamespace.historyBytes is not set"
}

// shardInfo is a shard in the list of topics.
type shardInfo struct {
	Shard    int    `json:"shard"`
	Leader   string `json:"leader"`
	Replicas []struct {
		Node     string    `json:"node"`
		Lag      uint64    `json:"lag"`
		DiskFull time.Time `json:"diskFullSince"`
	} `json:"replicas"`
}

// text says which nodes have a replica, and how far behind each is.
func (s shardInfo) text() string {
	var all []string
	for _, r := range s.Replicas {
		lag := strconv.FormatUint(r.Lag, 10)
		if !r.DiskFull.IsZero() {
			lag += ", disk full"
		}
		all = append(all, fmt.Sprintf("%s (%s)", r.Node, lag))
	}
	return strings.Join(all, " ")
}

// leaderless says that topics are missing in the list, whose shards nobody leads, or of
// which a node did not tell.
func leaderless(answer []byte) string {
	var l struct {
		Shards     []shardInfo `json:"shards"`
		Incomplete bool        `json:"incomplete"`
	}
	if json.Unmarshal(answer, &l) != nil {
		return "" // the table has said so
	}
	n := 0
	for _, s := range l.Shards {
		if s.Leader == "" {
			n++
		}
	}
	if n == 0 {
		return incomplete(l.Incomplete, "topics")
	}
	return fmt.Sprintf("%d of %d shards have no leader, a majority of their replicas can't be reached: topics with history that belong to them are not listed", n, len(l.Shards))
}

// incomplete says that a list may lack something, if so.
func incomplete(is bool, what string) string {
	if !is {
		return ""
	}
	return "a node did not answer, or a shard had no leader: some " + what + " may be missing here"
}

func nodeRows(answer []byte, _ wire.ClientID, row func(...string)) error {
	var l struct {
		Nodes []struct {
			Node          string  `json:"node"`
			State         string  `json:"state"`
			Ready         bool    `json:"ready"`
			Client        string  `json:"client"`
			HTTP          string  `json:"http"`
			Clients       int     `json:"clients"`
			Version       string  `json:"version"`
			UptimeSeconds float64 `json:"uptimeSeconds"`
			Self          bool    `json:"self"`
			Reachable     bool    `json:"reachable"`
			Disk          *struct {
				FreeBytes uint64    `json:"freeBytes"`
				SizeBytes uint64    `json:"sizeBytes"`
				FullSince time.Time `json:"fullSince"`
				AwaySince time.Time `json:"awaySince"`
			} `json:"disk"`
		} `json:"nodes"`
	}
	if err := json.Unmarshal(answer, &l); err != nil {
		return err
	}
	for _, n := range l.Nodes {
		ready, clients, disk, uptime := "no", strconv.Itoa(n.Clients), "-", seconds(n.UptimeSeconds)
		if d := n.Disk; d != nil {
			disk = fmt.Sprintf("%d%% free", 100*d.FreeBytes/max(d.SizeBytes, 1))
			switch {
			case !d.AwaySince.IsZero():
				disk = "away since " + ago(d.AwaySince)
			case !d.FullSince.IsZero():
				disk = "full since " + ago(d.FullSince)
			}
		}
		switch {
		case !n.Reachable:
			ready, clients, uptime = "unreachable", "-", "-"
		case n.Ready:
			ready = "yes"
		}
		name := n.Node
		if n.Self {
			name += " *" // the one that answers
		}
		row(name, n.State, ready, n.Client, n.HTTP, clients, disk, orDash(n.Version), uptime)
	}
	return nil
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func ago(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return seconds(time.Since(t).Seconds()) + " ago"
}

func seconds(s float64) string {
	return time.Duration(max(0, s) * float64(time.Second)).Truncate(time.Second).String()
}

func roundTrip(s float64) string {
	if s == 0 {
		return "-"
	}
	return time.Duration(s * float64(time.Second)).Round(time.Microsecond).String()
}

// isTerminal reports whether output goes to a person's screen.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
