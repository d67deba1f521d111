//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/test/check"
)

const (
	// machineWithin is how long Kubernetes may take to see that a machine is back.
	machineWithin = 2 * time.Minute
	// elsewhereWithin is how long a client may take to give a silent node up, 25 s by default,
	// and to find another.
	elsewhereWithin = 2 * time.Minute
	// strandedClients are connected to the node whose machine loses power.
	strandedClients = 100
)

// lostYAML is the ledger's Hub, whose pods Kubernetes deletes soon after it has lost sight of
// their machine, and which have little time to end.
var lostYAML = strings.NewReplacer("timeout: 10s", "timeout: 1s", "  topics:\n", `  pod:
    tolerations:
    - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 5}
    - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 5}
  topics:
`).Replace(ledgerYAML)

// keeperYAML is a Hub with volumes, each on the machine that its pod was first scheduled to, and
// whose pods Kubernetes would delete after five minutes, as by default.
const (
	keeper     = "keeper"
	keeperYAML = `apiVersion: switchboard.dev/v1alpha1
kind: Hub
metadata:
  name: keeper
spec:
  replicas: 3
  storage: {size: 1Gi, shards: 4}
  drain:
    timeout: 10s
  topics:
  - pattern: kept
    history: {maxArtifacts: 100}
`
)

// TestLostMachine takes the power from a machine with a node of each of two hubs, and does what
// the runbook says, which has to be what the Hubs say.
func TestLostMachine(t *testing.T) {
	power := machinePower(t)
	s := newSuite(t)
	if len(s.workers) < 3 {
		t.Skipf("of %d machines none can be lost: three are needed", len(s.workers))
	}
	l := &lostMachineTest{runbookTest: s.newHistoryTest(t).newRunbookTest(t), power: power, stood: make(map[string]string)}
	l.choose(t)
	t.Cleanup(func() { l.restore(t) }) // before all else is tidied

	_ = t.Run("a hub in memory and one whose volumes are tied to machines become available", l.begin) &&
		t.Run("a machine loses power and clients of its node go on at others", l.losePower) &&
		t.Run("the Hubs say what is wrong and what to do", l.say) &&
		t.Run("what they say lets go of the pods", l.letGo) &&
		t.Run("the machine comes back", l.comeBack) &&
		t.Run("clients lost no more than a crash may cost", func(t *testing.T) {
			l.crowd.judge(t, check.Allowed{Lost: crowdRate}) // what the node had taken and not passed on, well below a second's
		}) &&
		t.Run("the ledger lost nothing", func(t *testing.T) { l.load.judge(t) })
}

// power is the commands that switch a machine off and on, given its name.
type power struct{ down, up string }

func machinePower(t *testing.T) power {
	t.Helper()
	p := power{down: os.Getenv("NODE_DOWN"), up: os.Getenv("NODE_UP")}
	if p.down == "" || p.up == "" {
		t.Skip("set NODE_DOWN and NODE_UP to commands that take the power from a machine and give it back, given its name")
	}
	return p
}

// lostMachineTest is what the steps of TestLostMachine share.
type lostMachineTest struct {
	*runbookTest
	power power
	// machine is the one that is lost. It is the last of the workers, so that the load is on others.
	machine string
	off     bool
	tainted bool
	crowd   *crowd
	stood   map[string]string // pods that were on the machine, by Hub
}

// choose takes a machine that neither the operator nor the cluster's DNS is on: that they are
// away would be another test.
func (l *lostMachineTest) choose(t *testing.T) {
	t.Helper()
	needed := make(map[string]bool)
	for _, of := range [][]client.ListOption{
		{client.InNamespace(operatorNamespace)},
		{client.InNamespace(metav1.NamespaceSystem), client.MatchingLabels{"k8s-app": "kube-dns"}},
	} {
		var pods corev1.PodList
		if err := l.client.List(l.ctx, &pods, of...); err != nil {
			t.Fatal(err)
		}
		for i := range pods.Items {
			needed[pods.Items[i].Spec.NodeName] = true
		}
	}
	i := slices.IndexFunc(l.workers, func(worker string) bool { return !needed[worker] })
	if i < 0 {
		t.Fatalf("the operator or DNS are on each machine of %v", l.workers)
	}
	l.machine = l.workers[i]
	l.workers = append(slices.Delete(slices.Clone(l.workers), i, i+1), l.machine)
	t.Logf("%s is to be lost", l.machine)
}

// chapter returns the commands of the runbook for a lost machine: for looking, for letting go of
// its pods, and for when it is back.
func (l *lostMachineTest) chapter(t *testing.T) (look []string, letGo, back string) {
	t.Helper()
	lines := commands(t, l.text, lostMachineChapter)
	i := slices.IndexFunc(lines, func(line string) bool { return strings.Contains(line, corev1.TaintNodeOutOfService) })
	if i < 1 || i != len(lines)-2 {
		t.Fatalf("the chapter's commands are %q, want such to look by, one that taints the machine, and one for when it is back", lines)
	}
	return lines[:i], lines[i], lines[i+1]
}

// switched runs the command that switches the machine.
func (l *lostMachineTest) switched(t *testing.T, command string) {
	t.Helper()
	l.mustRun(t, "bash", "", "-c", command+` "$1"`, "switch", l.machine)
}

// restore leaves no machine behind that is off, whatever the steps came to.
func (l *lostMachineTest) restore(t *testing.T) {
	t.Helper()
	if !l.off && !l.tainted {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), machineWithin+time.Minute) // the test's own has ended
	defer cancel()
	restoring := *l.suite
	restoring.ctx = ctx
	for _, args := range [][]string{
		{"get", "nodes"},
		{"-n", hubNamespace, "get", "pods", "-o", "wide"},
		{"-n", hubNamespace, "get", "hubs", "-o", "jsonpath={range .items[*].status.conditions[*]}{.type}={.status} {.reason}: {.message}{'\\n'}{end}"},
	} {
		out, err := restoring.run(l.kubectl, "", args...)
		t.Logf("while %s is lost: kubectl %v\n%s%v", l.machine, args, out, err)
	}
	if l.off {
		if out, err := restoring.run("bash", "", "-c", l.power.up+` "$1"`, "switch", l.machine); err != nil {
			t.Errorf("switch on %s: %v\n%s", l.machine, err, out)
		}
	}
	if l.tainted {
		if out, err := restoring.run(l.kubectl, "", "taint", "node", l.machine, corev1.TaintNodeOutOfService+"-"); err != nil {
			t.Errorf("take the taint away: %v\n%s", err, out)
		}
	}
	restoring.waitMachine(t, l.machine)
}

// waitMachine waits until the machine takes pods.
func (s *suite) waitMachine(t *testing.T, name string) {
	t.Helper()
	s.eventually(t, machineWithin, "machine "+name+" takes pods", func(ctx context.Context) error {
		var node corev1.Node
		if err := s.client.Get(ctx, client.ObjectKey{Name: name}, &node); err != nil {
			return err
		}
		ready := slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
		})
		if !ready || len(node.Spec.Taints) > 0 || node.Spec.Unschedulable {
			return fmt.Errorf("ready: %v, taints %+v", ready, node.Spec.Taints)
		}
		return nil
	})
}

// keep publishes what the keeper keeps: its number, which is its sequence.
func (l *lostMachineTest) keep(t *testing.T, number string) {
	t.Helper()
	l.eventually(t, heardWithin, "the keeper keeps "+number, func(context.Context) error {
		out, err := l.asker.hubctl("--server", keeper+"."+hubNamespace+".svc:7400", "pub", "kept", number, "--id", "keeping-"+number)
		if err == nil && strings.TrimSpace(out) != number {
			t.Fatalf("pub printed %q, want sequence %s", out, number)
		}
		return err
	})
}

func (l *lostMachineTest) begin(t *testing.T) {
	l.mustRun(t, l.kubectl, keeperYAML, "-n", hubNamespace, "apply", "-f", "-")
	l.beginWith(t, lostYAML)
	l.waitWell(t, keeper)
	l.keep(t, "1")
	for _, hub := range []string{hubName, keeper} {
		on := l.standing(t, hub)
		if len(on[l.machine]) != 1 || len(on) != 3 {
			t.Fatalf("pods are on %v, want one on each machine", on)
		}
		l.stood[hub] = on[l.machine][0]
	}
}

// standing returns the names of a Hub's pods by their machines.
func (l *lostMachineTest) standing(t *testing.T, hub string) map[string][]string {
	t.Helper()
	var pods corev1.PodList
	if err := l.client.List(l.ctx, &pods, client.InNamespace(hubNamespace),
		client.MatchingLabels{"app.kubernetes.io/instance": hub, "app.kubernetes.io/component": "node"}); err != nil {
		t.Fatal(err)
	}
	on := make(map[string][]string)
	for i := range pods.Items {
		on[pods.Items[i].Spec.NodeName] = append(on[pods.Items[i].Spec.NodeName], pods.Items[i].Name)
	}
	return on
}

// losePower switches the machine off while a crowd is connected to its node.
func (l *lostMachineTest) losePower(t *testing.T) {
	pod := l.stood[hubName]
	l.crowd = l.startCrowdAt(t, fmt.Sprintf("%s.%s-nodes.%s.svc:7400", pod, hubName, hubNamespace), strandedClients)
	l.load.flows(t)
	survivors := l.survivors(t)
	before, err := l.connected(survivors)
	if err != nil {
		t.Fatal(err)
	}
	var stranded []string
	for id, node := range before {
		if node == pod {
			stranded = append(stranded, id)
		}
	}
	if len(stranded) < strandedClients {
		t.Fatalf("%d clients are at %s, want %d or more", len(stranded), pod, strandedClients)
	}
	start := time.Now()
	l.off = true
	l.switched(t, l.power.down)
	l.eventually(t, elsewhereWithin, "all clients are at other nodes", func(context.Context) error {
		now, err := l.connected(survivors)
		if err != nil {
			return err
		}
		for id := range before {
			if node := now[id]; node == "" || node == pod {
				return fmt.Errorf("%s is at %q", id, node)
			}
		}
		return nil
	})
	t.Logf("%d of %d clients were at the lost node; all are at others %.1fs after its machine lost power", len(stranded), len(before), time.Since(start).Seconds())
	t.Logf("at most %.1fs without an acknowledgement", l.load.flows(t).Seconds())
	if err := l.condition(l.ctx, switchboardv1alpha1.ConditionAvailable); err != nil {
		t.Error(err)
	}
}

// connected returns the nodes that clients are at, by their ids, as servers say.
func (l *lostMachineTest) connected(servers string) (map[string]string, error) {
	out, err := l.asker.hubctl("--server", servers, "--id", "looking", "clients", "-o", "json")
	if err != nil {
		return nil, err
	}
	var list struct {
		Clients []struct {
			ID   string `json:"id"`
			Node string `json:"node"`
		} `json:"clients"`
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return nil, fmt.Errorf("the hub says %q: %w", out, err)
	}
	at := make(map[string]string)
	for _, c := range list.Clients {
		at[c.ID] = c.Node
	}
	return at, nil
}

// survivors are the addresses of the nodes that are not on the lost machine.
func (l *lostMachineTest) survivors(t *testing.T) string {
	t.Helper()
	var servers []string
	for machine, pods := range l.standing(t, hubName) {
		for _, pod := range pods {
			if machine != l.machine {
				servers = append(servers, fmt.Sprintf("%s.%s-nodes.%s.svc:7400", pod, hubName, hubNamespace))
			}
		}
	}
	return strings.Join(servers, ",")
}

// say waits until each Hub names pod, machine and next step, which is the runbook's: the one
// when Kubernetes has deleted the pod, the other when it has not yet.
func (l *lostMachineTest) say(t *testing.T) {
	start := time.Now()
	look, letGo, _ := l.chapter(t)
	step := ": " + l.named(letGo)
	l.waitDegraded(t, keeper, l.stood[keeper]+": not ready for more than", "machine "+l.machine+" seems to be lost", step)
	t.Logf("the Hub whose pod Kubernetes has not deleted says so %.1fs after its clients had gone", time.Since(start).Seconds())
	l.waitDegraded(t, hubName, l.stood[hubName]+": does not end", "machine "+l.machine+" seems to be lost", step)
	t.Logf("the Hub whose pod is to end says so after %.1fs", time.Since(start).Seconds())
	for _, line := range look {
		t.Logf("$ %s", line)
		l.typed(t, line)
	}
}

// waitDegraded waits until a Hub says in these words that nodes fail, and that it goes on.
func (l *lostMachineTest) waitDegraded(t *testing.T, hub string, words ...string) {
	t.Helper()
	l.eventually(t, rolloutWithin, hub+" says what is wrong", func(ctx context.Context) error {
		var h switchboardv1alpha1.Hub
		if err := l.client.Get(ctx, client.ObjectKey{Namespace: hubNamespace, Name: hub}, &h); err != nil {
			return err
		}
		c := meta.FindStatusCondition(h.Status.Conditions, switchboardv1alpha1.ConditionDegraded)
		if c == nil || c.Status != metav1.ConditionTrue || c.Reason != switchboardv1alpha1.ReasonNodesFailing {
			return fmt.Errorf("conditions %+v", h.Status.Conditions)
		}
		for _, want := range words {
			if !strings.Contains(c.Message, want) {
				return fmt.Errorf("it says %q, want %q", c.Message, want)
			}
		}
		if h.Status.Ready != "2/3" || h.Status.SafeToRestart || !meta.IsStatusConditionTrue(h.Status.Conditions, switchboardv1alpha1.ConditionAvailable) {
			return fmt.Errorf("status %+v, want two of three ready, and available", h.Status)
		}
		return nil
	})
}

// waitWell waits until nothing is wrong with a Hub of three.
func (l *lostMachineTest) waitWell(t *testing.T, hub string) {
	t.Helper()
	l.eventually(t, rolloutWithin, hub+" is well", func(ctx context.Context) error {
		var h switchboardv1alpha1.Hub
		if err := l.client.Get(ctx, client.ObjectKey{Namespace: hubNamespace, Name: hub}, &h); err != nil {
			return err
		}
		for _, condition := range []string{switchboardv1alpha1.ConditionDegraded, switchboardv1alpha1.ConditionProgressing} {
			if !meta.IsStatusConditionFalse(h.Status.Conditions, condition) {
				return fmt.Errorf("conditions %+v", h.Status.Conditions)
			}
		}
		if h.Status.Ready != "3/3" || !h.Status.SafeToRestart {
			return fmt.Errorf("status %+v", h.Status)
		}
		return nil
	})
}

// letGo tells Kubernetes that the machine is off: the node without a volume starts on another
// machine, the one whose volume is on this one says what it waits for.
func (l *lostMachineTest) letGo(t *testing.T) {
	_, letGo, _ := l.chapter(t)
	l.step(t, "said that the machine is off", func() {
		l.tainted = true
		l.typed(t, letGo)
		l.waitElsewhere(t, l.stood[hubName])
	})
	l.waitWell(t, hubName)
	l.waitDegraded(t, keeper, l.stood[keeper]+": can't be scheduled", "Its volume is tied to a machine", "kubectl delete pvc history-"+l.stood[keeper])
	l.keep(t, "2")
}

// waitElsewhere waits until a pod of the name is on another machine.
func (l *lostMachineTest) waitElsewhere(t *testing.T, pod string) {
	t.Helper()
	l.eventually(t, rolloutWithin, pod+" is on another machine", func(ctx context.Context) error {
		var now corev1.Pod
		if err := l.client.Get(ctx, client.ObjectKey{Namespace: hubNamespace, Name: pod}, &now); err != nil {
			return err
		}
		if now.Spec.NodeName == "" || now.Spec.NodeName == l.machine {
			return fmt.Errorf("it is on %q", now.Spec.NodeName)
		}
		return nil
	})
}

// comeBack switches the machine on: the node whose volume is there starts with it, and nothing
// becomes of those that have moved.
func (l *lostMachineTest) comeBack(t *testing.T) {
	before := l.incarnations(t)
	_, _, back := l.chapter(t)
	start := time.Now()
	l.switched(t, l.power.up)
	l.off = false
	l.typed(t, back)
	l.tainted = false
	l.waitMachine(t, l.machine)
	t.Logf("the machine takes pods %.1fs after it was switched on", time.Since(start).Seconds())
	l.waitWell(t, keeper)
	t.Logf("the Hub with a volume on it is whole %.1fs after the machine was switched on", time.Since(start).Seconds())
	l.keep(t, "3")
	server := fmt.Sprintf("%s.%s-nodes.%s.svc:7400", l.stood[keeper], keeper, hubNamespace)
	reader := l.startAgent(t, "reader", 2, server, "sub", "kept", "--since", "all", "--count", "3", "-o", "json") // on the machine itself
	checkReplay(t, "reader", reader.waitArtifacts(t), 1, 3)
	if on := l.standing(t, keeper); len(on) != 3 || len(on[l.machine]) != 1 {
		t.Errorf("pods are on %v, want one on each machine", on)
	}
	l.waitWell(t, hubName)
	if after := l.incarnations(t); !maps.Equal(before, after) {
		t.Errorf("nodes elsewhere were restarted: had %v, have %v", before, after)
	}
	l.load.flows(t)
}
