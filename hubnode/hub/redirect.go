package hub

import (
	"context"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

// redirectStep is how long Redirect rests between one lot of clients and the next.
const redirectStep = 10 * time.Millisecond

// Redirect asks up to most clients, at most perSecond of them in a second, to go
// to the addresses that next names for each, best first. It returns how many it
// asked, once it has or ctx has ended. The connections stay as they are.
func (h *Hub) Redirect(ctx context.Context, most, perSecond int, next func() []string) (asked int) {
	lot := max(1, perSecond*int(redirectStep/time.Millisecond)/1000)
	tick := time.NewTicker(redirectStep)
	defer tick.Stop()
	h.clients.Range(func(_, v any) bool {
		if asked == most {
			return false
		}
		c, _ := v.(*Client)
		c.pushControl(nil, wire.AppendControl(nil, wire.Header{Kind: wire.KindDrain}, "", wire.Redirect{Addresses: next()}))
		if asked++; asked%lot != 0 {
			return true
		}
		select {
		case <-tick.C:
			return true
		case <-ctx.Done():
			return false
		}
	})
	return asked
}
