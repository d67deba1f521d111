package controllers

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
)

func TestPlanScale(t *testing.T) {
	for name, tt := range map[string]struct {
		view               scaleView
		settings, workload int32
		waits              bool
	}{
		"a new hub starts as it is wanted":                  {scaleView{want: 3}, 3, 3, false},
		"nothing to do":                                     {scaleView{want: 3, exists: true, running: 3, homes: 3, ready: 3, applied: true}, 3, 3, false},
		"nothing to do while a node is away":                {scaleView{want: 3, exists: true, running: 3, homes: 3, ready: 2}, 3, 3, false},
		"growing runs new nodes first":                      {scaleView{want: 5, exists: true, running: 3, homes: 3, ready: 3, applied: true}, 3, 5, true},
		"growing waits until all are ready":                 {scaleView{want: 5, exists: true, running: 5, homes: 3, ready: 4, applied: true}, 3, 5, true},
		"grown":                                             {scaleView{want: 5, exists: true, running: 5, homes: 3, ready: 5, applied: true}, 5, 5, false},
		"shrinking tells the nodes first":                   {scaleView{want: 3, exists: true, running: 5, homes: 5, ready: 3, applied: true}, 3, 5, true},
		"shrinking waits until all know":                    {scaleView{want: 3, exists: true, running: 5, homes: 3, ready: 3}, 3, 5, true},
		"shrinking waits until topics have moved":           {scaleView{want: 3, exists: true, running: 5, homes: 3, ready: 3, applied: true, moving: 2}, 3, 5, true},
		"shards on their way hold up no growing":            {scaleView{want: 5, exists: true, running: 3, homes: 3, ready: 3, applied: true, moving: 2}, 3, 5, true},
		"nor a hub that stops":                              {scaleView{want: 0, exists: true, running: 3, homes: 3, ready: 3, applied: true, moving: 2}, 0, 0, false},
		"shrunk":                                            {scaleView{want: 3, exists: true, running: 5, homes: 3, ready: 3, applied: true}, 3, 3, false},
		"growing again while shrinking":                     {scaleView{want: 5, exists: true, running: 5, homes: 3, ready: 5, applied: true}, 5, 5, false},
		"growing further while it grows":                    {scaleView{want: 7, exists: true, running: 5, homes: 3, ready: 5, applied: true}, 3, 7, true},
		"giving up to grow":                                 {scaleView{want: 3, exists: true, running: 5, homes: 3, ready: 3, applied: true}, 3, 3, false},
		"to none, at once":                                  {scaleView{want: 0, exists: true, running: 3, homes: 3, applied: true}, 0, 0, false},
		"from none, at once":                                {scaleView{want: 3, exists: true}, 3, 3, false},
		"a node that does not get ready holds up no shrink": {scaleView{want: 3, exists: true, running: 5, homes: 3, ready: 2, applied: true}, 3, 3, false},
	} {
		t.Run(name, func(t *testing.T) {
			got := planScale(tt.view)
			if got.settings != tt.settings || got.workload != tt.workload || (got.waiting != "") != tt.waits {
				t.Errorf("planScale = %+v; want settings %d, workload %d, waiting %v", got, tt.settings, tt.workload, tt.waits)
			}
		})
	}
}

func TestNodesOfAWorkloadThatIsMadeAgainStillCount(t *testing.T) {
	named := func(name string) observedNode {
		n := observedNode{}
		n.pod.Name = name
		return n
	}
	five := &appsv1.StatefulSet{Spec: appsv1.StatefulSetSpec{Replicas: new(int32(5))}}
	for name, tt := range map[string]struct {
		seen   observed
		want   int32
		exists bool
	}{
		"nothing":          {observed{}, 0, false},
		"a workload":       {observed{workload: five, nodes: []observedNode{named("a-node-0")}}, 5, true},
		"none, but nodes":  {observed{nodes: []observedNode{named("a-node-0"), named("a-node-3")}}, 4, true},
		"a workload alone": {observed{workload: five}, 5, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got, exists := tt.seen.asked(); got != tt.want || exists != tt.exists {
				t.Errorf("asked = %d, %v; want %d, %v", got, exists, tt.want, tt.exists)
			}
		})
	}
}
