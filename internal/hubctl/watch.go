package hubctl

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/wire"
)

func (a *App) clientsCommand() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   clientsList.name,
		Short: clientsList.short,
		Long: clientsList.short + `.

PENDING is how many bytes wait for the client on its node, ROUND TRIP what its answer to
the last health check took, and DROPPED how many artifacts it was too slow for.

With --watch, who is there comes first, and then a line for each client that
joins (+), leaves (-, with the reason) or moves to another node (→), until
Ctrl-C. A client that leaves and is back within a second has moved.

With -o json the list is printed on one line; with --watch each client that is
there, and each event, on one line, with its kind and the revision.`,
		Example: "  hubctl clients\n  hubctl clients --watch\n  hubctl clients --watch -o json | jq -c 'select(.kind == \"left\")'",
		Args:    Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if watch {
				return a.watchClients(cmd.Context())
			}
			return a.list(cmd.Context(), clientsList, false, 0)
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on with joins, leaves and moves until Ctrl-C")
	return cmd
}

func (a *App) watchClients(ctx context.Context) error {
	c, err := a.connect(ctx, append(a.notices(), client.WithoutBroadcast())...)
	if err != nil {
		return OrInterrupted(ctx, err)
	}
	defer func() { _ = c.Close() }() // nothing of ours is in flight
	p := presencePrinter{out: bufio.NewWriter(a.Out), asJSON: a.JSON(), self: c.ID()}
	return OrInterrupted(ctx, c.WatchPresence(ctx, p.print))
}

// presencePrinter writes what a watcher is told, a line each. Who looks is not
// what one looks for: it leaves itself out.
type presencePrinter struct {
	out    *bufio.Writer
	asJSON bool
	self   wire.ClientID
}

func (p *presencePrinter) print(u client.PresenceUpdate) error {
	now := time.Now()
	revision := u.Revision
	for i := range u.Clients {
		one := &u.Clients[i]
		e := client.PresenceEvent{Kind: "present", Client: one.ID, Node: one.Node, Epoch: one.Epoch}
		if err := p.line(revision, &e, now); err != nil {
			return err
		}
	}
	revision.Count -= min(revision.Count, uint64(len(u.Events)))
	for i := range u.Events {
		revision.Count++
		if u.CaughtUp { // found by looking again: as of the revision, all of them
			revision.Count = u.Revision.Count
		}
		if err := p.line(revision, &u.Events[i], now); err != nil {
			return err
		}
	}
	return p.out.Flush()
}

// line writes one event. A client that is there already is one of the kind
// "present".
func (p *presencePrinter) line(at client.PresenceRevision, e *client.PresenceEvent, now time.Time) error {
	if e.Client == p.self {
		return nil
	}
	if p.asJSON {
		return json.NewEncoder(p.out).Encode(presenceLine{Time: now.UTC(), PresenceEvent: *e, Observer: at.Node, Incarnation: at.Incarnation, Revision: at.Count})
	}
	_, err := io.WriteString(p.out, presenceText(e, now)+"\n")
	return err
}

// presenceLine is an event as a line of JSON.
type presenceLine struct {
	Time time.Time `json:"time"`
	client.PresenceEvent
	Observer    string `json:"observer"` // the node that tells it, which the revision is of
	Incarnation string `json:"incarnation"`
	Revision    uint64 `json:"revision"`
}

func presenceText(e *client.PresenceEvent, now time.Time) string {
	id := readable([]byte(e.Client))
	switch e.Kind {
	case wire.PresenceJoined:
		id = fmt.Sprintf("+ %s  %s", id, e.Node)
	case wire.PresenceLeft:
		id = fmt.Sprintf("- %s  %s  %s", id, e.Node, e.Reason)
	case wire.PresenceMoved:
		id = fmt.Sprintf("→ %s  %s → %s", id, e.From, e.Node)
	default:
		id = fmt.Sprintf("  %s  %s", id, e.Node)
	}
	return now.Format("15:04:05.000") + " " + id
}
