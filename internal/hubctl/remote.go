package hubctl

import (
	"context"
	"crypto/tls"

	"github.com/spf13/cobra"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/wire"
)

// Place is a hub, and the two ways to reach it.
type Place struct {
	// Ask returns a list that the hub gives, as JSON, to somebody who is no client of it. It
	// bounds how long that takes.
	Ask func(ctx context.Context, list string) ([]byte, error)
	// Door finds where clients come in.
	Door func(ctx context.Context) (Door, error)
}

// Door is where clients of a hub come in.
type Door struct {
	Server string
	Dial   client.Dialer
	TLS    *tls.Config // nil: it has none
}

// Finder finds the hub that a command's arguments name.
type Finder func(cmd *cobra.Command, args []string) (Place, error)

// Lists returns the commands that show nodes, clients, topics, durable subscriptions and
// namespaces, of a hub that find finds. Their Use is only their name. They are clients of it when
// they say who they are by a token or a certificate, and to watch clients, which others are not
// told of.
func (a *App) Lists(find Finder) []*cobra.Command {
	lists := a.toHub(a.listCommand(nodesList), a.clientsCommand(), a.listCommand(topicsList), a.listCommand(durablesList), a.listCommand(namespacesList))
	for _, cmd := range lists {
		cmd.Use = cmd.Name()
		list := cmd.RunE
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			place, err := find(cmd, args)
			if err != nil {
				return err
			}
			a.place = &place
			return list(cmd, nil)
		}
	}
	return lists
}

// source is whom a list is asked of.
type source struct {
	ask  func(ctx context.Context, l list) ([]byte, error)
	self wire.ClientID   // the client that asks; empty when none does
	gone <-chan struct{} // closed when it can't be asked any more; nil: it always can
	why  func() error    // after gone
}

// source returns whom lists are asked of, and what ends the asking.
func (a *App) source(ctx context.Context, opts ...client.Option) (s source, end func(), err error) {
	if a.place != nil && a.tokenFile == "" && a.certFile == "" && a.keyFile == "" {
		return source{ask: func(ctx context.Context, l list) ([]byte, error) { return a.place.Ask(ctx, l.name) }}, func() {}, nil
	}
	c, err := a.connect(ctx, append(opts, client.WithoutBroadcast())...)
	if err != nil {
		return s, nil, err
	}
	s = source{
		ask:  func(ctx context.Context, l list) ([]byte, error) { return askAll(ctx, c, l) },
		self: c.ID(), gone: c.Done(), why: c.Err,
	}
	return s, func() { _ = c.Close() }, nil // nothing of ours is in flight
}
