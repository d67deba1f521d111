package hub_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/wire"
)

// A target may have 64 KiB, and who may do nothing may try a thousand of them.
func TestTargetsThatAreTooLongAreNotRemembered(t *testing.T) {
	h := start(t)
	a := join(t, h, "a", hub.WithPermit(&hub.Permit{Identity: "x", Allows: func(wire.Action, string) bool { return false }}))
	long := strings.Repeat("x", 60<<10)
	used := func() int {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	before, answered := used(), 0
	for ref := range uint32(500) {
		a.write(frame(wire.KindSend, wire.FlagAck, ref+1, fmt.Sprintf("%d%s", ref, long), "a", "x"))
		answered = max(answered, len(a.expectFault(wire.KindError, ref+1, wire.CodePermission).Detail))
	}
	if grown := used() - before; grown > 8<<20 {
		t.Errorf("one client that may send to nobody makes the hub hold %d MiB", grown>>20)
	}
	if answered > 4<<10 {
		t.Errorf("it is answered with %d bytes", answered)
	}
}
