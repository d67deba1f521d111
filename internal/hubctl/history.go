package hubctl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/wire"
)

type historyFlags struct {
	from string
	to   uint64
	last int
}

func (a *App) historyCommand() *cobra.Command {
	var f historyFlags
	cmd := &cobra.Command{
		Use:   "history TOPIC",
		Short: "Print what a topic keeps",
		Long: `Print what a topic keeps, oldest first, and end with the newest that was there
when the command began. No pattern and no subscription: to go on with what is
published later use "hubctl sub --since".

What retention took from the range is told on the standard error.`,
		Example: `  hubctl history orders.new
  hubctl history orders.new --from 100 --to 199 -o json | jq .payload
  hubctl history orders.new --from 15m
  hubctl history orders.new --last 10`,
		Args: Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkTopic(cmd, args[0]); err != nil {
				return err
			}
			r, err := f.parse(cmd)
			if err != nil {
				return err
			}
			return a.history(cmd.Context(), args[0], r)
		},
	}
	cmd.Flags().StringVar(&f.from, "from", "", "`first` sequence, or an age such as 15m; the oldest that is kept when empty")
	cmd.Flags().Uint64Var(&f.to, "to", 0, "`last` sequence; the newest when 0")
	cmd.Flags().IntVar(&f.last, "last", 0, "only the newest `N`")
	return cmd
}

func (f *historyFlags) parse(cmd *cobra.Command) (client.Range, error) {
	r := client.Range{To: wire.Sequence(f.to), Last: f.last}
	if f.last < 0 {
		return r, Usagef(cmd, "last %d: want 1 or more", f.last)
	}
	if f.from != "" {
		var wrong string
		if r.From, r.Age, wrong = parsePlace(f.from); wrong != "" {
			return r, Usagef(cmd, "from %q: %s", f.from, wrong)
		}
	}
	if r.To != 0 && r.To < r.From {
		return r, Usagef(cmd, "from %d to %d: nothing lies between", r.From, r.To)
	}
	return r, nil
}

func (a *App) history(ctx context.Context, topic string, r client.Range) error {
	c, err := a.connect(ctx, client.WithoutBroadcast())
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // nothing of ours is in flight
	// Whoever reads a page at a time is patient for each, not for all of them.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	overdue := time.AfterFunc(pagePatience, func() { cancel(context.DeadlineExceeded) })
	defer overdue.Stop()
	p, empty := a.newPrinter(0), true
	for artifact, err := range c.History(ctx, topic, r) {
		overdue.Reset(pagePatience)
		if gap, ok := errors.AsType[*client.HistoryGapError](err); ok {
			a.Tellf("gap: %v", gap)
			continue
		}
		if err != nil {
			if cause := context.Cause(ctx); errors.Is(cause, context.DeadlineExceeded) {
				return fmt.Errorf("no answer within %v: %w", pagePatience, errors.Join(cause, err))
			}
			return err
		}
		empty = false
		p.print(artifact)
		if err := p.failure(); err != nil {
			return err
		}
	}
	if empty {
		a.Tellf("nothing of that is kept on %q", topic)
	}
	return nil
}

// pagePatience is how long a command waits for the next page of history.
const pagePatience = 30 * time.Second
