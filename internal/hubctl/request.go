package hubctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/wire"
)

// systemPrefix starts the names of what the hub itself answers.
const systemPrefix = "$hub."

func (a *App) requestCommand() *cobra.Command {
	var what content
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "request CLIENT [DATA|-]",
		Short: "Ask one client and print its answer",
		Long: `Send DATA, or with "-" the standard input, to a client and print the payload of
its answer.

Exit status 3: nobody has that id. Exit status 4: no answer within --timeout.`,
		Example: `  hubctl request agent-9 'how are you?'
  hubctl request '$hub.status' -o json`,
		Args: Args(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !strings.HasPrefix(args[0], systemPrefix) { // the hub knows what it can be asked
				if err := checkTarget(cmd, args[0]); err != nil {
					return err
				}
			}
			if timeout <= 0 {
				return Usagef(cmd, "timeout %v: want more than 0", timeout)
			}
			artifact, err := what.artifact(cmd, a.In, args[1:])
			if err != nil {
				return err
			}
			return a.request(cmd.Context(), args[0], artifact, timeout)
		},
		ValidArgsFunction: a.completeClients,
	}
	what.flags(cmd)
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Second, "how long to wait for the answer")
	return cmd
}

func (a *App) request(ctx context.Context, target string, artifact *wire.Artifact, timeout time.Duration) error {
	return a.withClient(ctx, func(ctx context.Context, c *client.Client) error {
		asking, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		answer, err := c.Request(asking, target, artifact)
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			return fmt.Errorf("no answer from %q within %v: %w", target, timeout, context.DeadlineExceeded)
		case err != nil:
			return explainTarget(ctx, c, err)
		}
		return a.printAnswer(answer)
	})
}

// printAnswer prints the payload alone in text form, for pipes.
func (a *App) printAnswer(answer *wire.Artifact) error {
	var b bytes.Buffer
	if a.JSON() {
		if err := appendJSON(&b, answer); err != nil {
			return err
		}
	} else {
		b.Write(answer.Payload)
		if n := b.Len(); n > 0 && b.Bytes()[n-1] != '\n' {
			b.WriteByte('\n')
		}
	}
	_, err := a.Out.Write(b.Bytes())
	return err
}
