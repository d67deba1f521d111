package kubehub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
)

// stuckHub is a Hub whose rollout is stuck and whose restart was asked for, and what the
// operator does about it.
type stuckHub struct {
	*Cluster
	hub   *switchboardv1alpha1.Hub
	ended chan error
	told  []string // owned by the wait until it has ended, read while it is blocked
}

const restartAsked = "2026-11-25T01:02:03Z"

// clusterOf is a cluster with a Hub and its StatefulSet.
func clusterOf(t *testing.T, hub *switchboardv1alpha1.Hub, set *appsv1.StatefulSet) *Cluster {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), switchboardv1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	return &Cluster{Namespace: "team-a", client: fake.NewClientBuilder().WithScheme(scheme).WithObjects(hub, set).WithStatusSubresource(hub).Build()}
}

// awaitRestart begins to wait for the restart.
func awaitRestart(t *testing.T) *stuckHub {
	t.Helper()
	s := &stuckHub{ended: make(chan error, 1), hub: &switchboardv1alpha1.Hub{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: "agents", Annotations: map[string]string{manifests.AnnotationRestartedAt: restartAsked}}}}
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: "agents-node"}}
	s.Cluster = clusterOf(t, s.hub, set)
	s.says(t, switchboardv1alpha1.ReasonRolloutStuck, "agents-node-2: the fault of before")
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	go func() {
		_, err := s.AwaitRestart(ctx, "agents", restartAsked, func(format string, args ...any) { s.told = append(s.told, fmt.Sprintf(format, args...)) })
		s.ended <- err
	}()
	return s
}

// says lets the operator give Progressing a reason.
func (s *stuckHub) says(t *testing.T, reason, message string) {
	t.Helper()
	s.hub.Status.Conditions = []metav1.Condition{{Type: switchboardv1alpha1.ConditionProgressing, Status: metav1.ConditionFalse, Reason: reason, Message: message}}
	if err := s.client.Status().Update(t.Context(), s.hub); err != nil {
		t.Fatal(err)
	}
}

// acts lets the operator change the pod template.
func (s *stuckHub) acts(t *testing.T) {
	t.Helper()
	set := &appsv1.StatefulSet{}
	set.Namespace, set.Name = "team-a", "agents-node"
	set.Spec.Template.Annotations = map[string]string{manifests.AnnotationRestartedAt: restartAsked}
	if err := s.client.Update(t.Context(), set); err != nil {
		t.Fatal(err)
	}
}

// waits says that after so long the wait goes on, and what it told last.
func (s *stuckHub) waits(t *testing.T, after time.Duration, last string) {
	t.Helper()
	time.Sleep(after)
	synctest.Wait()
	select {
	case err := <-s.ended:
		t.Fatalf("the wait ended: %v", err)
	default:
	}
	if len(s.told) == 0 || !strings.HasPrefix(s.told[len(s.told)-1], last) {
		t.Fatalf("it told %q, want the last to be %q", s.told, last)
	}
}

// isStuck says that after so long the wait has ended with these words.
func (s *stuckHub) isStuck(t *testing.T, after time.Duration, words string) {
	t.Helper()
	time.Sleep(after)
	synctest.Wait()
	select {
	case err := <-s.ended:
		if err == nil || err.Error() != "the restart is stuck: "+words {
			t.Errorf("the wait ended with %v", err)
		}
	default:
		t.Errorf("it waits still, and told %q", s.told)
	}
}

func TestRestartOfAStuckHubIsNotJudgedByTheOldCondition(t *testing.T) {
	t.Run("that gets stuck again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := awaitRestart(t)
			s.waits(t, 5*time.Minute, "the operator has not taken it up yet")
			s.acts(t)
			s.waits(t, 10*time.Second, "0 of 3 nodes are restarted")
			s.says(t, switchboardv1alpha1.ReasonRollingOut, "waiting for Kubernetes to act on the StatefulSet")
			s.waits(t, 5*time.Minute, "0 of 3 nodes are restarted")
			s.says(t, switchboardv1alpha1.ReasonRolloutStuck, "agents-node-2: another fault")
			s.isStuck(t, 2*time.Second, "agents-node-2: another fault")
		})
	})
	t.Run("that stays stuck", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := awaitRestart(t)
			s.acts(t)
			s.waits(t, 10*time.Second, "0 of 3 nodes are restarted")
			s.isStuck(t, time.Minute, "agents-node-2: the fault of before")
		})
	})
}

func TestRestartOfAStoppedHubReplacesNobody(t *testing.T) {
	annotations := map[string]string{manifests.AnnotationRestartedAt: restartAsked}
	hub := &switchboardv1alpha1.Hub{
		ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: "agents", Annotations: annotations},
		Spec:       switchboardv1alpha1.HubSpec{Replicas: new(int32(0))},
		Status:     switchboardv1alpha1.HubStatus{SafeToRestart: true},
	}
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: "agents-node"}}
	set.Spec.Template.Annotations = annotations
	done, err := clusterOf(t, hub, set).AwaitRestart(t.Context(), "agents", restartAsked, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := done.String(), "Hub agents is stopped: there was no node to replace"; got != want {
		t.Errorf("it says %q, want %q", got, want)
	}
	done.Seconds = 0
	text, err := json.Marshal(done)
	if got, want := string(text), `{"hub":"agents","nodes":[],"seconds":0,"replicas":0,"readyReplicas":0}`; err != nil || got != want {
		t.Errorf("in JSON %s (%v), want %s", got, err, want)
	}
}
