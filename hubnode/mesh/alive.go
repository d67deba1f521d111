package mesh

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

const (
	pingTime = time.Second
	// silentPings is how many pings in a row may pass without a frame from the
	// peer, which pings as well. A hung peer is given up within one more.
	silentPings = 3
)

// alive knows whether a link's reader hears anything. A reader that is busy
// with what it heard is not listening, and blames nobody for silence.
type alive struct {
	listening atomic.Bool
	heard     atomic.Uint64 // times that something came after listening
}

func (a *alive) listen() { a.listening.Store(true) }

func (a *alive) hear() {
	a.listening.Store(false)
	a.heard.Add(1)
}

// ping says that this node lives and closes the link when the peer does not
// say so, until ctx ends.
func (l *Link) ping(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	heard, silent := l.alive.heard.Load(), 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		l.Say(wire.AppendFrame(nil, wire.Header{Kind: wire.KindPing}, "", "", nil))
		now := l.alive.heard.Load()
		if now != heard || !l.alive.listening.Load() {
			heard, silent = now, 0
			continue
		}
		if silent++; silent > silentPings {
			l.close()
			return
		}
	}
}
