package hub

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/switchboardhub/switchboard/wire"
)

// listBytes bounds a page of a list, as does the largest artifact: the answer
// has to fit into a frame.
const listBytes = 512 << 10

// clientList is a page of clients in the order of their ids.
type clientList struct {
	Clients []ClientInfo  `json:"clients"`
	Next    wire.ClientID `json:"next,omitempty"` // more follow it
}

// localPageRequest asks another node for those of its clients that follow.
type localPageRequest struct {
	After    wire.ClientID `json:"after"`
	MaxBytes int           `json:"maxBytes"`
}

// questionBody returns a copy of the payload that a client's question has.
func questionBody(f wire.Frame) []byte {
	var a wire.Artifact
	r := wire.NewRunReader(f.Body())
	if ok, err := r.Next(&a); !ok || err != nil {
		return nil
	}
	return slices.Clone(a.Payload)
}

// PageBytes returns how long a page of a list may be.
func (h *Hub) PageBytes() int { return min(listBytes, h.settings.Load().MaxArtifact) }

// everyClient lists all clients of the hub, page by page.
func (h *Hub) everyClient(ctx context.Context) ([]byte, error) {
	all := clientList{Clients: []ClientInfo{}}
	for after := ""; ; {
		page, err := h.boundedClientPage(ctx, after)
		if err != nil {
			return nil, err
		}
		all.Clients = append(all.Clients, page.Clients...)
		if after = page.Next; after == "" {
			return json.Marshal(all)
		}
	}
}

func (h *Hub) boundedClientPage(ctx context.Context, after wire.ClientID) (clientList, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	return h.clientPage(ctx, after)
}

// clientPage returns the hub's clients that follow after.
func (h *Hub) clientPage(ctx context.Context, after wire.ClientID) (clientList, error) {
	maxBytes := h.PageBytes()
	all, err := h.localClientPage(after, maxBytes)
	if err != nil {
		return clientList{}, err
	}
	h.askAll(ctx, func(ctx context.Context, node string) (func(), error) {
		var there clientList
		err := h.askJSON(ctx, node, localPrefix+systemClients, localPageRequest{after, maxBytes}, &there)
		return func() {
			all.Clients = append(all.Clients, there.Clients...)
			if there.Next != "" && (all.Next == "" || there.Next < all.Next) {
				all.Next = there.Next // what follows it is not known of that node
			}
		}, err
	})
	slices.SortFunc(all.Clients, func(a, b ClientInfo) int { return strings.Compare(a.ID, b.ID) })
	if all.Next != "" {
		all.Clients = slices.DeleteFunc(all.Clients, func(c ClientInfo) bool { return c.ID > all.Next })
	}
	return all.cut(maxBytes)
}

// cut shortens a page to maxBytes as JSON but at least one client.
func (l clientList) cut(maxBytes int) (clientList, error) {
	const wrapping = 64 + wire.MaxClientID // of the list itself
	left := maxBytes - wrapping
	for i := range l.Clients {
		text, err := json.Marshal(&l.Clients[i])
		if err != nil {
			return clientList{}, err
		}
		if left -= len(text) + 1; left < 0 && i > 0 {
			return clientList{Clients: l.Clients[:i], Next: l.Clients[i-1].ID}, nil
		}
	}
	return l, nil
}

// localClientPage returns this node's clients that follow after.
func (h *Hub) localClientPage(after wire.ClientID, maxBytes int) (clientList, error) {
	const smallest = 128 // bytes of a client in JSON: no page has more
	var following []*Client
	h.eachClient(func(c *Client) {
		if c.id > after {
			following = append(following, c)
		}
	})
	if h.awayN.Load() > 0 {
		following = append(following, h.awayAfter(after)...)
	}
	slices.SortFunc(following, func(a, b *Client) int { return strings.Compare(a.id, b.id) })
	page := clientList{Clients: []ClientInfo{}}
	if most := max(maxBytes/smallest, 1); len(following) > most {
		following = following[:most]
		page.Next = following[most-1].id
	}
	for _, c := range following {
		page.Clients = append(page.Clients, c.listed())
	}
	return page.cut(maxBytes)
}

// listed returns what a list says of the client.
func (c *Client) listed() ClientInfo {
	c.hub.mu.Lock()
	subscriptions := len(c.subs)
	c.hub.mu.Unlock()
	pending := c.PendingBytes()
	away := c.Reason() != nil && c.session != nil
	if away {
		pending = c.session.pending()
	}
	return ClientInfo{
		Away: away,
		ID:   c.id, Node: c.hub.remote.Self(), Epoch: c.epoch,
		Address: c.info.Address, Name: c.info.Name, Version: c.info.Version, Labels: c.info.Labels, TLS: c.info.TLS,
		ConnectedAt: c.since, Subscriptions: subscriptions, PendingBytes: pending,
		Identity:         c.identity(),
		RoundTripSeconds: c.RoundTrip().Seconds(), DroppedArtifacts: c.DroppedArtifacts(),
	}
}
