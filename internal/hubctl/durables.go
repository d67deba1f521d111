package hubctl

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/wire"
)

func (a *App) durablesCommand() *cobra.Command {
	cmd := a.listCommand(durablesList)
	cmd.Example += "\n  hubctl durables jobs                      # of one topic"
	cmd.AddCommand(&cobra.Command{
		Use:   "delete TOPIC NAME",
		Short: "Delete a durable subscription and its position",
		Long: `Delete a durable subscription and its position. The topic keeps its artifacts. A
client that has the subscription begins a new one. This can't be undone.

It takes a rule with admin: Manage. A client of a namespace that has names of its own
needs the rights to subscribe to the topic and to read its history instead.`,
		Example: "  hubctl durables delete jobs workers",
		Args:    Args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cmp.Or(checkTopic(cmd, args[0]), checkDurable(cmd, &wire.Fetch{Name: args[1]})); err != nil {
				return err
			}
			answer, err := a.ask(cmd.Context(), "durables.delete", map[string]string{"topic": args[0], "name": args[1]})
			if err != nil {
				return err
			}
			return a.show(answer, func(_ []byte, b *bytes.Buffer) error {
				fmt.Fprintf(b, "%s of %s deleted\n", args[1], args[0])
				return nil
			})
		},
	})
	return cmd
}

func durableRows(answer []byte, _ wire.ClientID, row func(...string)) error {
	var l struct {
		Durables []wire.DurableInfo `json:"durables"`
	}
	if err := json.Unmarshal(answer, &l); err != nil {
		return err
	}
	for _, d := range l.Durables {
		row(d.Topic, d.Name, strconv.FormatBool(d.Policy.Shared), strconv.FormatUint(uint64(d.Position), 10), strconv.FormatUint(d.Pending, 10),
			strconv.Itoa(d.InFlight), strconv.Itoa(d.Redelivered), strconv.FormatUint(d.Lost, 10), orDash(strings.Join(d.Members, " ")), ago(d.Used), orDash(d.Policy.Filter))
	}
	return nil
}

// durablesMissing says that some may be missing in the list.
func durablesMissing(answer []byte) string {
	var l struct {
		Incomplete bool `json:"incomplete"`
	}
	if json.Unmarshal(answer, &l) != nil {
		return "" // the table has said so
	}
	return incomplete(l.Incomplete, "durable subscriptions")
}

// checkDurable returns an error of usage for what no hub takes.
func checkDurable(cmd *cobra.Command, f *wire.Fetch) error {
	if err := f.Check(); err != nil {
		return Usagef(cmd, "%w", uncoded(err))
	}
	return nil
}

// check returns an error of usage unless there can be such a subscription to each topic.
func (f *durableFlags) check(cmd *cobra.Command, topics []string) error {
	for _, name := range topics {
		if err := checkTopic(cmd, name); err != nil {
			return err
		}
		if name == f.deadLetter {
			return Usagef(cmd, "topic %q can't be its own dead-letter topic", name)
		}
	}
	if f.deadLetter != "" {
		if err := checkTopic(cmd, f.deadLetter); err != nil {
			return err
		}
	}
	return checkDurable(cmd, &wire.Fetch{
		Name: f.name, Policy: wire.DurablePolicy{AckWait: f.ackWait, MaxDeliveries: f.maxDeliveries, DeadLetter: f.deadLetter},
	})
}

// options returns the options of a durable subscription to topics; none when it isn't one.
func (f *durableFlags) options(cmd *cobra.Command, topics []string, sub *subFlags) ([]client.SubscribeOption, error) {
	if f.name == "" {
		for _, flag := range []string{"shared", "ack-wait", "max-deliveries", "dead-letter"} {
			if cmd.Flags().Changed(flag) {
				return nil, Usagef(cmd, "--%s is for a subscription with --durable", flag)
			}
		}
		return nil, nil
	}
	switch {
	case sub.group != "":
		return nil, Usagef(cmd, "--durable does not go with --group: clients share with --shared")
	case f.maxDeliveries < 0:
		return nil, Usagef(cmd, "max-deliveries %d: want 1 or more", f.maxDeliveries)
	case f.deadLetter != "" && f.maxDeliveries == 0:
		return nil, Usagef(cmd, "--dead-letter has no meaning without --max-deliveries")
	}
	if err := f.check(cmd, topics); err != nil {
		return nil, err
	}
	opts := []client.SubscribeOption{
		client.Durable(f.name), client.AckWait(f.ackWait), client.MaxDeliveries(f.maxDeliveries, f.deadLetter),
	}
	if f.shared {
		opts = append(opts, client.Shared())
	}
	if cmd.Flags().Changed("since") && sub.since == "new" {
		opts = append(opts, client.SinceNew())
	}
	if sub.count > 0 { // what is not printed is for others
		opts = append(opts, client.Prefetch(min(sub.count, client.DefaultPrefetch)))
	}
	return opts, nil
}
