package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/switchboardhub/switchboard/test/ports"
)

func key(n byte) []byte { return bytes.Repeat([]byte{n}, 32) }

func keys(numbers ...byte) (all [][]byte) {
	for _, n := range numbers {
		all = append(all, key(n))
	}
	return all
}

func TestKeysFollowThoseTheyHaveInCommon(t *testing.T) {
	for name, tt := range map[string]struct {
		from, to [][]byte
		want     error
	}{
		"one more":                         {keys(1), keys(1, 2), nil},
		"the other one is used":            {keys(1, 2), keys(2, 1), nil},
		"the old one goes":                 {keys(2, 1), keys(2), nil},
		"the same":                         {keys(1, 2), keys(1, 2), nil},
		"back":                             {keys(2, 1), keys(1, 2), nil},
		"one more, used at once":           {keys(1), keys(2, 1), nil},
		"the second one alone":             {keys(1, 2), keys(2), nil},
		"another one than was on its way":  {keys(1, 2), keys(1, 3), nil},
		"a third one, used with the first": {keys(1, 2), keys(3, 1), nil},
		"the second one with a third":      {keys(1, 2), keys(2, 3), nil},
		"another one":                      {keys(1), keys(2), ErrOtherKeys},
		"two others":                       {keys(1), keys(2, 3), ErrOtherKeys},
		"another one with what is not used": {
			keys(1, 2), keys(3, 2), ErrOtherKeys,
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := ports.Free(t)
			n := startWith(t, "hub", "node-0", 1, a, tt.from, a)
			if err := n.SetKeys(tt.to); !errors.Is(err, tt.want) {
				t.Errorf("SetKeys = %v, want %v", err, tt.want)
			}
			want := tt.to
			if tt.want != nil {
				want = tt.from
			}
			if !slices.EqualFunc(n.Keys(), want, bytes.Equal) {
				t.Errorf("keys are %d, want %d", n.Keys(), want)
			}
		})
	}
	a := ports.Free(t)
	if n := start(t, "hub", "node-0", 1, a, nil, a); n.SetKeys(keys(1)) == nil || len(n.Keys()) > 0 {
		t.Error("plain gossip is encrypted while it runs")
	}
}

// Nodes that are one step apart understand each other, in each step.
func TestNodesStayTogetherWhileKeysRotate(t *testing.T) {
	addrs := []string{ports.Free(t), ports.Free(t), ports.Free(t), ports.Free(t), ports.Free(t)}
	var nodes []*node
	for i, addr := range addrs[:3] {
		nodes = append(nodes, startWith(t, "hub", fmt.Sprintf("node-%d", i), 1, addr, keys(1), addrs...))
	}
	for _, n := range nodes {
		n.waitFor(t, "two others", size(2))
	}
	states := []State{Active, Draining}
	for step, ring := range [][][]byte{keys(1, 2), keys(2, 1), keys(2)} {
		for i, n := range nodes {
			if err := n.SetKeys(ring); err != nil {
				t.Fatal(err)
			}
			// What one says while others are a step behind is heard by all, and the
			// other way round.
			for by, speaker := range nodes {
				state := states[(step*3+i)%2]
				speaker.Become(state)
				for j, listener := range nodes {
					if j != by {
						listener.waitFor(t, "news of another node", func(m []Member) bool {
							at := slices.IndexFunc(m, func(m Member) bool { return m.Name == speaker.cfg.Self.Name })
							return len(m) == 2 && m[at].State == state
						})
					}
				}
			}
		}
	}
	startWith(t, "hub", "node-3", 1, addrs[3], keys(1), addrs...)
	startWith(t, "hub", "node-4", 1, addrs[4], keys(2), addrs...)
	for _, n := range nodes {
		n.waitFor(t, "who has the new key, alone", func(m []Member) bool { return len(m) == 3 && m[2].Name == "node-4" })
	}
}
