package hubctl

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/wire"
)

// errListenOnly answers requests to a client that only prints.
var errListenOnly = errors.New(`this client only listens; "hubctl reply" answers`)

// errEnough is for what came after the last that was to be printed.
var errEnough = errors.New("this client has printed as many as it was asked to, and ends")

func (a *App) listenCommand() *cobra.Command {
	var count int
	var noBroadcast bool
	cmd := &cobra.Command{
		Use:   "listen",
		Short: "Be a client: print what is sent to it",
		Long: `Connect as --id and print what is sent to that client, and what is published to
"broadcast", until Ctrl-C. A second listener with the same id takes its place.`,
		Example: `  hubctl listen --id b
  hubctl listen --id b --count 1 -o json`,
		Args: Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if count < 0 {
				return Usagef(cmd, "count %d: want 1 or more", count)
			}
			return a.listen(cmd.Context(), count, noBroadcast)
		},
	}
	cmd.Flags().IntVar(&count, "count", 0, "end after `N` artifacts")
	cmd.Flags().BoolVar(&noBroadcast, "no-broadcast", false, `leave out what is published to "broadcast"`)
	return cmd
}

func (a *App) listen(ctx context.Context, count int, noBroadcast bool) error {
	named := a.id != ""
	p := a.newPrinter(count)
	opts := append(a.notices(), client.WithHandler(func(ctx context.Context, artifact *wire.Artifact) (*wire.Artifact, error) {
		switch printed := p.print(artifact); {
		case client.IsRequest(ctx):
			return nil, errListenOnly
		case !printed:
			return nil, errEnough // who wants a receipt gets none for it
		}
		return nil, nil
	}))
	if noBroadcast {
		opts = append(opts, client.WithoutBroadcast())
	} else {
		opts = append(opts, client.OnBroadcast(func(_ context.Context, artifact *wire.Artifact) error {
			p.print(artifact)
			return nil
		}))
	}
	c, err := a.connect(ctx, opts...)
	if err != nil {
		return OrInterrupted(ctx, err)
	}
	s := c.Server()
	a.Tellf("listening as %s at %s (%s)", c.ID(), s.Node, s.Address)
	if !named {
		a.Tellf("reach it with: hubctl send %s hello", c.ID())
	}
	return wait(ctx, c, p, nil, func() {})
}
