//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/switchboardhub/switchboard/hubnode/placement"
)

const (
	ledgerTopics = 6
	// How many artifacts a second the ledger publishes at most.
	ledgerRate = 600
	// flowsWithin is how long it may take after a step until publishing goes on.
	flowsWithin = time.Minute
	// judgedWithin is how long the verdict may take.
	judgedWithin = 3 * time.Minute
)

// ledger is the checker, in a pod: it publishes to topics with history through the
// hub's Service, and knows what was acknowledged.
type ledger struct {
	*agent
	told int // lines that silence has read
}

// ledgerLine is what the checker says every second; the last one is the verdict.
type ledgerLine struct {
	Acknowledged  int      `json:"acknowledged"`
	SilenceMillis int      `json:"silenceMillis"`
	Stored        int      `json:"stored"`
	Followed      int      `json:"followed"`
	Handled       int      `json:"handled"`
	Repeats       int      `json:"repeats"`
	Faults        []string `json:"faults"`
}

func ledgerTopic(i int) string { return fmt.Sprintf("ledger.%d", i) }

// startLedger starts the load. At its end it reads from each of so many nodes.
func (s *suite) startLedger(t *testing.T, nodes int) *ledger {
	t.Helper()
	readers := make([]string, nodes)
	for i := range readers {
		readers[i] = member(i)
	}
	return &ledger{agent: s.startPod(t, "ledger", 0, s.checker, service(), "/checker", "--history", "-o", "json",
		"--server", service(), "--readers", strings.Join(readers, ","), "--topics", fmt.Sprint(ledgerTopics),
		"--clients", "3", "--rate", fmt.Sprint(ledgerRate))}
}

// lines returns what the checker has said.
func (l *ledger) lines(ctx context.Context) ([]ledgerLine, error) {
	logs, err := l.s.clientset.CoreV1().Pods(hubNamespace).GetLogs(l.pod, &corev1.PodLogOptions{}).DoRaw(ctx)
	if err != nil {
		return nil, err
	}
	var all []ledgerLine
	for text := range strings.Lines(string(logs)) {
		if !strings.HasPrefix(text, "{") {
			return nil, fmt.Errorf("the ledger says: %s", text)
		}
		var line ledgerLine
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			return nil, fmt.Errorf("the ledger says %q: %w", text, err)
		}
		all = append(all, line)
	}
	return all, nil
}

// flows waits until some more artifacts were acknowledged, and returns how long the
// longest was that a topic had no acknowledgement for since the last call.
func (l *ledger) flows(t *testing.T) time.Duration {
	t.Helper()
	before, longest := -1, 0
	l.s.eventually(t, flowsWithin, "artifacts are acknowledged", func(ctx context.Context) error {
		lines, err := l.lines(ctx)
		if err != nil {
			return err
		}
		if len(lines) == 0 {
			return fmt.Errorf("the ledger has not begun")
		}
		now := lines[len(lines)-1].Acknowledged
		if before < 0 {
			before = now
		}
		if now < before+ledgerRate {
			return fmt.Errorf("%d are acknowledged, which were %d", now, before)
		}
		for _, line := range lines[min(l.told, len(lines)):] {
			longest = max(longest, line.SilenceMillis)
		}
		l.told = len(lines)
		return nil
	})
	return time.Duration(longest) * time.Millisecond
}

// verdict ends the checker that is in the agent's pod, and returns all that it said.
func (a *agent) verdict(t *testing.T) string {
	t.Helper()
	a.s.mustRun(t, a.s.kubectl, "", "-n", hubNamespace, "exec", a.pod, "--", "/checker", "--stop")
	a.s.eventually(t, judgedWithin, a.pod+" is judged", func(ctx context.Context) error {
		if a.phase(ctx, corev1.PodFailed) == nil {
			return nil // the verdict says why
		}
		return a.phase(ctx, corev1.PodSucceeded)
	})
	return a.logs(t)
}

// judge ends the load and fails the test when the hub did not keep what it had
// acknowledged.
func (l *ledger) judge(t *testing.T) {
	t.Helper()
	logs := l.verdict(t)
	var verdict ledgerLine
	for text := range strings.Lines(logs) {
		if err := json.Unmarshal([]byte(text), &verdict); err != nil {
			t.Logf("the ledger says: %s", text)
		}
	}
	t.Logf("%d artifacts acknowledged, %d stored, %d followed, %d handled and %d of them again",
		verdict.Acknowledged, verdict.Stored, verdict.Followed, verdict.Handled, verdict.Repeats)
	for _, fault := range verdict.Faults {
		t.Error(fault)
	}
	if err := l.phase(l.s.ctx, corev1.PodSucceeded); err != nil {
		t.Errorf("the checker: %v\n%s", err, lastLine(logs))
	}
	if verdict.Acknowledged == 0 || verdict.Stored < verdict.Acknowledged || verdict.Followed != verdict.Stored || verdict.Handled != verdict.Stored {
		t.Errorf("verdict %+v: want all that is stored followed and handled, and all that was acknowledged stored", verdict)
	}
}

// waitReplicas waits until every topic of the ledger has a leader and its replicas are
// on the nodes of so many that they belong on, and nowhere else.
func (s *suite) waitReplicas(t *testing.T, asker *agent, nodes int) {
	t.Helper()
	s.eventually(t, rolloutWithin, fmt.Sprintf("replicas are where they belong among %d nodes", nodes), func(context.Context) error {
		for i := range ledgerTopics {
			out, err := asker.hubctl("topics", "describe", ledgerTopic(i), "-o", "json")
			if err != nil {
				return err
			}
			var topic struct {
				Leader   string `json:"leader"`
				Replicas []struct {
					Node string `json:"node"`
				} `json:"replicas"`
			}
			if err := json.Unmarshal([]byte(out), &topic); err != nil {
				return err
			}
			var have, want []string
			for _, r := range topic.Replicas {
				have = append(have, r.Node)
			}
			for _, ordinal := range placement.Replicas(placement.ShardOf(ledgerTopic(i), ledgerShards), nodes, 3) {
				want = append(want, fmt.Sprintf("%s-node-%d", hubName, ordinal))
			}
			slices.Sort(want)
			if !slices.Equal(have, want) || !slices.Contains(want, topic.Leader) {
				return fmt.Errorf("%s is on %v and led by %q, want it on %v", ledgerTopic(i), have, topic.Leader, want)
			}
		}
		return nil
	})
}
