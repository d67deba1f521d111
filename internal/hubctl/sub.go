package hubctl

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/wire"
)

type subFlags struct {
	since   string
	filter  string
	group   string
	count   int
	durable durableFlags
}

type durableFlags struct {
	name          string
	shared        bool
	ackWait       time.Duration
	maxDeliveries int
	deadLetter    string
}

func (a *App) subCommand() *cobra.Command {
	var f subFlags
	cmd := &cobra.Command{
		Use:   "sub TOPIC…",
		Short: "Subscribe to topics and print what is published",
		Long: `Subscribe to topics or patterns and print each artifact on a line, until Ctrl-C.
Further lines of a payload are indented; -o json has none.
In a pattern, * stands for one token and > for all that follow.

The connection is made again when it is lost; on topics with history nothing is
missed then. What retention took is told on the standard error.

With --durable the hub keeps the position under that name: the next one to subscribe
by it goes on there. What is printed is done. With --shared several clients work on
the same topic at a time, each on artifacts of its own. With --filter what doesn't match
is settled without being given out; the filter of a subscription never changes.`,
		Example: `  hubctl sub orders.new
  hubctl sub 'orders.>' 'audit.*' --since all
  hubctl sub orders.new --since 15m -o json | jq .payload
  hubctl sub jobs --group workers --count 10
  hubctl sub orders.new --durable billing
  hubctl sub jobs --durable workers --shared --max-deliveries 5 --dead-letter jobs.dead`,
		Args: Args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts, err := f.options(cmd, args)
			if err != nil {
				return err
			}
			if f.group != "" && f.since != "new" && f.since != "" {
				a.Tellf("--since has no effect with --group: a group shares what is published from now on; --durable with --shared shares what was published before, too")
			}
			return a.sub(cmd.Context(), args, f.count, f.durable.name != "", opts)
		},
	}
	cmd.Flags().StringVar(&f.since, "since", "new", "where to `start` on topics with history: all, last, new, a sequence, or an age such as 15m")
	cmd.Flags().StringVar(&f.filter, "filter", "", "`CEL` expression over the artifact; what doesn't match is left out")
	cmd.Flags().StringVar(&f.group, "group", "", "`name` of a group whose members share the artifacts")
	cmd.Flags().IntVar(&f.count, "count", 0, "end after `N` artifacts")
	cmd.Flags().StringVar(&f.durable.name, "durable", "", "keep the position of one topic in the hub, under this `name`; a new one starts at all unless --since says otherwise")
	cmd.Flags().BoolVar(&f.durable.shared, "shared", false, "with --durable: share the artifacts with other clients")
	cmd.Flags().DurationVar(&f.durable.ackWait, "ack-wait", wire.DefaultAckWait, "with --durable: `time` after which the artifacts of a client that is gone are given to others")
	cmd.Flags().IntVar(&f.durable.maxDeliveries, "max-deliveries", 0, "with --durable: give an artifact up that was given out `N` times; 0: never")
	cmd.Flags().StringVar(&f.durable.deadLetter, "dead-letter", "", "with --max-deliveries: the `topic` for those; without it they are dropped")
	return cmd
}

func (f *subFlags) options(cmd *cobra.Command, patterns []string) ([]client.SubscribeOption, error) {
	for _, pattern := range patterns {
		if err := checkPattern(cmd, pattern); err != nil {
			return nil, err
		}
	}
	if f.count < 0 {
		return nil, Usagef(cmd, "count %d: want 1 or more", f.count)
	}
	since, wrong := parseSince(f.since)
	if wrong != "" {
		return nil, Usagef(cmd, "since %q: %s", f.since, wrong)
	}
	var opts []client.SubscribeOption
	if since != nil {
		opts = append(opts, since)
	}
	if f.filter != "" {
		opts = append(opts, client.Filter(f.filter))
	}
	if f.group != "" {
		if err := checked(cmd, f.group, wire.CheckGroup); err != nil {
			return nil, err
		}
		opts = append(opts, client.Group(f.group))
	}
	durable, err := f.durable.options(cmd, patterns, f)
	return append(opts, durable...), err
}

// parseSince reads the flag; wrong says what is wrong with it.
func parseSince(text string) (opt client.SubscribeOption, wrong string) {
	switch text {
	case "new", "":
		return nil, ""
	case "all":
		return client.SinceAll(), ""
	case "last":
		return client.SinceLast(), ""
	}
	seq, age, wrong := parsePlace(text)
	switch {
	case wrong == notAPlace:
		return nil, "want all, last, new, a sequence, or an age such as 15m"
	case wrong != "":
		return nil, wrong
	case seq != 0:
		return client.Since(seq), ""
	}
	return client.SinceAge(age), ""
}

const notAPlace = "want a sequence, or an age such as 15m"

// parsePlace reads a place in a topic's history: a sequence, or an age. wrong says
// what is wrong with it.
func parsePlace(text string) (seq wire.Sequence, age time.Duration, wrong string) {
	if strings.Trim(text, "0123456789") == "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil || n == 0 {
			return 0, 0, "sequences start at 1"
		}
		return wire.Sequence(n), 0, ""
	}
	age, err := time.ParseDuration(text)
	if err != nil || age <= 0 {
		return 0, 0, notAPlace
	}
	return 0, age, ""
}

func (a *App) sub(ctx context.Context, patterns []string, count int, durable bool, opts []client.SubscribeOption) error {
	p := a.newPrinter(count)
	c, err := a.connect(ctx, append(a.notices(), client.WithoutBroadcast())...)
	if err != nil {
		return OrInterrupted(ctx, err)
	}
	ending := make(chan struct{})
	handler := func(_ context.Context, artifact *wire.Artifact) error {
		if p.print(artifact) || !durable {
			return nil
		}
		<-ending // not before: it would come again
		return client.ErrGiveBack
	}
	opts = append(opts, client.OnGap(func(gap *client.HistoryGapError) { a.Tellf("gap: %v", gap) }))
	ended := make(chan error, len(patterns))
	for _, pattern := range patterns {
		s, err := c.Subscribe(ctx, pattern, handler, opts...)
		if err != nil {
			close(ending)
			_ = c.Close() // the subscription's error is the one that matters
			return OrInterrupted(ctx, err)
		}
		go func() { // until the client is closed
			<-s.Done()
			ended <- s.Err()
		}()
	}
	s := c.Server()
	a.Tellf("subscribed to %s at %s (%s)", strings.Join(patterns, " "), s.Node, s.Address)
	return wait(ctx, c, p, ended, func() { close(ending) })
}

// wait waits until a command that prints is interrupted or has printed enough,
// or its client ends, or one of its subscriptions, which ended gives the error of. It
// calls ending before it closes the client.
func wait(ctx context.Context, c *client.Client, p *printer, ended <-chan error, ending func()) error {
	select {
	case <-ctx.Done():
		ending()
		_ = c.Close() // nothing of ours is in flight
		return nil
	case <-p.done:
		ending()
		_ = c.Close() // nothing of ours is in flight
		return p.failure()
	case <-c.Done():
		ending()
		return c.Err()
	case err := <-ended:
		ending()
		if closed := c.Err(); closed != nil {
			return closed
		}
		_ = c.Close() // nothing of ours is in flight
		return err
	}
}

// OrInterrupted makes an interrupt the orderly end of a command that would
// otherwise run forever.
func OrInterrupted(ctx context.Context, err error) error {
	select {
	case <-ctx.Done():
		return nil
	default:
		return err
	}
}
