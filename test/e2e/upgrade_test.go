//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/test/check"
)

// TestUpgrade goes from the version before this one to this one and back, as a platform
// team does it: the operator first, which restarts no node, then the nodes, when somebody
// asks for it. A thousand clients send to each other meanwhile and others keep a ledger.
func TestUpgrade(t *testing.T) {
	previous := previousVersion(t)
	s := newSuite(t)
	u := &upgradeTest{historyTest: historyTest{suite: s}, previous: previous}
	s.makeNamespaces(t)

	_ = t.Run("the version before is installed", func(t *testing.T) { s.helmInstall(t, previous.chart, previous.image) }) &&
		t.Run("its hub becomes available", u.begin) &&
		t.Run("a thousand clients come", func(t *testing.T) { u.crowd = s.startCrowd(t, 1000) }) &&
		t.Run("the operator is upgraded, the nodes are not", u.upgradeOperator) &&
		t.Run("the nodes are upgraded", func(t *testing.T) { u.restartOnto(t, s.image) }) &&
		t.Run("the operator is rolled back, the nodes are not", u.rollBackOperator) &&
		t.Run("the nodes are rolled back", func(t *testing.T) { u.restartOnto(t, previous.image) }) &&
		t.Run("the thousand lost nothing", func(t *testing.T) { u.crowd.judge(t, check.Allowed{}) }) &&
		t.Run("the ledger lost nothing", func(t *testing.T) { u.load.judge(t) })
}

// version is an operator's chart and image.
type version struct{ chart, image string }

// previousVersion is the one before this one.
func previousVersion(t *testing.T) version {
	t.Helper()
	v := version{chart: os.Getenv("PREVIOUS_CHART"), image: os.Getenv("PREVIOUS_IMAGE")}
	if v.chart == "" || v.image == "" {
		t.Skip("set PREVIOUS_CHART and PREVIOUS_IMAGE, as make previous-archive builds them, to upgrade from")
	}
	return v
}

// upgradeTest is what the steps of TestUpgrade share.
type upgradeTest struct {
	historyTest
	previous version
	crowd    *crowd
}

func (u *upgradeTest) upgradeOperator(t *testing.T) {
	repository, tag := splitImage(u.image)
	u.changeOperator(t, "upgraded the operator", u.image, "upgrade", release, "../../charts/switchboard", "--reset-then-reuse-values",
		"--set", "image.repository="+repository, "--set", "image.tag="+tag)
}

func (u *upgradeTest) rollBackOperator(t *testing.T) {
	u.changeOperator(t, "rolled the operator back", u.previous.image, "rollback", release)
}

// changeOperator replaces the operator and waits until the one of image has said what it
// would change. It changes nothing by itself.
func (u *upgradeTest) changeOperator(t *testing.T, what, image string, helm ...string) {
	t.Helper()
	before := u.incarnations(t)
	u.step(t, what, func() {
		u.mustRun(t, u.helm, "", append(helm, "--namespace", operatorNamespace, "--wait", "--timeout", installWithin.String())...)
		u.eventually(t, rolloutWithin, "the Hub says that the nodes are of another version", func(ctx context.Context) error {
			hub, err := u.hub(ctx)
			if err != nil {
				return err
			}
			if !meta.IsStatusConditionTrue(hub.Status.Conditions, switchboardv1alpha1.ConditionUpdateAvailable) {
				return fmt.Errorf("conditions %+v", hub.Status.Conditions)
			}
			return nil
		})
	})
	if after := u.incarnations(t); !maps.Equal(before, after) {
		t.Errorf("nodes were restarted: had %v, have %v", before, after)
	}
	for _, pod := range u.hubPods(t) {
		if pod.Spec.Containers[0].Image == image {
			t.Errorf("%s runs the operator's image already", pod.Name)
		}
	}
}

// restartOnto asks for a restart of the nodes, which then run image.
func (u *upgradeTest) restartOnto(t *testing.T, image string) {
	t.Helper()
	pods := u.hubPods(t)
	var took time.Duration
	u.step(t, fmt.Sprintf("restarted the nodes with %d clients onto the other version", u.crowd.clients), func() {
		start := time.Now()
		u.mustRun(t, u.kubectl, "", "-n", hubNamespace, "annotate", "hub", hubName, "--overwrite",
			"switchboard.dev/restarted-at="+start.UTC().Format(time.RFC3339Nano))
		u.waitReplaced(t, pods...)
		u.waitSafe(t)
		took = time.Since(start)
	})
	t.Logf("a rollout of three nodes with %d clients took %.1fs, until any one of them may stop again", u.crowd.clients, took.Seconds())
	for _, pod := range u.hubPods(t) {
		if got := pod.Spec.Containers[0].Image; got != image {
			t.Errorf("%s runs %s, want %s", pod.Name, got, image)
		}
	}
	hub, err := u.hub(u.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if c := meta.FindStatusCondition(hub.Status.Conditions, switchboardv1alpha1.ConditionUpdateAvailable); c != nil {
		t.Errorf("UpdateAvailable is still there: %+v", c)
	}
}
