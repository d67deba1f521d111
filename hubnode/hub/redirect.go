package hub

import (
	"slices"

	"github.com/switchboardhub/switchboard/wire"
)

// Redirect asks every client to go to one of the addresses, best first for
// each: they are turned by one place from client to client, so that the
// clients spread. The connections stay as they are.
func (h *Hub) Redirect(addresses []string) {
	turn := 0
	h.eachClient(func(c *Client) {
		order := addresses
		if n := len(order); n > 0 {
			order = slices.Concat(order[turn%n:], order[:turn%n])
		}
		turn++
		c.pushControl(nil, wire.AppendControl(nil, wire.Header{Kind: wire.KindDrain}, "", wire.Redirect{Addresses: order}))
	})
}
