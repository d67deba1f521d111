package controllers

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/switchboardhub/switchboard/hubnode/config"
)

func TestPlanScale(t *testing.T) {
	for name, tt := range map[string]struct {
		view               scaleView
		settings, workload int32
		waits              bool
	}{
		"a new hub starts as it is wanted":                          {scaleView{want: 3}, 3, 3, false},
		"nothing to do":                                             {scaleView{want: 3, exists: true, running: 3, homes: 3, ready: 3, applied: true}, 3, 3, false},
		"nothing to do while a node is away":                        {scaleView{want: 3, exists: true, running: 3, homes: 3, ready: 2}, 3, 3, false},
		"growing runs new nodes first":                              {scaleView{want: 5, exists: true, running: 3, homes: 3, ready: 3, applied: true}, 3, 5, true},
		"growing waits until all are ready":                         {scaleView{want: 5, exists: true, running: 5, homes: 3, ready: 4, applied: true}, 3, 5, true},
		"grown":                                                     {scaleView{want: 5, exists: true, running: 5, homes: 3, ready: 5, applied: true}, 5, 5, false},
		"shrinking tells the nodes first":                           {scaleView{want: 3, exists: true, running: 5, homes: 5, ready: 3, applied: true}, 3, 5, true},
		"shrinking waits until all know":                            {scaleView{want: 3, exists: true, running: 5, homes: 3, ready: 3}, 3, 5, true},
		"shrinking waits until topics have moved":                   {scaleView{want: 3, exists: true, running: 5, homes: 3, ready: 3, applied: true, moving: 2}, 3, 5, true},
		"shards on their way hold up no growing":                    {scaleView{want: 5, exists: true, running: 3, homes: 3, ready: 3, applied: true, moving: 2}, 3, 5, true},
		"nor a hub that stops":                                      {scaleView{want: 0, exists: true, running: 3, homes: 3, ready: 3, applied: true, moving: 2}, 0, 0, false},
		"shrunk":                                                    {scaleView{want: 3, exists: true, running: 5, homes: 3, ready: 3, applied: true}, 3, 3, false},
		"growing again while shrinking":                             {scaleView{want: 5, exists: true, running: 5, homes: 3, ready: 5, applied: true}, 5, 5, false},
		"growing further while it grows":                            {scaleView{want: 7, exists: true, running: 5, homes: 3, ready: 5, applied: true}, 3, 7, true},
		"giving up to grow":                                         {scaleView{want: 3, exists: true, running: 5, homes: 3, ready: 3, applied: true}, 3, 3, false},
		"to none, at once":                                          {scaleView{want: 0, exists: true, running: 3, homes: 3, applied: true}, 0, 0, false},
		"from none, at once":                                        {scaleView{want: 3, exists: true}, 3, 3, false},
		"stopped, volumes keep the homes":                           {scaleView{want: 0, exists: true, disk: true, running: 3, homes: 3, ready: 3, applied: true}, 3, 0, false},
		"also while it is stopped":                                  {scaleView{want: 0, exists: true, disk: true, homes: 3, applied: true}, 3, 0, false},
		"stopped in the middle of a shrink":                         {scaleView{want: 0, exists: true, disk: true, running: 5, homes: 3, applied: true, moving: 2}, 5, 0, false},
		"started on volumes as it was":                              {scaleView{want: 3, exists: true, disk: true, homes: 3, applied: true}, 3, 3, false},
		"started smaller: all homes run first":                      {scaleView{want: 1, exists: true, disk: true, homes: 3, applied: true}, 3, 3, true},
		"then they say where topics are":                            {scaleView{want: 1, exists: true, disk: true, running: 3, homes: 3, applied: true, unknown: "no node answers"}, 3, 3, true},
		"then it shrinks":                                           {scaleView{want: 1, exists: true, disk: true, running: 3, homes: 3, ready: 1, applied: true}, 1, 3, true},
		"started larger: the homes stay until all run":              {scaleView{want: 5, exists: true, disk: true, homes: 3, applied: true}, 3, 5, true},
		"stopped by an earlier operator":                            {scaleView{want: 3, exists: true, disk: true, applied: true}, 3, 3, false},
		"without volumes since, there is nothing":                   {scaleView{want: 1, exists: true, homes: 3, applied: true}, 1, 1, false},
		"growing waits until all have volumes":                      {scaleView{want: 5, exists: true, disk: true, running: 3, homes: 3, ready: 3, applied: true, volumes: "a-node-1"}, 3, 3, true},
		"so does shrinking":                                         {scaleView{want: 1, exists: true, disk: true, running: 3, homes: 3, ready: 1, applied: true, volumes: "a-node-1"}, 3, 3, true},
		"volumes alone are no matter of the scale":                  {scaleView{want: 3, exists: true, disk: true, running: 3, homes: 3, ready: 3, applied: true, volumes: "a-node-1"}, 3, 3, false},
		"a hub that stops waits for no volumes":                     {scaleView{want: 0, exists: true, disk: true, running: 3, homes: 3, volumes: "a-node-1"}, 3, 0, false},
		"shrinking waits until it is known where topics are":        {scaleView{want: 3, exists: true, running: 5, homes: 5, applied: true, unknown: "no node answers"}, 5, 5, true},
		"and so it does once the nodes were told":                   {scaleView{want: 3, exists: true, running: 5, homes: 3, applied: true, unknown: "no node answers"}, 3, 5, true},
		"growing again takes none away whose topics are on the way": {scaleView{want: 5, exists: true, running: 7, homes: 3, ready: 4, applied: true, moving: 2}, 3, 7, true},
		"growing less far takes away those that have none":          {scaleView{want: 5, exists: true, running: 7, homes: 3, ready: 4, applied: true}, 3, 5, true},
		"nor do nodes that do not answer hold up a hub that stops":  {scaleView{want: 0, exists: true, running: 3, homes: 3, applied: true, unknown: "no node answers"}, 0, 0, false},
		"a node that does not get ready holds up no shrink":         {scaleView{want: 3, exists: true, running: 5, homes: 3, ready: 2, applied: true}, 3, 3, false},
	} {
		t.Run(name, func(t *testing.T) {
			got := planScale(tt.view)
			if got.settings != tt.settings || got.workload != tt.workload || (got.waiting != "") != tt.waits {
				t.Errorf("planScale = %+v; want settings %d, workload %d, waiting %v", got, tt.settings, tt.workload, tt.waits)
			}
		})
	}
}

func TestHomesByClaims(t *testing.T) {
	claim := func(name string, phase corev1.PersistentVolumeClaimPhase) corev1.PersistentVolumeClaim {
		return corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.PersistentVolumeClaimStatus{Phase: phase}}
	}
	going := claim("history-a-node-4", corev1.ClaimBound)
	going.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	for name, tt := range map[string]struct {
		claims []corev1.PersistentVolumeClaim
		want   int32
	}{
		"none":                  {nil, 0},
		"of three":              {[]corev1.PersistentVolumeClaim{claim("history-a-node-2", corev1.ClaimBound), claim("history-a-node-0", corev1.ClaimBound), claim("history-a-node-1", corev1.ClaimBound)}, 3},
		"one is lost":           {[]corev1.PersistentVolumeClaim{claim("history-a-node-2", corev1.ClaimBound)}, 3},
		"no volume yet":         {[]corev1.PersistentVolumeClaim{claim("history-a-node-0", corev1.ClaimBound), claim("history-a-node-1", corev1.ClaimPending)}, 1},
		"one is being deleted":  {[]corev1.PersistentVolumeClaim{claim("history-a-node-2", corev1.ClaimBound), going}, 3},
		"of the most there are": {[]corev1.PersistentVolumeClaim{claim(fmt.Sprintf("history-a-node-%d", config.MaxReplicas-1), corev1.ClaimBound)}, config.MaxReplicas},
		"of more than can be":   {[]corev1.PersistentVolumeClaim{claim("history-a-node-2147483647", corev1.ClaimBound), claim(fmt.Sprintf("history-a-node-%d", config.MaxReplicas), corev1.ClaimBound)}, 0},
		"of something else":     {[]corev1.PersistentVolumeClaim{claim("history-b-node-2", corev1.ClaimBound), claim("spool-a-node-2", corev1.ClaimBound), claim("mine", corev1.ClaimBound)}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := homesByClaims("a-node", tt.claims); got != tt.want {
				t.Errorf("homesByClaims = %d, want %d", got, tt.want)
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

func TestWhereabouts(t *testing.T) {
	made := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	running := corev1.ContainerStatus{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
	noImage := corev1.ContainerStatus{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"}}}
	crashed := corev1.ContainerStatus{
		State:                corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
		LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 2}},
	}
	node := func(ordinal int, cs corev1.ContainerStatus, change ...func(*observedNode)) observedNode {
		n := observedNode{pod: corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("a-node-%d", ordinal), CreationTimestamp: metav1.NewTime(made.Add(time.Second))},
			Status:     corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{cs}},
		}}
		for _, c := range change {
			c(&n)
		}
		return n
	}
	leads := func(led int) func(*observedNode) {
		return func(n *observedNode) {
			n.ready, n.report = true, NodeReport{Hub: "a", History: HistoryReport{Shards: 4, Led: led}}
		}
	}
	onDisk := func(n *observedNode) { n.pod.Spec.Volumes = []corev1.Volume{{Name: "history"}} }
	silent := func(n *observedNode) { n.ready, n.err = true, errors.New("no answer") }
	claim := func(ordinal int, phase corev1.PersistentVolumeClaimPhase, at time.Time) corev1.PersistentVolumeClaim {
		return corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("history-a-node-%d", ordinal), CreationTimestamp: metav1.NewTime(at)},
			Status:     corev1.PersistentVolumeClaimStatus{Phase: phase},
		}
	}
	for name, tt := range map[string]struct {
		nodes  []observedNode
		disk   bool
		claims []corev1.PersistentVolumeClaim
		silent string // those that may hold something; empty: it is known
	}{
		"all leaders answer":                         {nodes: []observedNode{node(0, running, leads(3)), node(1, running, leads(1))}},
		"they do, without one that gets not ready":   {nodes: []observedNode{node(0, running, leads(4)), node(1, running)}},
		"no node is ready":                           {nodes: []observedNode{node(0, running), node(1, running)}, silent: "a-node-0, a-node-1"},
		"ready nodes that do not answer":             {nodes: []observedNode{node(0, running, silent), node(1, running, silent)}, silent: "a-node-0, a-node-1"},
		"one that answers leads not all":             {nodes: []observedNode{node(0, running, leads(3)), node(1, running)}, silent: "a-node-1"},
		"all answer, and some shards have no leader": {nodes: []observedNode{node(0, running, leads(1)), node(1, running, leads(1))}},
		"a dead one holds nothing in memory":         {nodes: []observedNode{node(0, running, leads(3)), node(1, crashed)}},
		"all are dead: nothing is in memory":         {nodes: []observedNode{node(0, crashed), node(1, noImage)}},
		"there are no pods, and nothing in memory":   {},
		"a dead one may hold something on its disk": {
			nodes: []observedNode{node(0, running, leads(3), onDisk), node(1, crashed, onDisk)}, disk: true,
			claims: []corev1.PersistentVolumeClaim{claim(0, corev1.ClaimBound, made), claim(1, corev1.ClaimBound, made)}, silent: "a-node-1",
		},
		"no node has ever run on the disks": {
			nodes: []observedNode{node(0, noImage, onDisk), node(1, noImage, onDisk)}, disk: true,
			claims: []corev1.PersistentVolumeClaim{claim(0, corev1.ClaimBound, made), claim(1, corev1.ClaimPending, made)},
		},
		"one of before may have run on the disk": {
			nodes: []observedNode{node(0, noImage, onDisk), node(1, noImage, onDisk)}, disk: true,
			claims: []corev1.PersistentVolumeClaim{claim(0, corev1.ClaimBound, made), claim(1, corev1.ClaimBound, made.Add(-time.Minute))}, silent: "a-node-1",
		},
		"a disk of somebody's own": {
			nodes: []observedNode{node(0, noImage, onDisk), node(1, noImage, onDisk)}, disk: true,
			claims: []corev1.PersistentVolumeClaim{claim(0, corev1.ClaimBound, made)}, silent: "a-node-1",
		},
		"a disk whose pod is away": {
			disk: true, claims: []corev1.PersistentVolumeClaim{claim(1, corev1.ClaimBound, made)}, silent: "a-node-1",
		},
		"a disk that a hub in memory left behind": {
			claims: []corev1.PersistentVolumeClaim{claim(1, corev1.ClaimBound, made)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := observed{nodes: tt.nodes, workload: &appsv1.StatefulSet{}}
			if tt.disk {
				o.workload.Spec.VolumeClaimTemplates = make([]corev1.PersistentVolumeClaim, 1)
			}
			got := o.whereabouts("a-node", 2, tt.claims)
			if (got != "") != (tt.silent != "") || !strings.Contains(got, "may be on "+tt.silent+":") && got != "" {
				t.Errorf("whereabouts = %q, want it to name %q", got, tt.silent)
			}
		})
	}
}
