package kubehub

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/hubnode"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func minutesAgo(n int) metav1.Time { return metav1.NewTime(now.Add(-time.Duration(n) * time.Minute)) }

// conditionOf is a condition that is so for two minutes.
func conditionOf(kind string, status metav1.ConditionStatus, reason, message string) metav1.Condition {
	return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message, LastTransitionTime: minutesAgo(2)}
}

func hubWith(conditions ...metav1.Condition) *switchboardv1alpha1.Hub {
	return &switchboardv1alpha1.Hub{
		ObjectMeta: metav1.ObjectMeta{Namespace: "prod", Name: "agents"},
		Spec:       switchboardv1alpha1.HubSpec{Replicas: new(int32(2))},
		Status: switchboardv1alpha1.HubStatus{
			ReadyReplicas: 2, Clients: 7, Address: "agents.prod.svc:7400", SafeToRestart: true, Conditions: conditions,
		},
	}
}

// podOf is a pod of the newest template that has been ready for an hour.
func podOf(name string, change func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: minutesAgo(60), Labels: map[string]string{appsv1.StatefulSetRevisionLabel: "new"}},
		Spec:       corev1.PodSpec{NodeName: "w1", Containers: []corev1.Container{{Name: "hubnode", Image: "switchboard:1"}}},
		Status:     corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}
	if change != nil {
		change(pod)
	}
	return pod
}

func reportOf(hub *switchboardv1alpha1.Hub, statuses []*hubnode.Status, pods ...*corev1.Pod) *Report {
	r := newReport(hub)
	for i, pod := range pods {
		n := newNodeReport(pod, "new")
		if n.Status = statuses[i]; n.Status == nil {
			n.Silent = "connection refused"
		}
		r.Nodes = append(r.Nodes, n)
	}
	r.conclude(true)
	return r
}

func TestStatusAsText(t *testing.T) {
	available := conditionOf("Available", metav1.ConditionTrue, "MajorityReady", "2 of 2 nodes are ready")
	full := minutesAgo(3).Time
	whole := &hubnode.Status{Clients: 3, History: hubnode.HistoryStatus{Shards: 4, Led: 2, Whole: 2}, Disk: &hubnode.Disk{FreeBytes: 30, SizeBytes: 100}}
	behind := &hubnode.Status{
		Clients: 4, ConfigError: "no such filter", Disk: &hubnode.Disk{FreeBytes: 1, SizeBytes: 100, FullSince: &full},
		History: hubnode.HistoryStatus{Shards: 4, Led: 1},
	}
	for name, test := range map[string]struct {
		report *Report
		want   string
	}{
		"all is well": {
			reportOf(hubWith(available, conditionOf("Degraded", metav1.ConditionFalse, "AsExpected", "nothing is known to be wrong")),
				[]*hubnode.Status{whole, whole}, podOf("agents-node-0", nil), podOf("agents-node-1", nil)),
			`Hub agents in prod: all is well

  nodes    2 of 2 ready
  clients  7, connect to agents.prod.svc:7400
  shards   4 of 4 have all replicas, caught up
  restart  any one node may stop now

  Available  yes  for 2m  MajorityReady: 2 of 2 nodes are ready
  Degraded   no   for 2m  AsExpected: nothing is known to be wrong

NODE           READY  CLIENTS  LEADS  DISK      RESTARTS  AGE  MACHINE  IMAGE
agents-node-0  yes    3        2      30% free  0         60m  w1       switchboard:1
agents-node-1  yes    3        2      30% free  0         60m  w1       switchboard:1
`,
		},
		"a disk is away": {
			reportOf(hubWith(available), []*hubnode.Status{whole, {Disk: &hubnode.Disk{FullSince: &full, AwaySince: &full, Away: "input/output error"}}}, podOf("agents-node-0", nil), podOf("agents-node-1", nil)),
			`Hub agents in prod: all is well

  nodes    2 of 2 ready
  clients  7, connect to agents.prod.svc:7400
  shards   2 of 4 have all replicas, caught up; 2 have no leader that answers: nothing can be published to their topics
  restart  NO node may stop now: 2 of 4 shards have no leader

  Available  yes  for 2m  MajorityReady: 2 of 2 nodes are ready

NODE           READY  CLIENTS  LEADS  DISK         RESTARTS  AGE  MACHINE  IMAGE
agents-node-0  yes    3        2      30% free     0         60m  w1       switchboard:1
agents-node-1  yes    0        -      AWAY for 3m  0         60m  w1       switchboard:1
  ! agents-node-1 can't open its disk: input/output error
`,
		},
		"much is wrong": {
			func() *Report {
				hub := hubWith(available, conditionOf("Degraded", metav1.ConditionTrue, "NodesFailing", "agents-node-1: CrashLoopBackOff"))
				hub.Generation = 2
				r := reportOf(hub, []*hubnode.Status{behind, nil}, podOf("agents-node-0", nil), podOf("agents-node-1", func(pod *corev1.Pod) {
					pod.Labels = nil
					pod.Status.Conditions[0].Status = corev1.ConditionFalse
					pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "hubnode", RestartCount: 5, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}}}
				}))
				r.Events = []EventReport{{Time: minutesAgo(1).Time, Type: "Warning", Object: "Pod agents-node-1", Reason: "BackOff", Message: "Back-off\nrestarting", Count: 3}}
				r.Unread = []string{"the moon: it is far"}
				return r
			}(),
			`Hub agents in prod: DEGRADED: it serves clients, and something is wrong
The operator has not seen the newest spec: what follows is about an earlier one.

  nodes    2 of 2 ready
  clients  7, connect to agents.prod.svc:7400
  shards   0 of 4 have all replicas, caught up; 3 have no leader that answers: nothing can be published to their topics
  rollout  1 of 2 nodes have the newest pod template
  restart  NO node may stop now: agents-node-1 is not ready

  Available  yes  for 2m  MajorityReady: 2 of 2 nodes are ready
! Degraded   yes  for 2m  NodesFailing: agents-node-1: CrashLoopBackOff
  → NodesFailing: kubectl hub logs agents NODE --previous; kubectl describe pod NODE says more; of a pod that is missing: kubectl events --for statefulset/agents-node

NODE           READY                 CLIENTS  LEADS  DISK         RESTARTS  AGE  MACHINE  IMAGE
agents-node-0  yes                   4        1      FULL for 3m  0         60m  w1       switchboard:1
agents-node-1  no: CrashLoopBackOff  -        -      -            5         60m  w1       switchboard:1
  ! agents-node-0 refuses its settings: no such filter

Newest events:
! 60s ago  Pod agents-node-1  BackOff (3 times): Back-off restarting

Could not read the moon: it is far
`,
		},
		"a Hub that nobody looks after": {
			reportOf(&switchboardv1alpha1.Hub{ObjectMeta: metav1.ObjectMeta{Namespace: "prod", Name: "agents"}}, nil),
			`Hub agents in prod: DOWN: too few nodes are ready

  nodes    0 of 3 ready
  clients  0, connect to -
  restart  NO node may stop now: 0 of 3 nodes exist

The operator has not reported on this Hub: does it run, and watch this namespace?
`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, test.report.Text(now)); diff != "" {
				t.Errorf("text (-want +got):\n%s", diff)
			}
		})
	}
}

// statusOf is a container in a state: "running", "" for none, or why it waits.
func statusOf(name, state string) corev1.ContainerStatus {
	s := corev1.ContainerStatus{Name: name, ContainerID: "fake://" + name}
	switch state {
	case "running":
		s.State.Running = &corev1.ContainerStateRunning{}
	case "Completed":
		s.State.Terminated = &corev1.ContainerStateTerminated{Reason: state}
	case "Error":
		s.State.Terminated = &corev1.ContainerStateTerminated{Reason: state, ExitCode: 1}
	case "":
	default:
		s.State.Waiting = &corev1.ContainerStateWaiting{Reason: state}
	}
	return s
}

func TestANodeBesideASidecar(t *testing.T) {
	n := newNodeReport(podOf("agents-node-0", func(pod *corev1.Pod) {
		pod.Spec.Containers = append([]corev1.Container{{Name: "istio-proxy", Image: "istio:1"}}, pod.Spec.Containers...)
		proxy, node := statusOf("istio-proxy", "running"), statusOf("hubnode", "running")
		proxy.RestartCount, node.RestartCount = 7, 2
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{proxy, node}
	}), "new")
	if n.Image != "switchboard:1" || n.Restarts != 2 {
		t.Errorf("image %s with %d restarts, want switchboard:1 with 2", n.Image, n.Restarts)
	}
	for name, test := range map[string]struct {
		init, proxy, node string
		want              string
		runs              string // whose log goes on
	}{
		"both run":                       {"Completed", "running", "running", "", "fake://hubnode"},
		"the node crashes":               {"Completed", "running", "CrashLoopBackOff", "CrashLoopBackOff", ""},
		"the node has ended":             {"Completed", "running", "Completed", "Completed", ""},
		"the sidecar crashes":            {"Completed", "CrashLoopBackOff", "running", "istio-proxy: CrashLoopBackOff", "fake://hubnode"},
		"both crash":                     {"Completed", "ErrImagePull", "CrashLoopBackOff", "CrashLoopBackOff", ""},
		"what comes before them crashes": {"Error", "PodInitializing", "PodInitializing", "istio-init: Error", ""},
		"what comes before them runs":    {"running", "PodInitializing", "PodInitializing", "PodInitializing", ""},
		"they are being made":            {"PodInitializing", "PodInitializing", "PodInitializing", "PodInitializing", ""},
	} {
		t.Run(name, func(t *testing.T) {
			pod := podOf("agents-node-0", func(pod *corev1.Pod) {
				pod.Status.InitContainerStatuses = []corev1.ContainerStatus{statusOf("istio-init", test.init)}
				pod.Status.ContainerStatuses = []corev1.ContainerStatus{statusOf("istio-proxy", test.proxy), statusOf("hubnode", test.node)}
			})
			if got := problemOf(pod); got != test.want {
				t.Errorf("problem %q, want %q", got, test.want)
			}
			if got := incarnation(pod); got != test.runs {
				t.Errorf("%q runs, want %q", got, test.runs)
			}
		})
	}
}

func TestWhyNoNodeMayStop(t *testing.T) {
	status := func(led, whole int) *hubnode.Status {
		return &hubnode.Status{History: hubnode.HistoryStatus{Shards: 4, Led: led, Whole: whole}}
	}
	pods := []*corev1.Pod{podOf("agents-node-0", nil), podOf("agents-node-1", nil)}
	ending := podOf("agents-node-1", func(pod *corev1.Pod) { pod.DeletionTimestamp = &metav1.Time{Time: now} })
	for name, test := range map[string]struct {
		statuses []*hubnode.Status
		pods     []*corev1.Pod
		unsafe   bool // says the operator
		want     string
	}{
		"nothing is wrong":            {[]*hubnode.Status{status(2, 2), status(2, 2)}, pods, false, ""},
		"no history":                  {[]*hubnode.Status{{}, {}}, pods, false, ""},
		"a node is ending":            {[]*hubnode.Status{status(2, 2), nil}, []*corev1.Pod{pods[0], ending}, false, "agents-node-1 is just ending"},
		"a node is missing":           {[]*hubnode.Status{status(4, 4)}, pods[:1], false, "1 of 2 nodes exist"},
		"a shard has no leader":       {[]*hubnode.Status{status(2, 2), status(1, 1)}, pods, false, "1 of 4 shards have no leader"},
		"a replica is behind":         {[]*hubnode.Status{status(2, 2), status(2, 1)}, pods, false, "1 of 4 shards wait for replicas to catch up"},
		"one can't be asked":          {[]*hubnode.Status{status(2, 2), nil}, pods, false, ""},
		"the operator does not agree": {[]*hubnode.Status{status(2, 2), status(2, 2)}, pods, true, "the operator does not say that it is safe"},
	} {
		t.Run(name, func(t *testing.T) {
			hub := hubWith()
			hub.Status.SafeToRestart = !test.unsafe
			r := reportOf(hub, test.statuses, test.pods...)
			if r.NotSafe != test.want || r.SafeToRestart != (test.want == "") {
				t.Errorf("got %q, safe %v, want %q", r.NotSafe, r.SafeToRestart, test.want)
			}
		})
	}
}

func TestStateInOneWord(t *testing.T) {
	available := conditionOf("Available", metav1.ConditionTrue, "MajorityReady", "")
	for want, hub := range map[string]*switchboardv1alpha1.Hub{
		"well":     hubWith(available),
		"down":     hubWith(conditionOf("Available", metav1.ConditionFalse, "TooFewNodesReady", "")),
		"degraded": hubWith(available, conditionOf("Progressing", metav1.ConditionFalse, "RolloutStuck", "")),
		"changing": hubWith(available, conditionOf("Progressing", metav1.ConditionTrue, "RollingOut", "")),
		"paused":   hubWith(available),
		"stopped":  hubWith(conditionOf("Available", metav1.ConditionFalse, "ScaledToZero", "")),
	} {
		hub.Spec.Paused = want == "paused"
		if want == "stopped" {
			hub.Spec.Replicas = new(int32(0))
		}
		if got := stateOf(hub); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if headlines[want] == "" {
			t.Errorf("%s has no headline", want)
		}
	}
}

func TestEveryReasonIsGoodOrHasAdvice(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "reference", "hub.md"))
	if err != nil {
		t.Fatal(err)
	}
	// What is as it should be, or becomes so by itself.
	fine := []string{
		"MajorityReady", "Scaling", "RollingOut", "VolumesGrowing", "NodesStarting", "Complete", "AsExpected", "Applied", "Applying", "NoNodesReady",
		"Blocked", // see Degraded, its message says
		"Issued", "Rotating",
		"AwaitingCertificates", // see CertificatesReady
		"Configured",
		"AwaitingKeys", // see AuthenticationReady
	}
	rows := regexp.MustCompile("(?m)^\\| `(Available|Progressing|Degraded|ConfigApplied|UpdateAvailable|CertificatesReady|AuthenticationReady)` \\|[^|]*\\|([^|]*)\\|$").FindAllStringSubmatch(string(page), -1)
	if len(rows) != 7 {
		t.Fatalf("the page has %d conditions: %q", len(rows), rows)
	}
	for _, row := range rows {
		for _, reason := range regexp.MustCompile("`([A-Za-z]+)`").FindAllStringSubmatch(row[2], -1) {
			if has := adviceFor("agents", reason[1]) != ""; has == slices.Contains(fine, reason[1]) {
				t.Errorf("%s of %s: there is advice: %v", reason[1], row[1], has)
			}
		}
	}
}

func TestAdviceIsForWhatIsBadOrMeant(t *testing.T) {
	for _, test := range []struct {
		condition   metav1.Condition
		bad, advice bool
	}{
		{conditionOf("ConfigApplied", metav1.ConditionUnknown, "NoNodesReady", ""), true, false},
		{conditionOf("Available", metav1.ConditionFalse, "TooFewNodesReady", ""), true, true},
		{conditionOf("Available", metav1.ConditionFalse, "ScaledToZero", ""), false, true},
		{conditionOf("Available", metav1.ConditionTrue, "MajorityReady", ""), false, false},
		{conditionOf("Progressing", metav1.ConditionTrue, "ApplyFailed", ""), false, false}, // Degraded has it
		{conditionOf("Progressing", metav1.ConditionFalse, "RolloutStuck", ""), true, true},
		{conditionOf("Progressing", metav1.ConditionFalse, "Paused", ""), false, true},
		{conditionOf("Degraded", metav1.ConditionTrue, "ApplyFailed", ""), true, true},
		{conditionOf("Degraded", metav1.ConditionTrue, "DiskFull", ""), true, true},
		{conditionOf("ConfigApplied", metav1.ConditionUnknown, "NodesUnreachable", ""), true, true},
		{conditionOf("ConfigApplied", metav1.ConditionFalse, "Applying", ""), false, false},
		{conditionOf("CertificatesReady", metav1.ConditionFalse, "SecretInvalid", ""), true, true},
		{conditionOf("CertificatesReady", metav1.ConditionTrue, "Rotating", ""), false, false},
		{conditionOf("UpdateAvailable", metav1.ConditionTrue, "OperatorUpdated", ""), false, true},
	} {
		if c := newCondition(hubWith(), test.condition); c.Bad != test.bad || (c.Next != "") != test.advice {
			t.Errorf("%s for %s: bad %v, advice %q", c.Type, c.Reason, c.Bad, c.Next)
		}
	}
}

func TestAStoppedHubIsAsItShouldBe(t *testing.T) {
	hub := hubWith(
		conditionOf("Available", metav1.ConditionFalse, "ScaledToZero", "the spec asks for no nodes"),
		conditionOf("ConfigApplied", metav1.ConditionUnknown, "NoNodesReady", "no node is ready to be asked"),
	)
	hub.Spec.Replicas, hub.Status.ReadyReplicas, hub.Status.Clients = new(int32(0)), 0, 0
	//nolint:dupword // on two lines
	want := `Hub agents in prod: stopped, the spec asks for no nodes

  nodes    0 of 0 ready
  clients  0, connect to agents.prod.svc:7400
  restart  there is no node to restart

  Available      no       for 2m  ScaledToZero: the spec asks for no nodes
  ConfigApplied  unknown  for 2m  NoNodesReady: no node is ready to be asked
  → ScaledToZero: kubectl scale hub/agents --replicas=3
`
	if diff := cmp.Diff(want, reportOf(hub, nil).Text(now)); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
}
