package controllers

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/switchboardhub/switchboard/hubnode/config"
)

func TestLinksRequireTLSOnceAllNodesSpeakIt(t *testing.T) {
	node := func(ready bool, links config.TLSPolicy) observedNode {
		return observedNode{ready: ready, report: NodeReport{Hub: "h", ClusterTLS: links}}
	}
	speaks, required, before, off := node(true, config.TLSOptional), node(true, config.TLSRequired), node(true, ""), node(true, config.TLSDisabled)
	silent := node(false, "")
	for name, tt := range map[string]struct {
		nodes   []observedNode
		leaving int
		want    int32
		already bool
		can     bool
	}{
		"a Hub without nodes":                 {nil, 0, 3, false, false},
		"all speak it":                        {[]observedNode{speaks, speaks}, 0, 2, false, true},
		"some require it":                     {[]observedNode{required, speaks}, 0, 2, false, true},
		"one has not said":                    {[]observedNode{speaks, silent}, 0, 2, false, false},
		"one is missing":                      {[]observedNode{speaks}, 0, 2, false, false},
		"one that leaves may be of before":    {[]observedNode{speaks, speaks}, 1, 2, false, false},
		"one is of before":                    {[]observedNode{speaks, before}, 0, 2, false, false},
		"one has it off":                      {[]observedNode{speaks, off}, 0, 2, false, false},
		"required, and one does not answer":   {[]observedNode{required, silent}, 0, 2, true, true},
		"required, and one is replaced":       {[]observedNode{required}, 1, 2, true, true},
		"required, scaled to none":            {nil, 0, 0, true, true},
		"required, and one of before is back": {[]observedNode{required, before}, 0, 2, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			o := observed{nodes: tt.nodes, leaving: make([]corev1.Pod, tt.leaving), requiresClusterTLS: tt.already}
			if got := o.canRequireClusterTLS(tt.want); got != tt.can {
				t.Errorf("can require it: %v, want %v", got, tt.can)
			}
		})
	}
}
