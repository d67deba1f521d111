package hubctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/wire"
)

func (a *App) topicsCommand() *cobra.Command {
	cmd := a.listCommand(topicsList)
	cmd.AddCommand(a.describeTopicCommand(), a.purgeTopicCommand())
	return cmd
}

func (a *App) describeTopicCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "describe TOPIC",
		Short: "Show what a topic keeps, and what each of its replicas has",
		Long: `Show what a topic keeps at most, which node leads it, and what each of its replicas
has. LAG is how many entries of the log that the topic shares with others of its shard
the replica still has to get from the leader. A replica hears a moment after it has an
artifact that it is stored: SEQUENCES may end a little earlier for it. A disk that is
nearly full is told beside LAG.`,
		Example: "  hubctl topics describe orders.new\n  hubctl topics describe orders.new -o json | jq .replicas",
		Args:    Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkTopic(cmd, args[0]); err != nil {
				return err
			}
			answer, err := a.askTopic(cmd.Context(), "describe", args[0], 0)
			if err != nil {
				return err
			}
			return a.show(answer, describedTopic)
		},
	}
}

func (a *App) purgeTopicCommand() *cobra.Command {
	var before uint64
	cmd := &cobra.Command{
		Use:   "purge TOPIC",
		Short: "Delete what a topic keeps",
		Long: `Delete what a topic keeps, on all nodes, or with --before only what lies before a
sequence. Sequences go on where they were. Subscribers that had not read it are
told of the gap. This can't be undone.`,
		Example: "  hubctl topics purge orders.new\n  hubctl topics purge orders.new --before 1000",
		Args:    Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkTopic(cmd, args[0]); err != nil {
				return err
			}
			if cmd.Flags().Changed("before") && before == 0 {
				return Usagef(cmd, "before 0: sequences start at 1")
			}
			answer, err := a.askTopic(cmd.Context(), "purge", args[0], wire.Sequence(before))
			if err != nil {
				return err
			}
			return a.show(answer, purgedTopic)
		},
	}
	cmd.Flags().Uint64Var(&before, "before", 0, "keep this `sequence` and what follows")
	return cmd
}

// askTopic asks the hub about a topic.
func (a *App) askTopic(ctx context.Context, question, topic string, before wire.Sequence) ([]byte, error) {
	return a.ask(ctx, "topics."+question, map[string]any{"topic": topic, "before": before})
}

// ask puts a question to the hub itself.
func (a *App) ask(ctx context.Context, question string, about any) ([]byte, error) {
	c, err := a.connect(ctx, client.WithoutBroadcast())
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }() // nothing of ours is in flight
	const patience = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	body, err := json.Marshal(about)
	if err != nil {
		return nil, err
	}
	answer, err := c.Request(ctx, systemPrefix+question, &wire.Artifact{Payload: body})
	if err != nil {
		if refusal := errors.Unwrap(err); refusal != nil { // whom we ask is nobody's business
			err = refusal
		}
		return nil, err
	}
	return answer.Payload, nil
}

// show prints an answer of the hub: as it is, or as text says it.
func (a *App) show(answer []byte, text func(answer []byte, b *bytes.Buffer) error) error {
	var b bytes.Buffer
	if a.JSON() {
		b.Write(answer)
		b.WriteByte('\n')
	} else if err := text(answer, &b); err != nil {
		return fmt.Errorf("read the hub's answer: %w", err)
	}
	_, err := a.Out.Write(b.Bytes())
	return err
}

func describedTopic(answer []byte, b *bytes.Buffer) error {
	var t struct {
		Topic         string  `json:"topic"`
		Shard         int     `json:"shard"`
		Leader        string  `json:"leader"`
		MaxArtifacts  int     `json:"maxArtifacts"`
		MaxBytes      int64   `json:"maxBytes"`
		MaxAgeSeconds float64 `json:"maxAgeSeconds"`
		Replicas      []struct {
			Node      string    `json:"node"`
			Leads     bool      `json:"leads"`
			First     uint64    `json:"first"`
			Next      uint64    `json:"next"`
			Artifacts int       `json:"artifacts"`
			Bytes     int64     `json:"bytes"`
			Oldest    time.Time `json:"oldest"`
			Lag       uint64    `json:"lag"`
			DiskFull  time.Time `json:"diskFullSince"`
		} `json:"replicas"`
	}
	if err := json.Unmarshal(answer, &t); err != nil {
		return err
	}
	if t.MaxArtifacts == 0 {
		fmt.Fprintf(b, "%s keeps no history\n", t.Topic)
		return nil
	}
	fmt.Fprintf(b, "%s keeps at most %d artifacts", t.Topic, t.MaxArtifacts)
	if t.MaxBytes > 0 {
		fmt.Fprintf(b, ", %d bytes", t.MaxBytes)
	}
	if t.MaxAgeSeconds > 0 {
		fmt.Fprintf(b, ", for %s", seconds(t.MaxAgeSeconds))
	}
	fmt.Fprintf(b, ", in shard %d", t.Shard)
	if t.Leader == "" {
		b.WriteString("; no node leads it now, a majority of its replicas can't be reached: nothing can be published")
	}
	b.WriteString("\n\n")
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "REPLICA\tSEQUENCES\tARTIFACTS\tBYTES\tOLDEST\tLAG") // a buffer takes everything
	for _, r := range t.Replicas {
		lag, sequences := strconv.FormatUint(r.Lag, 10), "-"
		if r.Leads {
			lag = "leads"
		} else if t.Leader == "" {
			lag = "-"
		}
		if !r.DiskFull.IsZero() {
			lag += ", disk full since " + ago(r.DiskFull)
		}
		if r.Artifacts > 0 {
			sequences = fmt.Sprintf("%d-%d", r.First, r.Next-1)
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%s\n", r.Node, sequences, r.Artifacts, r.Bytes, ago(r.Oldest), lag)
	}
	return w.Flush()
}

func purgedTopic(answer []byte, b *bytes.Buffer) error {
	var p struct {
		Topic     string `json:"topic"`
		Artifacts uint64 `json:"artifacts"`
		First     uint64 `json:"first"`
		Next      uint64 `json:"next"`
	}
	if err := json.Unmarshal(answer, &p); err != nil {
		return err
	}
	fmt.Fprintf(b, "%s: %d artifacts deleted", p.Topic, p.Artifacts)
	if p.First < p.Next {
		fmt.Fprintf(b, ", %d to %d are left", p.First, p.Next-1)
	}
	b.WriteByte('\n')
	return nil
}
