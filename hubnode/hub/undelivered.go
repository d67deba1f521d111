package hub

import (
	"fmt"
	"slices"

	"github.com/switchboardhub/switchboard/wire"
)

// UndeliveredError says which receivers of an artifact could not be given it,
// while others may have got it. They will not get it later.
type UndeliveredError struct {
	// Clients had no room in their queue, and the policy for slow clients was
	// applied to them. Of a group there is one when no member had room.
	Clients []wire.ClientID
	// Nodes have a link that is full, and subscribers or the client that the
	// artifact is for.
	Nodes []string
}

func (e *UndeliveredError) Error() string {
	switch {
	case len(e.Nodes) == 0:
		return fmt.Sprintf("no room for it with %s", few("clients", e.Clients))
	case len(e.Clients) == 0:
		return fmt.Sprintf("no room for it on the links to %s", few("nodes", e.Nodes))
	default:
		return fmt.Sprintf("no room for it with %s, nor on the links to %s", few("clients", e.Clients), few("nodes", e.Nodes))
	}
}

// few names as many as a line of a log can bear.
func few(what string, names []string) string {
	const most = 5
	if len(names) > most {
		return fmt.Sprintf("%d %s, among them %q", len(names), what, names[:most])
	}
	return fmt.Sprintf("%s %q", what, names)
}

// undelivered gathers what an [UndeliveredError] says. A nil one gathers
// nothing: nobody wants to know.
type undelivered struct {
	clients []wire.ClientID
	links   []Link
}

func (u *undelivered) client(id wire.ClientID) {
	if u != nil {
		u.clients = append(u.clients, id)
	}
}

func (u *undelivered) link(links ...Link) {
	if u != nil {
		u.links = append(u.links, links...)
	}
}

// err returns nil when everyone could be given it.
func (u *undelivered) err(peers map[string]Link) error {
	if len(u.clients)+len(u.links) == 0 {
		return nil
	}
	slices.Sort(u.clients) // one has several subscriptions
	e := &UndeliveredError{Clients: slices.Compact(u.clients)}
	for node, link := range peers {
		if slices.Contains(u.links, link) {
			e.Nodes = append(e.Nodes, node)
		}
	}
	slices.Sort(e.Nodes)
	return e
}
