package hubctl

import (
	"github.com/spf13/cobra"

	"github.com/switchboardhub/switchboard/client"
)

// Finder says where the hub is that a command's arguments name, and how to reach it.
type Finder func(cmd *cobra.Command, args []string) (server string, dial client.Dialer, err error)

// Lists returns the commands that show nodes, clients and topics, of a hub that find
// finds. Their Use is only their name.
func (a *App) Lists(find Finder) []*cobra.Command {
	nodes, clients, topics := a.listCommand(nodesList), a.clientsCommand(), a.listCommand(topicsList)
	nodes.Use, clients.Use, topics.Use = nodesList.name, clientsList.name, topicsList.name
	lists := []*cobra.Command{nodes, clients, topics}
	for _, cmd := range lists {
		list := cmd.RunE
		cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
			if a.server, a.dial, err = find(cmd, args); err != nil {
				return err
			}
			return list(cmd, nil)
		}
	}
	return lists
}
