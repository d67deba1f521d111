package hubnode

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/hubnode/directory"
	"github.com/switchboardhub/switchboard/wire"
)

func up(id wire.ClientID, epoch uint64) directory.Change {
	return directory.Change{Op: directory.ClientUp, Name: id, Epoch: epoch}
}

func down(why wire.LeaveReason) directory.Change {
	return directory.Change{Op: directory.ClientDown, Name: "x", Reason: why}
}

// What is sent to a client that has moved has to wait for what went the old way, also
// where the news that it left its node comes before the news where it is.
func TestAMoveIsSeenInWhicheverOrderItIsAnnounced(t *testing.T) {
	type news struct {
		after  time.Duration
		by     string
		change directory.Change
	}
	for name, test := range map[string]struct {
		news []news // before the last one the client is on b
		want map[string][]wire.ClientID
	}{
		"the new node's news comes first":       {[]news{{0, "c", up("x", 2)}}, map[string][]wire.ClientID{"b": {"x"}}},
		"the old node's news comes first":       {[]news{{0, "b", down(wire.LeaveReplaced)}, {0, "c", up("x", 2)}}, map[string][]wire.ClientID{"b": {"x"}}},
		"it was given up before":                {[]news{{0, "b", down(wire.LeaveDisconnected)}, {latelyTime - 1, "c", up("x", 2)}}, map[string][]wire.ClientID{"b": {"x"}}},
		"it was given up long before":           {[]news{{0, "b", down(wire.LeaveDisconnected)}, {2 * latelyTime, "c", up("x", 2)}}, nil},
		"it comes back to where it was":         {[]news{{0, "b", down(wire.LeaveDisconnected)}, {0, "b", up("x", 2)}}, nil},
		"it said goodbye, so it begins anew":    {[]news{{0, "b", down(wire.LeaveGoodbye)}, {0, "c", up("x", 2)}}, nil},
		"another node tells of an older one":    {[]news{{0, "c", up("x", 0)}}, nil},
		"another client comes":                  {[]news{{0, "b", down(wire.LeaveReplaced)}, {0, "c", up("y", 2)}}, nil},
		"it has moved on when the news is late": {[]news{{0, "c", up("x", 2)}, {0, "b", down(wire.LeaveReplaced)}, {0, "d", up("x", 3)}}, map[string][]wire.ClientID{"c": {"x"}}},
		"it was here since":                     {[]news{{0, "a", up("x", 2)}, {0, "a", down(wire.LeaveReplaced)}, {0, "c", up("x", 3)}}, map[string][]wire.ClientID{"a": {"x"}}},
		"the old node's news is very late":      {[]news{{0, "a", up("x", 2)}, {0, "a", down(wire.LeaveReplaced)}, {0, "b", down(wire.LeaveReplaced)}, {0, "c", up("x", 3)}}, map[string][]wire.ClientID{"a": {"x"}}},
	} {
		t.Run(name, func(t *testing.T) {
			v := newView(&Node{}, "a", 1)
			now := time.Unix(1_000_000_000, 0)
			versions := make(map[string]directory.Version)
			var moves map[string][]wire.ClientID
			for _, n := range append([]news{{0, "b", up("x", 1)}}, test.news...) {
				now = now.Add(n.after)
				if n.by == "a" {
					if n.change.Op == directory.ClientDown {
						v.lately.note(n.change.Name, was{"a", 2}, now) // as ClientDown does
					}
					continue
				}
				a := directory.Announcement{
					Owner: directory.Owner{Node: n.by, Incarnation: 1}, From: versions[n.by], To: versions[n.by] + 1,
					Changes: []directory.Change{n.change}, Snapshot: versions[n.by] == 0,
				}
				if a.Snapshot {
					a.Parts = 1
				}
				versions[n.by] = a.To
				v.lately.turn(now)
				moves = v.moves(a)
				result := v.table.Apply(a)
				if !result.Applied {
					t.Fatalf("not applied: %+v", a)
				}
				v.remember(result.Events, now)
			}
			if diff := cmp.Diff(test.want, moves); diff != "" {
				t.Errorf("moves (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhereClientsWereIsForgotten(t *testing.T) {
	var l lately
	now := time.Unix(1_000_000_000, 0)
	for i := range latelyMax + 1 {
		l.note(fmt.Sprint(i), was{"b", 1}, now)
	}
	if len(l.newer) != latelyMax {
		t.Errorf("%d are remembered, want %d", len(l.newer), latelyMax)
	}
	for range 2 {
		if _, ok := l.at("0"); !ok {
			t.Error("it is forgotten too early")
		}
		now = now.Add(latelyTime)
		l.turn(now)
	}
	if len(l.newer)+len(l.older) > 0 {
		t.Errorf("%d and %d are remembered for too long", len(l.newer), len(l.older))
	}
}
