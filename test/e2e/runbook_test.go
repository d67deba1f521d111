//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
)

const runbook = "../../docs/operations.md"

// lostMachineChapter is the one that TestLostMachine types, as its commands are for a machine
// that is off.
const lostMachineChapter = "A machine is lost"

// watchedFor is how long the test looks at what a person ends.
const watchedFor = 3 * time.Second

// TestRunbook types every command of the runbook but those about a lost machine, in its order,
// at a hub with volumes and a load. Which of them may fail when all is well, mayFail says.
func TestRunbook(t *testing.T) {
	h := newSuite(t).newHistoryTest(t)
	if !t.Run("a hub in memory becomes available", h.begin) || !t.Run("its history moves to volumes", h.moveToVolumes) {
		return
	}
	r := h.newRunbookTest(t)
	if err := os.WriteFile(filepath.Join(r.dir, "hub.yaml"), []byte(r.mustRun(t, r.kubectl, "", "-n", hubNamespace, "get", "hub", hubName, "-o", "yaml")), 0o600); err != nil {
		t.Fatal(err)
	}
	lines := runbookCommands(t, r.text)
	// The one after which there is nothing to look at any more.
	last := slices.IndexFunc(lines, func(line string) bool { return strings.Contains(line, "delete hub") })
	if last < 0 {
		t.Fatal("the runbook does not delete a hub")
	}
	for _, line := range slices.Delete(slices.Clone(lines), last, last+1) {
		if !t.Run(line, func(t *testing.T) { r.command(t, line) }) {
			return
		}
	}
	t.Run("nothing was lost", func(t *testing.T) { r.load.judge(t) })
	t.Run(lines[last], func(t *testing.T) { r.typed(t, lines[last]) })
}

// runbookTest is what the runbook's commands share.
type runbookTest struct {
	*historyTest
	text string // of the runbook
	dir  string // where they are typed
	bin  string // where kubectl and its plugin are
}

func (h *historyTest) newRunbookTest(t *testing.T) *runbookTest {
	t.Helper()
	text, err := os.ReadFile(runbook)
	if err != nil {
		t.Fatal(err)
	}
	r := &runbookTest{historyTest: h, text: string(text), dir: t.TempDir(), bin: h.binaries(t)}
	if err := os.Symlink(buildPlugin(t), filepath.Join(r.bin, "kubectl-hub")); err != nil {
		t.Fatal(err)
	}
	return r
}

// mayFail says of commands, by a part of them, with which words they may fail on a hub
// that is well: there is nothing to be found.
var mayFail = map[string]string{
	"--previous":           "previous terminated container",
	"| grep ":              "",
	"auth can-i ":          "no\n",
	"describe certificate": "the server doesn't have a resource type",
}

// command types a line and waits until the hub is at rest again.
func (r *runbookTest) command(t *testing.T, line string) {
	t.Helper()
	r.typed(t, line)
	if strings.Contains(line, `{"storage":`) {
		r.pretendGrown(t)
	}
	if strings.Contains(line, "drain MACHINE") || strings.Contains(line, "--replicas=0") || strings.Contains(line, "delete pvc") && !strings.Contains(line, "delete pod") {
		return // the next line mends it
	}
	r.eventually(t, rolloutWithin, "the hub is at rest", func(ctx context.Context) error {
		hub, err := r.hub(ctx)
		if err != nil {
			return err
		}
		if hub.Status.ObservedGeneration != hub.Generation || !hub.Status.SafeToRestart || int(hub.Status.ReadyReplicas) != int(*hub.Spec.Replicas) ||
			!meta.IsStatusConditionFalse(hub.Status.Conditions, switchboardv1alpha1.ConditionProgressing) {
			return fmt.Errorf("status %+v", hub.Status)
		}
		return nil
	})
}

// typed runs a line as it stands there, but for the names of this suite.
func (r *runbookTest) typed(t *testing.T, line string) {
	t.Helper()
	line = r.named(line)
	ctx, watched := r.ctx, strings.Contains(line, "--watch")
	if watched {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, watchedFor)
		defer cancel()
	}
	cmd := exec.CommandContext(ctx, "bash", "-o", "pipefail", "-c", line)
	cmd.WaitDelay = watchedFor
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "NS="+hubNamespace, "HUB="+hubName, "KUBE_EDITOR=true",
		"PATH="+r.bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	start := time.Now()
	out, err := cmd.CombinedOutput()
	t.Logf("%.1fs\n%s", time.Since(start).Seconds(), out)
	if err == nil || watched && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return
	}
	for part, words := range mayFail {
		if strings.Contains(line, part) && strings.Contains(string(out), words) && (words != "" || len(out) == 0) {
			return
		}
	}
	t.Fatal(err)
}

// named puts the names of this suite into a line.
func (r *runbookTest) named(line string) string {
	return strings.NewReplacer("switchboard-system", operatorNamespace, "MACHINE", r.workers[len(r.workers)-1], `"image":"…"`, `"image":"`+r.image+`"`).Replace(line)
}

// runbookCommands returns the lines of the runbook's shell blocks and the commands in its
// tables, in its order, without those about a lost machine.
func runbookCommands(t *testing.T, text string) []string {
	t.Helper()
	before, lost, ok := strings.Cut(text, "\n## "+lostMachineChapter+"\n")
	_, after, also := strings.Cut(lost, "\n## ")
	if !ok || !also {
		t.Fatalf("the runbook has no chapter %q", lostMachineChapter)
	}
	text = before + "\n## " + after
	var lines []string
	for _, m := range regexp.MustCompile("(?s)```sh\n(.*?)```|(?m)^\\| [^|]* \\| (`kubectl .*?`) \\| ").FindAllStringSubmatch(text, -1) {
		for line := range strings.Lines(strings.ReplaceAll(m[1], "\\\n", "")) {
			line, _, _ = strings.Cut(line, "  #")
			lines = append(lines, strings.TrimSpace(line))
		}
		for _, one := range regexp.MustCompile("`(kubectl [^`]*)`").FindAllStringSubmatch(m[2], -1) {
			lines = append(lines, one[1])
		}
	}
	if len(lines) < 30 {
		t.Fatalf("the runbook has %d commands: %q", len(lines), lines)
	}
	return lines
}
