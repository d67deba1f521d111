package hub_test

import (
	"testing"

	"github.com/switchboardhub/switchboard/wire"
)

// An answer goes after its client, which may have moved on once more when it comes.
func TestAnAnswerFollowsAClientThatMovedTwice(t *testing.T) {
	for name, deaf := range map[string]bool{"and the directory knows": false, "and the directory has not heard": true} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, "a", []string{"a", "b", "c"})
			asker := join(t, c.nodes["c"].Hub, "asker")
			c.setDeaf(deaf)
			late := c.nodes["b"].Inbound("a")
			for _, id := range []string{"nobody", "asker"} { // who is nowhere is not looked for again and again
				late.Take(wire.AppendFrame(nil, wire.Header{Kind: wire.KindAck, Flags: wire.FlagHop, Count: 1, Ref: 7}, id, "", nil), nil)
			}
			late.Flush()
			if f := asker.expect(wire.KindAck, 7); f.Flags()&wire.FlagHop != 0 {
				t.Errorf("it shows how it came: %v", f)
			}
			asker.quiet()
		})
	}
}
