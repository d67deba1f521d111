package hubctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/switchboardhub/switchboard/client"
)

func (a *App) sendCommand() *cobra.Command {
	var (
		what    content
		receipt bool
	)
	cmd := &cobra.Command{
		Use:   "send CLIENT [DATA|-]",
		Short: "Send to one client by name",
		Long: `Send DATA, or with "-" the standard input, to a client, wherever in the hub it is
connected. It succeeds when the client's node has handed it over, or keeps it for a
client that lost its connection and may come back. With --receipt it succeeds when
the client is done with it.

Exit status 3: nobody has that id, or nobody came back for it; 4: no receipt within
30 seconds.`,
		Example: `  hubctl send agent-9 hello
  hubctl send agent-9 --receipt hello
  hubctl send agent-9 - --content-type application/json <order.json`,
		Args: Args(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkTarget(cmd, args[0]); err != nil {
				return err
			}
			artifact, err := what.artifact(cmd, a.In, args[1:])
			if err != nil {
				return err
			}
			return a.withClient(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				var opts []client.SendOption
				if receipt {
					opts = append(opts, client.WithReceipt())
				}
				return explainTarget(ctx, c, c.Send(ctx, args[0], artifact, opts...))
			})
		},
		ValidArgsFunction: a.completeClients,
	}
	what.flags(cmd)
	cmd.Flags().BoolVar(&receipt, "receipt", false, "wait until the client is done with it")
	return cmd
}

// withClient connects for one call.
func (a *App) withClient(ctx context.Context, f func(context.Context, *client.Client) error) error {
	c, err := a.connect(ctx, client.WithoutBroadcast())
	if err != nil {
		return err
	}
	return errors.Join(f(ctx, c), c.Close())
}

// noClientError says what a person who mistyped an id wants to know.
type noClientError struct {
	cause  *client.NoClientError
	others int // clients that are connected; negative: nobody knows
}

func (e *noClientError) Error() string {
	switch {
	case strings.HasPrefix(e.cause.ID, systemPrefix):
		return fmt.Sprintf("the hub knows no question %q; it answers $hub.clients, $hub.topics, $hub.durables, $hub.nodes, $hub.namespaces, $hub.presence and $hub.status", e.cause.ID)
	case e.others < 0:
		return fmt.Sprintf("%v; see who is connected: hubctl clients", e.cause)
	case e.others == 0:
		return fmt.Sprintf("%v; no other client is connected", e.cause)
	case e.others == 1:
		return fmt.Sprintf("%v; 1 client is connected: hubctl clients", e.cause)
	default:
		return fmt.Sprintf("%v; %d clients are connected: hubctl clients", e.cause, e.others)
	}
}

func (e *noClientError) Unwrap() error { return e.cause }

// explainTarget adds to a NoClientError who there is instead.
func explainTarget(ctx context.Context, c *client.Client, err error) error {
	cause, ok := errors.AsType[*client.NoClientError](err)
	if !ok {
		return err
	}
	explained := &noClientError{cause: cause, others: -1}
	if strings.HasPrefix(cause.ID, systemPrefix) {
		return explained // whoever is connected is no answer
	}
	if ids, err := clientIDs(ctx, c); err == nil {
		explained.others = len(ids)
	}
	return explained
}

// clientIDs returns the ids of the other clients in the hub.
func clientIDs(ctx context.Context, c *client.Client) ([]string, error) {
	const patience = 2 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answer, err := askAll(ctx, c, clientsList)
	if err != nil {
		return nil, err
	}
	var list struct {
		Clients []struct {
			ID string `json:"id"`
		} `json:"clients"`
	}
	if err := json.Unmarshal(answer, &list); err != nil {
		return nil, fmt.Errorf("read the list of clients: %w", err)
	}
	var ids []string
	for _, one := range list.Clients {
		if one.ID != c.ID() {
			ids = append(ids, one.ID)
		}
	}
	return ids, nil
}

// completeClients offers the ids of connected clients to the shell.
func (a *App) completeClients(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	var ids []string
	err := a.withClient(cmd.Context(), func(ctx context.Context, c *client.Client) error {
		var err error
		ids, err = clientIDs(ctx, c)
		return err
	})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}
