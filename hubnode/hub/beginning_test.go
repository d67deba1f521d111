package hub_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/wire"
)

// hesitant is a keeper that takes its time to say what it leads.
type hesitant struct {
	elsewhere
	asked   atomic.Int32
	release chan struct{}
}

func (h *hesitant) Led(context.Context, func(string, history.Bounds)) ([]int, error) {
	h.asked.Add(1)
	<-h.release
	return nil, nil
}

// Each look for the start of a subscription takes a goroutine and questions to all nodes. Whoever
// asks for many at a time waits, also when it does not want the subscriptions any more.
func TestSubscriptionsBeginAFewAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &hesitant{release: make(chan struct{})}
		h := start(t, hub.WithRemote(elsewhere{}), hub.WithKeeper(k), hub.WithHistory("kept.>", 10))
		p := join(t, h, "greedy")
		const all, aside = 200, 64
		go func() {
			for i := range uint32(all) {
				p.write(control(wire.KindSubscribe, i+1, fmt.Sprintf("kept.%d.>", i), wire.Subscription{}))
				p.write(control(wire.KindUnsubscribe, i+1, "", nil))
			}
		}()
		synctest.Wait()
		if n := k.asked.Load(); n != aside+1 { // and one by the goroutine that reads from the client
			t.Errorf("%d are looked for at a time, want %d", n, aside+1)
		}
		close(k.release)
		synctest.Wait()
		if n := k.asked.Load(); n != all {
			t.Errorf("%d were looked for, want %d", n, all)
		}
	})
}

// An epoch is a client's word; whatever it says, the next one's is higher.
func TestEpochsDoNotRunOver(t *testing.T) {
	h := start(t)
	var before uint64
	for _, said := range []uint64{1<<64 - 1, 1<<64 - 2, 0, 1<<64 - 1} {
		join(t, h, "twin", hub.WithEpoch(said))
		c, _ := h.Client("twin")
		if c.Epoch() <= before {
			t.Errorf("epoch %d behind %d", c.Epoch(), before)
		}
		before = c.Epoch()
	}
}
