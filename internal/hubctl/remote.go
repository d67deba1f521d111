package hubctl

import (
	"crypto/tls"

	"github.com/spf13/cobra"

	"github.com/switchboardhub/switchboard/client"
)

// Place is where a hub is, and how to reach it.
type Place struct {
	Server string
	Dial   client.Dialer
	TLS    *tls.Config // nil: it has none
}

// Finder finds the hub that a command's arguments name.
type Finder func(cmd *cobra.Command, args []string) (Place, error)

// Lists returns the commands that show nodes, clients, topics and namespaces, of a hub that find
// finds. Their Use is only their name.
func (a *App) Lists(find Finder) []*cobra.Command {
	nodes, clients, topics, namespaces := a.listCommand(nodesList), a.clientsCommand(), a.listCommand(topicsList), a.listCommand(namespacesList)
	nodes.Use, clients.Use, topics.Use, namespaces.Use = nodesList.name, clientsList.name, topicsList.name, namespacesList.name
	lists := []*cobra.Command{nodes, clients, topics, namespaces}
	for _, cmd := range lists {
		list := cmd.RunE
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			place, err := find(cmd, args)
			if err != nil {
				return err
			}
			a.server, a.dial, a.tls = place.Server, place.Dial, place.TLS
			return list(cmd, nil)
		}
	}
	return lists
}
