package controllers

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
)

var testNow = time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)

// settled is what is seen of a Hub of three nodes when all is well; changes are
// made to it in order.
func settled(changes ...func(*observed)) *observed {
	seen := &observed{
		now:        testNow,
		configHash: "new",
		workload: &appsv1.StatefulSet{
			ObjectMeta: metav1.ObjectMeta{Generation: 1},
			Status:     appsv1.StatefulSetStatus{ObservedGeneration: 1, Replicas: 3, ReadyReplicas: 3, UpdatedReplicas: 3},
		},
	}
	for i := range 3 {
		seen.nodes = append(seen.nodes, observedNode{
			pod:    corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("agents-node-%d", i)}},
			ready:  true,
			report: NodeReport{Hub: "agents", ConfigHash: "new", Clients: 10},
		})
	}
	for _, change := range changes {
		change(seen)
	}
	return seen
}

// notReady makes the last n nodes not ready, for so long.
func notReady(n int, since time.Duration) func(*observed) {
	return func(seen *observed) {
		seen.workload.Status.ReadyReplicas = int32(len(seen.nodes) - n)
		for i := len(seen.nodes) - n; i < len(seen.nodes); i++ {
			seen.nodes[i].ready = false
			seen.nodes[i].pod.Status.Conditions = []corev1.PodCondition{{
				Type: corev1.PodReady, Status: corev1.ConditionFalse, LastTransitionTime: metav1.NewTime(testNow.Add(-since)),
			}}
		}
	}
}

func waiting(reason string, exitCode int32) func(*observed) {
	return func(seen *observed) {
		status := corev1.ContainerStatus{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}}
		if exitCode > 0 {
			status.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: exitCode}
		}
		seen.nodes[2].pod.Status.ContainerStatuses = []corev1.ContainerStatus{status}
	}
}

func outOfMemoryAgo(d time.Duration) func(*observed) {
	return func(seen *observed) {
		seen.nodes[2].pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
			State:                corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
			LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "OOMKilled", FinishedAt: metav1.NewTime(testNow.Add(-d))}},
		}}
	}
}

// leaving lets the last node's pod be one whose grace has ended so long ago.
func leaving(ago time.Duration) func(*observed) {
	return func(seen *observed) {
		pod := seen.nodes[2].pod
		pod.DeletionTimestamp, pod.Spec.NodeName = new(metav1.NewTime(testNow.Add(-ago))), "m-1"
		seen.nodes, seen.leaving = seen.nodes[:2], []corev1.Pod{pod}
	}
}

// silent lets the last node, which is not ready, be one whose kubelet Kubernetes does not hear
// of: its containers are as ready as that said last.
func silent(seen *observed) {
	pod := &seen.nodes[2].pod
	pod.Spec.NodeName = "m-1"
	pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: corev1.ContainersReady, Status: corev1.ConditionTrue})
}

// gated lets the last node wait for somebody else to say that it is ready.
func gated(seen *observed) {
	seen.nodes[2].pod.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "balancer.example/ready"}}
}

// unscheduled lets the last node be one with a volume that the scheduler has no machine for.
func unscheduled(why string) func(*observed) {
	return func(seen *observed) {
		pod := &seen.nodes[2].pod
		pod.Namespace = "team-a"
		pod.Spec.Volumes = []corev1.Volume{{Name: "history", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "history-agents-node-2"},
		}}}
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: why,
		})
	}
}

// without takes the last n nodes' pods away, for long.
func without(n int) func(*observed) {
	return func(seen *observed) {
		left := len(seen.nodes) - n
		for _, node := range seen.nodes[left:] {
			seen.lasts.missing = append(seen.lasts.missing, node.pod.Name)
		}
		seen.nodes = seen.nodes[:left]
		seen.workload.Namespace, seen.workload.Name = "team-a", "agents-node"
		seen.workload.Status.Replicas, seen.workload.Status.ReadyReplicas = int32(left), int32(left)
	}
}

// shards lets the first node lead so many of them.
func shards(all, led int) func(*observed) {
	return func(seen *observed) { seen.nodes[0].report.History = HistoryReport{Shards: all, Led: led, Whole: led} }
}

func TestSummarize(t *testing.T) {
	forbidden := apierrors.NewForbidden(schema.GroupResource{Group: "apps", Resource: "statefulsets"}, "agents-node",
		errors.New(`User "operator" cannot patch resource "statefulsets" in API group "apps" in the namespace "default"`))
	quota := apierrors.NewForbidden(schema.GroupResource{Resource: "services"}, "agents", errors.New("exceeded quota: few"))
	tests := map[string]struct {
		replicas int32 // default 3
		seen     *observed
		want     []string // type=status reason
		message  string   // a part of one condition's message
		clients  int64
		poll     time.Duration // default pollSettled
	}{
		"all is well": {
			seen:    settled(),
			want:    []string{"Available=True MajorityReady", "Progressing=False Complete", "Degraded=False AsExpected", "ConfigApplied=True Applied"},
			clients: 30,
		},
		"nothing exists yet": {
			seen: settled(func(s *observed) { s.workload, s.nodes = nil, nil }),
			want: []string{"Available=False TooFewNodesReady", "Progressing=True RollingOut", "Degraded=False AsExpected", "ConfigApplied=Unknown NoNodesReady", "Reconciling=True RollingOut"},
			poll: pollChanging,
		},
		"Kubernetes has not seen the StatefulSet": {
			seen:    settled(func(s *observed) { s.workload.Generation = 2 }),
			want:    []string{"Available=True MajorityReady", "Progressing=True RollingOut"},
			clients: 30, poll: pollChanging,
		},
		"nodes are added": {
			replicas: 5,
			seen:     settled(),
			want:     []string{"Available=True MajorityReady", "Progressing=True Scaling", "Degraded=False AsExpected"},
			message:  "3 nodes exist, 5 are wanted", clients: 30, poll: pollChanging,
		},
		"nodes are replaced": {
			seen:    settled(func(s *observed) { s.rollout = rollout{outdated: 2, waiting: "b is not ready yet"} }),
			want:    []string{"Progressing=True RollingOut"},
			message: "1 of 3 nodes are updated; b is not ready yet", clients: 30, poll: pollChanging,
		},
		"a rollout is stuck": {
			seen: settled(func(s *observed) {
				s.rollout = rollout{outdated: 2, waiting: "c is not ready yet", stuck: "c: CrashLoopBackOff"}
			}),
			want:    []string{"Progressing=False RolloutStuck"},
			message: "no further one is replaced: c: CrashLoopBackOff", clients: 30, poll: pollSettled,
		},
		"a node starts": {
			seen:    settled(notReady(1, 10*time.Second)),
			want:    []string{"Available=True MajorityReady", "Progressing=True NodesStarting", "Degraded=False AsExpected", "ConfigApplied=True Applied"},
			clients: 20, poll: pollChanging,
		},
		"a node takes too long": {
			seen:    settled(notReady(1, 2*time.Minute)),
			want:    []string{"Available=True MajorityReady", "Progressing=True NodesStarting", "Degraded=True NodesFailing"},
			message: "agents-node-2: not ready for more than 1m0s\n", clients: 20, poll: pollChanging,
		},
		"a machine is not heard of": {
			seen:    settled(notReady(1, 2*time.Minute), silent),
			want:    []string{"Available=True MajorityReady", "Progressing=True NodesStarting", "Degraded=True NodesFailing"},
			message: "agents-node-2: not ready for more than 1m0s; its machine m-1 seems to be lost. Once that is certainly off: kubectl taint node m-1 node.kubernetes.io/out-of-service=nodeshutdown:NoExecute", clients: 20, poll: pollChanging,
		},
		"a node is held up by a readiness gate": {
			seen:    settled(notReady(1, 2*time.Minute), silent, gated),
			want:    []string{"Degraded=True NodesFailing"},
			message: "agents-node-2: not ready for more than 1m0s\n", clients: 20, poll: pollChanging,
		},
		"most nodes are lost": {
			seen:    settled(notReady(2, 2*time.Minute)),
			want:    []string{"Available=False TooFewNodesReady", "Degraded=True NodesFailing"},
			message: "1 of 3 nodes are ready", clients: 10, poll: pollChanging,
		},
		"half is no majority": {
			replicas: 2,
			seen: settled(func(s *observed) {
				s.nodes = s.nodes[:2]
				s.workload.Status = appsv1.StatefulSetStatus{ObservedGeneration: 1, Replicas: 2, UpdatedReplicas: 2}
			}, notReady(1, time.Second)),
			want: []string{"Available=False TooFewNodesReady"}, clients: 10, poll: pollChanging,
		},
		"a node crashes": {
			seen:    settled(notReady(1, time.Second), waiting("CrashLoopBackOff", 2)),
			want:    []string{"Degraded=True NodesFailing"},
			message: "agents-node-2: CrashLoopBackOff after exit status 2", clients: 20, poll: pollChanging,
		},
		"an image is missing": {
			seen:    settled(notReady(1, time.Second), waiting("ErrImagePull", 0)),
			want:    []string{"Degraded=True NodesFailing"},
			message: "agents-node-2: ErrImagePull", clients: 20, poll: pollChanging,
		},
		"a container is being made": {
			seen:    settled(notReady(1, time.Second), waiting("ContainerCreating", 0)),
			want:    []string{"Degraded=False AsExpected"},
			clients: 20, poll: pollChanging,
		},
		"no room for a node": {
			seen:    settled(notReady(1, time.Second), unscheduled("0/1 nodes are available: 1 Insufficient memory.")),
			want:    []string{"Degraded=True NodesFailing"},
			message: "agents-node-2: can't be scheduled: 0/1 nodes are available: 1 Insufficient memory.\n", clients: 20, poll: pollChanging,
		},
		"a node's volume is on a machine that is away": {
			seen:    settled(notReady(1, time.Second), unscheduled("0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 node(s) didn't match PersistentVolume's node affinity.")),
			want:    []string{"Degraded=True NodesFailing"},
			message: "node affinity. Its volume is tied to a machine that takes no pods: bring that back; only when its disk is lost for good: kubectl delete pvc history-agents-node-2 -n team-a --wait=false, then kubectl delete pod agents-node-2 -n team-a\n", clients: 20, poll: pollChanging,
		},
		"a pod was evicted": {
			seen: settled(notReady(1, time.Second), func(s *observed) {
				s.nodes[2].pod.Status.Phase, s.nodes[2].pod.Status.Reason, s.nodes[2].pod.Status.Message = corev1.PodFailed, "Evicted", "The node was low on resource: memory."
			}),
			want:    []string{"Degraded=True NodesFailing"},
			message: "agents-node-2: ended by the kubelet: Evicted The node was low on resource: memory.", clients: 20, poll: pollChanging,
		},
		"a node was killed for its memory and runs again": {
			seen:    settled(outOfMemoryAgo(time.Minute)),
			want:    []string{"Available=True MajorityReady", "Degraded=True NodesFailing"},
			message: "agents-node-2: was killed for its memory at 2026-02-03T04:04:06Z: raise spec.resources.limits.memory", clients: 30,
		},
		"a node was killed for its memory long ago": {
			seen:    settled(outOfMemoryAgo(time.Hour)),
			want:    []string{"Degraded=False AsExpected"},
			clients: 30,
		},
		"a machine is lost": {
			seen:    settled(notReady(1, time.Second), leaving(2*time.Minute)),
			want:    []string{"Available=True MajorityReady", "Degraded=True NodesFailing"},
			message: "agents-node-2: does not end; its machine m-1 seems to be lost. Once that is certainly off: kubectl taint node m-1 node.kubernetes.io/out-of-service=nodeshutdown:NoExecute, until it is back; when it never will be: kubectl delete node m-1\n", clients: 20, poll: pollChanging,
		},
		"a pod was deleted whose machine is not heard of": {
			seen:    settled(notReady(1, 2*time.Minute), silent, leaving(-10*time.Second)),
			want:    []string{"Available=True MajorityReady", "Degraded=True NodesFailing"},
			message: "agents-node-2: not ready for more than 1m0s; its machine m-1 seems to be lost. Once that is certainly off: kubectl taint node m-1", clients: 20, poll: pollChanging,
		},
		"a pod is ending for long": {
			seen:    settled(notReady(1, 2*time.Minute), leaving(-10*time.Second)),
			want:    []string{"Degraded=False AsExpected"},
			clients: 20, poll: pollChanging,
		},
		"a pod is ending": {
			seen:    settled(notReady(1, time.Second), leaving(time.Second)),
			want:    []string{"Degraded=False AsExpected"},
			clients: 20, poll: pollChanging,
		},
		"a disk is full": {
			seen: settled(func(s *observed) {
				s.nodes[0].report.Disk = &DiskReport{}
				s.nodes[1].report.Disk = &DiskReport{FullSince: new(testNow)}
			}),
			want:    []string{"Available=True MajorityReady", "Degraded=True DiskFull"},
			message: "raise spec.storage.size, or keep less by maxBytes or maxAge: agents-node-1 since 2026-02-03T04:05:06Z", clients: 30,
		},
		"a node can't open its disk": {
			seen: settled(notReady(1, 2*time.Minute), func(s *observed) {
				s.nodes[1].away = "input/output error" // it was ready before its shards had leaders
				s.nodes[2].away = "there is no room on the disk"
			}),
			want:    []string{"Available=True MajorityReady", "Degraded=True NodesFailing"},
			message: "agents-node-1: it is without its shards, for its disk can't be opened: input/output error, agents-node-2: not ready for more than 1m0s; it is without its shards, for its disk can't be opened: there is no room on the disk", clients: 20, poll: pollChanging,
		},
		"memory is short": {
			seen: settled(func(s *observed) {
				s.nodes[1].report.Memory.ShortSince = new(testNow)
				s.nodes[2].report.Memory.ShortSince = new(testNow)
				s.nodes[2].err = errors.New("it does not answer") // what it said before says nothing of now
			}),
			want:    []string{"Available=True MajorityReady", "Degraded=True MemoryShort"},
			message: "or lower spec.limits.maxPendingBytes: agents-node-1 since 2026-02-03T04:05:06Z", clients: 20,
		},
		"shards have lost their majority": {
			seen:    settled(shards(4, 3), notReady(2, 2*time.Minute)),
			want:    []string{"Available=False TooFewNodesReady", "Degraded=True QuorumLost"},
			message: "1 of 4 shards have lost the majority of their nodes, and refuse what is published; bring these nodes back, with their disks. agents-node-1: not ready", clients: 10, poll: pollChanging,
		},
		"shards elect leaders": {
			seen:    settled(shards(4, 3), notReady(2, time.Second)),
			want:    []string{"Degraded=False AsExpected"},
			clients: 10, poll: pollChanging,
		},
		"shards have had no leader for long": {
			seen:    settled(shards(4, 3), func(s *observed) { s.lasts.leaderless = "1 of 4 shards" }),
			want:    []string{"Available=True MajorityReady", "Progressing=False Complete", "Degraded=True ShardsWithoutLeader"},
			message: "1 of 4 shards have had no leader for more than 1m0s though their nodes run, and refuse what is published: see whether the nodes reach each other on port 7401", clients: 30,
		},
		"shards have had no leader for long, for nodes fail": {
			seen:    settled(shards(4, 3), notReady(2, 2*time.Minute), func(s *observed) { s.lasts.leaderless = "1 of 4 shards" }),
			want:    []string{"Degraded=True QuorumLost"},
			message: "bring these nodes back, with their disks. agents-node-1: not ready", clients: 10, poll: pollChanging,
		},
		"a pod can't be made": {
			seen:    settled(without(1)),
			want:    []string{"Available=True MajorityReady", "Progressing=True Scaling", "Degraded=True NodesFailing"},
			message: "Degraded=True NodesFailing: Kubernetes has made no pod for more than 1m0s: agents-node-2; why, the events of the StatefulSet say: kubectl events -n team-a --for statefulset/agents-node\n", clients: 20, poll: pollChanging,
		},
		"so many pods can't be made that shards have no leader": {
			seen:    settled(shards(16, 5), without(2)),
			want:    []string{"Available=False TooFewNodesReady", "Degraded=True QuorumLost"},
			message: "bring these nodes back, with their disks. Kubernetes has made no pod for more than 1m0s: agents-node-1, agents-node-2;", clients: 10, poll: pollChanging,
		},
		"a replaced node's pod can't be made": {
			seen:    settled(without(1), func(s *observed) { s.rollout = rollout{outdated: 2, waiting: "2 of 3 nodes exist"} }),
			want:    []string{"Progressing=False RolloutStuck", "Degraded=True NodesFailing"},
			message: "2 of 3 nodes run an earlier pod template, and no further one is replaced: Kubernetes has made no pod for more than 1m0s: agents-node-2;", clients: 20,
		},
		"volumes grow": {
			seen:    settled(func(s *observed) { s.volumes.growing = []string{"history-agents-node-0"} }),
			want:    []string{"Progressing=True VolumesGrowing"},
			message: "volumes grow: history-agents-node-0", clients: 30, poll: pollChanging,
		},
		"nodes wait for their first certificate": {
			seen: settled(func(s *observed) {
				s.certificates = certificates{looked: true, trouble: &certificateTrouble{passes: true}}
			}),
			want:    []string{"Progressing=True AwaitingCertificates", "Degraded=False AsExpected"},
			message: "no node is started or changed before there is a certificate", clients: 30, poll: pollChanging,
		},
		"a certificate is missing": {
			seen: settled(func(s *observed) {
				s.certificates = certificates{looked: true, trouble: &certificateTrouble{message: "there is no Secret"}}
			}),
			want:    []string{"Progressing=True AwaitingCertificates", "Degraded=True CertificatesNotReady"},
			message: "certificates: there is no Secret", clients: 30, poll: pollChanging,
		},
		"scaled to zero": {
			replicas: 0,
			seen: settled(func(s *observed) {
				s.nodes = nil
				s.workload.Status = appsv1.StatefulSetStatus{ObservedGeneration: 1}
			}),
			want: []string{"Available=False ScaledToZero", "Progressing=False Complete", "Degraded=False AsExpected", "ConfigApplied=Unknown NoNodesReady"},
		},
		"a right is missing": {
			seen:    settled(func(s *observed) { s.err = fmt.Errorf("stateful set: %w", forbidden) }),
			want:    []string{"Progressing=False Blocked", "Degraded=True MissingPermission", "Stalled=True MissingPermission"},
			message: `cannot patch resource "statefulsets"`, clients: 30,
		},
		"a quota is used up": {
			seen:    settled(func(s *observed) { s.err = quota }),
			want:    []string{"Progressing=True ApplyFailed", "Degraded=True ApplyFailed"},
			message: "exceeded quota", clients: 30, poll: pollChanging,
		},
		"a name is taken": {
			seen:    settled(func(s *observed) { s.err = &NameTakenError{Kind: "Service", Name: "agents", Owner: "Hub other"} }),
			want:    []string{"Degraded=True NameTaken", "Stalled=True NameTaken"},
			message: `Service "agents" exists already and belongs to Hub other`, clients: 30,
		},
		"a spec makes no settings": {
			seen: settled(func(s *observed) { s.err, s.configHash = &InvalidSpecError{Err: errors.New("topics[0]: bad")}, "" }),
			want: []string{"Progressing=False Blocked", "Degraded=True InvalidSpec", "ConfigApplied=False Blocked", "Stalled=True InvalidSpec"},

			message: "topics[0]: bad", clients: 30,
		},
		"a node is behind": {
			seen:    settled(func(s *observed) { s.nodes[1].report.ConfigHash = "old" }),
			want:    []string{"Progressing=False Complete", "ConfigApplied=False Applying"},
			message: "still on other settings: agents-node-1", clients: 30, poll: pollChanging,
		},
		"a node refuses its settings": {
			seen: settled(func(s *observed) {
				s.nodes[0].report.ConfigHash = "old"
				s.nodes[1].report.ConfigError = "filter: no"
			}),
			want:    []string{"ConfigApplied=False Rejected"},
			message: "agents-node-1: filter: no", clients: 30,
		},
		"a ready node is silent": {
			seen: settled(func(s *observed) {
				s.nodes[1] = observedNode{pod: s.nodes[1].pod, ready: true, err: errors.New("refused")}
			}),
			want:    []string{"Available=True MajorityReady", "ConfigApplied=Unknown NodesUnreachable"},
			message: "no answer to the operator on port 7480: agents-node-1", clients: 20,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			hub := &switchboardv1alpha1.Hub{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "agents", Generation: 4}}
			hub.Spec.Replicas = &tt.replicas
			if tt.replicas == 0 && name != "scaled to zero" {
				hub.Spec.Replicas = new(int32(3))
			}
			status := summarize(hub, tt.seen)
			all := show(status.Conditions)
			for _, want := range tt.want {
				if !strings.Contains(all, want+":") {
					t.Errorf("no %q in\n%s", want, all)
				}
			}
			if !strings.Contains(all, tt.message) {
				t.Errorf("no message with %q in\n%s", tt.message, all)
			}
			if status.Clients != tt.clients {
				t.Errorf("%d clients, want %d", status.Clients, tt.clients)
			}
			for _, c := range status.Conditions {
				if c.ObservedGeneration != 4 || !c.LastTransitionTime.Time.Equal(testNow) || c.Message == "" {
					t.Errorf("condition %+v: want generation 4, the pass's time and a message", c)
				}
			}
			for mirror, want := range map[string]bool{
				switchboardv1alpha1.ConditionReconciling: strings.Contains(all, "Progressing=True"),
				switchboardv1alpha1.ConditionStalled:     strings.Contains(all, "Progressing=False Blocked"),
			} {
				if got := meta.FindStatusCondition(status.Conditions, mirror) != nil; got != want {
					t.Errorf("%s present: %v, want %v", mirror, got, want)
				}
			}
			wantPoll := tt.poll
			if wantPoll == 0 {
				wantPoll = pollSettled
			}
			if got := pollAfter(status, 0); got != wantPoll {
				t.Errorf("next look after %v, want %v", got, wantPoll)
			}
		})
	}
}

func TestManyHubsAtRestAreLookedAtLessOften(t *testing.T) {
	tests := map[string]struct {
		seen  *observed
		nodes int // of all Hubs
		want  time.Duration
	}{
		"few":                         {seen: settled(), nodes: 200, want: pollSettled},
		"many":                        {seen: settled(), nodes: 3000, want: 150 * time.Second},
		"many, while settings spread": {seen: settled(func(s *observed) { s.configHash = "newer" }), nodes: 3000, want: pollChanging},
		"many, while shards catch up": {seen: settled(shards(4, 3)), nodes: 3000, want: pollSettled},
		"many, while one is silent":   {seen: settled(func(s *observed) { s.nodes[0].err = errors.New("timeout") }), nodes: 3000, want: pollSettled},
		"many, while a disk is full":  {seen: settled(func(s *observed) { s.nodes[0].report.Disk = &DiskReport{FullSince: new(testNow)} }), nodes: 3000, want: pollSettled},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			hub := &switchboardv1alpha1.Hub{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "agents"}}
			if got := pollAfter(summarize(hub, tt.seen), tt.nodes); got != tt.want {
				t.Errorf("next look after %v, want %v", got, tt.want)
			}
		})
	}
}

func show(conditions []metav1.Condition) string {
	var b strings.Builder
	for _, c := range conditions {
		fmt.Fprintf(&b, "%s=%s %s: %s\n", c.Type, c.Status, c.Reason, c.Message)
	}
	return b.String()
}

func TestSameObservationIsSameStatus(t *testing.T) {
	hub := &switchboardv1alpha1.Hub{ObjectMeta: metav1.ObjectMeta{Name: "agents", Generation: 4}}
	hub.Status = summarize(hub, settled(notReady(1, 2*time.Minute)))
	later := settled(notReady(1, 2*time.Minute))
	later.now = testNow.Add(time.Hour)
	again := summarize(hub, later)
	if got, want := fmt.Sprint(again), fmt.Sprint(hub.Status); got != want {
		t.Errorf("status\n%s\nwas\n%s", got, want)
	}
}

// A Secret that could not be read, of a Hub with authentication.
func TestFailedReadSaysNothingOfTheSettings(t *testing.T) {
	hub := &switchboardv1alpha1.Hub{ObjectMeta: metav1.ObjectMeta{Name: "agents", Generation: 4}}
	hub.Status = summarize(hub, settled())
	before := hub.DeepCopy()
	hub.Generation = 5
	broken := settled(func(s *observed) {
		s.err, s.configHash = errors.New("authentication: read Secret tokens: connection refused"), ""
	})
	hub.Status = summarize(hub, broken)
	if c := meta.FindStatusCondition(hub.Status.Conditions, switchboardv1alpha1.ConditionConfigApplied); c.Status != metav1.ConditionTrue || c.ObservedGeneration != 4 {
		t.Errorf("ConfigApplied is %+v, want it as it was", c)
	}
	for _, n := range noticesOf(before, hub) {
		if n.reason != switchboardv1alpha1.ReasonApplyFailed {
			t.Errorf("event %+v", n)
		}
	}
	before = hub.DeepCopy()
	hub.Status = summarize(hub, settled())
	if c := meta.FindStatusCondition(hub.Status.Conditions, switchboardv1alpha1.ConditionConfigApplied); c.Status != metav1.ConditionTrue || c.ObservedGeneration != 5 {
		t.Errorf("ConfigApplied is %+v afterwards", c)
	}
	if got := noticesOf(before, hub); len(got) != 1 || got[0].reason != "Recovered" {
		t.Errorf("events afterwards: %+v", got)
	}
	fresh := &switchboardv1alpha1.Hub{ObjectMeta: metav1.ObjectMeta{Name: "agents", Generation: 1}}
	if c := meta.FindStatusCondition(summarize(fresh, broken).Conditions, switchboardv1alpha1.ConditionConfigApplied); c == nil || c.Status == metav1.ConditionTrue {
		t.Errorf("ConfigApplied of a new Hub is %+v", c)
	}
}

func TestMessageNamesAFewNodes(t *testing.T) {
	got := enumerate([]string{"a", "b", "c", "d", "e", "f", "g"})
	if want := "a, b, c, d, e and 2 more"; got != want {
		t.Errorf("enumerate = %q, want %q", got, want)
	}
}

func TestNotices(t *testing.T) {
	hubAt := func(seen *observed) *switchboardv1alpha1.Hub {
		hub := &switchboardv1alpha1.Hub{ObjectMeta: metav1.ObjectMeta{Name: "agents", Generation: 4}}
		if seen != nil {
			hub.Status = summarize(hub, seen)
		}
		return hub
	}
	broken := func(s *observed) { s.err = errors.New("no connection") }
	tests := map[string]struct {
		before, after *observed
		want          string // kinds and reasons
	}{
		"a new Hub":          {nil, settled(notReady(3, 0)), ""},
		"it is there":        {settled(notReady(3, 0)), settled(), "Normal Available, Normal Applied"},
		"nothing new":        {settled(), settled(), ""},
		"it breaks":          {settled(), settled(broken), "Warning ApplyFailed"},
		"it stays broken":    {settled(broken), settled(broken), ""},
		"it works again":     {settled(broken), settled(), "Normal Recovered"},
		"nodes are lost":     {settled(), settled(notReady(2, 0)), "Warning TooFewNodesReady"},
		"settings are wrong": {settled(), settled(func(s *observed) { s.nodes[0].report.ConfigError = "no" }), "Warning Rejected"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, n := range noticesOf(hubAt(tt.before), hubAt(tt.after)) {
				got = append(got, n.kind+" "+n.reason)
			}
			if got := strings.Join(got, ", "); got != tt.want {
				t.Errorf("events %q, want %q", got, tt.want)
			}
		})
	}
}

func TestCertificateThatCouldNotBeWrittenIsNotLookedAt(t *testing.T) {
	hub := &switchboardv1alpha1.Hub{Spec: switchboardv1alpha1.HubSpec{TLS: &switchboardv1alpha1.TLSSpec{Clients: switchboardv1alpha1.ClientTLSOptional}}}
	status := summarize(hub, &observed{now: testNow, err: errors.New("exceeded quota"), certificates: certificates{looked: true}})
	if c := meta.FindStatusCondition(status.Conditions, switchboardv1alpha1.ConditionDegraded); c == nil || !strings.Contains(c.Message, "exceeded quota") {
		t.Errorf("Degraded is %+v, want it to say why", c)
	}
}
