package controllers

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/switchboardhub/switchboard/controllers/manifests"
	"github.com/switchboardhub/switchboard/hubnode/config"
)

func TestPlanKeys(t *testing.T) {
	old, next, other := []byte("old"), []byte("next"), []byte("other")
	keys := func(keys ...[]byte) [][]byte { return keys }
	waits := []string{"node-1"}
	for name, tt := range map[string]struct {
		view gossipView
		want gossipPlan
	}{
		"nothing is asked for":                   {gossipView{keys: keys(old)}, gossipPlan{keys: keys(old)}},
		"asked":                                  {gossipView{keys: keys(old), asked: true}, gossipPlan{keys: keys(old), phase: manifests.KeyAsked}},
		"asked, and nodes can't follow":          {gossipView{keys: keys(old), phase: manifests.KeyAsked, unconfirmed: waits}, gossipPlan{keys: keys(old), phase: manifests.KeyAsked}},
		"the new one is added":                   {gossipView{keys: keys(old), phase: manifests.KeyAsked}, gossipPlan{keys: keys(old, next), phase: manifests.KeyAdd}},
		"in place of one that nobody uses":       {gossipView{keys: keys(old, other), phase: manifests.KeyAsked}, gossipPlan{keys: keys(old, next), phase: manifests.KeyAdd}},
		"not all accept it":                      {gossipView{keys: keys(old, next), phase: manifests.KeyAdd, unconfirmed: waits}, gossipPlan{keys: keys(old, next), phase: manifests.KeyAdd}},
		"all accept it":                          {gossipView{keys: keys(old, next), phase: manifests.KeyAdd}, gossipPlan{keys: keys(next, old), phase: manifests.KeyUse}},
		"somebody has taken it out":              {gossipView{keys: keys(old), phase: manifests.KeyAdd}, gossipPlan{keys: keys(old), phase: manifests.KeyAsked}},
		"not all use it":                         {gossipView{keys: keys(next, old), phase: manifests.KeyUse, unconfirmed: waits}, gossipPlan{keys: keys(next, old), phase: manifests.KeyUse}},
		"all use it":                             {gossipView{keys: keys(next, old), phase: manifests.KeyUse}, gossipPlan{keys: keys(next), phase: manifests.KeyRemove}},
		"some still accept the old one":          {gossipView{keys: keys(next), phase: manifests.KeyRemove, unconfirmed: waits}, gossipPlan{keys: keys(next), phase: manifests.KeyRemove}},
		"nobody does":                            {gossipView{keys: keys(next), phase: manifests.KeyRemove}, gossipPlan{keys: keys(next), finished: true}},
		"asked while one is under way":           {gossipView{keys: keys(old, next), phase: manifests.KeyAdd, asked: true, unconfirmed: waits}, gossipPlan{keys: keys(old, next), phase: manifests.KeyAdd}},
		"two that are there without a rotation":  {gossipView{keys: keys(old, next)}, gossipPlan{keys: keys(old, next)}},
		"asked, with nodes that don't answer":    {gossipView{keys: keys(old), asked: true, unconfirmed: waits}, gossipPlan{keys: keys(old), phase: manifests.KeyAsked}},
		"asked while the last one ends its last": {gossipView{keys: keys(next), phase: manifests.KeyRemove, asked: true}, gossipPlan{keys: keys(next), finished: true}},
	} {
		t.Run(name, func(t *testing.T) {
			got := planKeys(tt.view, func() []byte { return next })
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(gossipPlan{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestKeysAreConfirmedByAllNodes(t *testing.T) {
	old, next := []byte("an old key"), []byte("the next key")
	both := []string{config.GossipKeyFingerprint(old), config.GossipKeyFingerprint(next)}
	slices.Sort(both)
	node := func(name string, ready bool, keys *GossipKeysReport) observedNode {
		n := observedNode{ready: ready, report: NodeReport{Hub: "h", GossipKeys: keys}}
		n.pod.Name = name
		return n
	}
	good := &GossipKeysReport{Primary: config.GossipKeyFingerprint(next), Accepted: both}
	leaving := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "node-1", DeletionTimestamp: &metav1.Time{Time: time.Now()}}}
	silent := node("node-1", true, good)
	silent.report.Hub = ""
	for name, tt := range map[string]struct {
		seen observed
		want int32
		says []string
	}{
		"no nodes": {observed{}, 0, nil},
		"all":      {observed{nodes: []observedNode{node("node-0", true, good), node("node-1", true, good)}}, 2, nil},
		"one is missing": {
			observed{nodes: []observedNode{node("node-0", true, good)}}, 2, []string{"1 of 2 nodes exist"},
		},
		"one is about to end": {
			observed{nodes: []observedNode{node("node-0", true, good)}, leaving: []corev1.Pod{leaving}}, 1, []string{"node-1 is about to end"},
		},
		"one is not ready":     {observed{nodes: []observedNode{node("node-0", true, good), node("node-1", false, nil)}}, 2, []string{"node-1 is not ready"}},
		"one does not answer":  {observed{nodes: []observedNode{node("node-0", true, good), silent}}, 2, []string{"node-1 does not answer the operator"}},
		"one is of before":     {observed{nodes: []observedNode{node("node-0", true, nil), node("node-1", true, good)}}, 2, []string{"node-0 is of a version that can't change its key while it runs: restart it"}},
		"one refuses the file": {observed{nodes: []observedNode{node("node-0", true, &GossipKeysReport{Primary: good.Primary, Accepted: both, Error: "no such file"})}}, 1, []string{"node-0: no such file"}},
		"one uses the old one": {observed{nodes: []observedNode{node("node-0", true, &GossipKeysReport{Primary: config.GossipKeyFingerprint(old), Accepted: both})}}, 1, []string{"node-0 has not taken the keys over"}},
		"one accepts less":     {observed{nodes: []observedNode{node("node-0", true, &GossipKeysReport{Primary: good.Primary, Accepted: []string{good.Primary}})}}, 1, []string{"node-0 has not taken the keys over"}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.says, tt.seen.unconfirmedKeys(tt.want, [][]byte{next, old})); diff != "" {
				t.Error(diff)
			}
		})
	}
}
