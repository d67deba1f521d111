package controllers_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
)

// rawGrant is a Grant as a person writes it.
func rawGrant(t *testing.T, namespace, name, spec string) *unstructured.Unstructured {
	t.Helper()
	grant := rawTopic(t, namespace, name, spec)
	grant.SetGroupVersionKind(switchboardv1alpha1.GroupVersion.WithKind("Grant"))
	return grant
}

// grantInTest is a Grant in the cluster.
type grantInTest struct {
	*cluster
	key client.ObjectKey
}

// createGrant creates a Grant; an empty namespace is a new one.
func (c *cluster) createGrant(t *testing.T, namespace, name, spec string) *grantInTest {
	t.Helper()
	if namespace == "" {
		namespace = c.namespace(t)
	}
	if err := c.Create(t.Context(), rawGrant(t, namespace, name, spec)); err != nil {
		t.Fatalf("create the Grant: %v", err)
	}
	return &grantInTest{c, client.ObjectKey{Namespace: namespace, Name: name}}
}

func (x *grantInTest) get(t *testing.T) *switchboardv1alpha1.Grant {
	t.Helper()
	grant := &switchboardv1alpha1.Grant{}
	if err := x.Get(t.Context(), x.key, grant); err != nil {
		t.Fatalf("get the Grant: %v", err)
	}
	return grant
}

// waitForCondition waits until the current generation has the condition.
func (x *grantInTest) waitForCondition(t *testing.T, condition string, status metav1.ConditionStatus, reason string) *metav1.Condition {
	t.Helper()
	var got *metav1.Condition
	eventually(t, func() error {
		grant := x.get(t)
		got = meta.FindStatusCondition(grant.Status.Conditions, condition)
		if got == nil || got.Status != status || got.Reason != reason || got.ObservedGeneration != grant.Generation {
			return fmt.Errorf("generation %d, status %+v: want %s=%s for %s", grant.Generation, grant.Status, condition, status, reason)
		}
		return nil
	})
	return got
}

func (x *grantInTest) waitUntilAccepted(t *testing.T) {
	t.Helper()
	x.waitForCondition(t, switchboardv1alpha1.ConditionAccepted, metav1.ConditionTrue, switchboardv1alpha1.ReasonAccepted)
}

// waitUntilRefused waits until the Grant is refused and returns why.
func (x *grantInTest) waitUntilRefused(t *testing.T, reason string) string {
	t.Helper()
	return x.waitForCondition(t, switchboardv1alpha1.ConditionAccepted, metav1.ConditionFalse, reason).Message
}

func (x *grantInTest) change(t *testing.T, mutate func(*switchboardv1alpha1.GrantSpec)) {
	t.Helper()
	grant := x.get(t)
	before := grant.DeepCopy()
	mutate(&grant.Spec)
	if err := x.Patch(t.Context(), grant, client.MergeFrom(before)); err != nil {
		t.Fatalf("change the Grant: %v", err)
	}
}

// waitForRules waits until the nodes' settings have just these rules, as name and what
// may be published.
func (h *hubInTest) waitForRules(t *testing.T, want ...string) {
	t.Helper()
	eventually(t, func() error {
		settings, _ := h.settings(t)
		var got []string
		for _, r := range settings.Authorization.Rules {
			got = append(got, strings.TrimSpace(r.Name+": "+strings.Join(r.Publish, " ")))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("rules in the settings (-want +got):\n%s", diff)
		}
		return nil
	})
}

func TestGrantReachesTheNodes(t *testing.T) {
	c := useCluster(t)
	team := c.namespace(t)
	h := createHub(t, c, "{replicas: 1, authentication: {serviceAccount: {}}, authorization: {rules: [{name: own, publish: [own]}], delegations: [{namespaces: ["+team+"], topics: ['{namespace}.>']}]}}")
	pods := h.settle(t)
	x := h.createGrant(t, team, "jobs", h.ref(", rules: [{name: workers, publish: ["+team+".jobs.>]}]"))
	x.waitUntilAccepted(t)
	name := "grant " + team + "/jobs/workers: "
	h.waitForRules(t, "own: own", name+team+".jobs.>")
	x.waitForCondition(t, switchboardv1alpha1.ConditionApplied, metav1.ConditionFalse, switchboardv1alpha1.ReasonApplying)
	h.reload(t, pods...)
	h.poke(t, pods[0])
	x.waitForCondition(t, switchboardv1alpha1.ConditionApplied, metav1.ConditionTrue, switchboardv1alpha1.ReasonApplied)
	h.waitForCondition(t, switchboardv1alpha1.ConditionGrantsAccepted, metav1.ConditionTrue, switchboardv1alpha1.ReasonAllAccepted)
	c.waitForEvent(t, "Grant", x.key, corev1.EventTypeNormal, switchboardv1alpha1.ReasonAccepted)

	// Beyond what is delegated it allows nothing at all, until it is.
	x.change(t, func(s *switchboardv1alpha1.GrantSpec) {
		s.Rules[0].Publish = append(s.Rules[0].Publish, "public.>")
	})
	why := x.waitUntilRefused(t, switchboardv1alpha1.ReasonNotDelegated)
	if want := `{namespaces: [` + team + `], topics: ["public.>"]}`; !strings.Contains(why, want) {
		t.Errorf("got %s, want it to say %s", why, want)
	}
	h.waitForRules(t, "own: own")
	h.waitForCondition(t, switchboardv1alpha1.ConditionGrantsAccepted, metav1.ConditionFalse, switchboardv1alpha1.ReasonSomeRefused)
	c.waitForEvent(t, "Grant", x.key, corev1.EventTypeWarning, switchboardv1alpha1.ReasonNotDelegated)
	h.change(t, func(s *switchboardv1alpha1.HubSpec) {
		d := &s.Authorization.Delegations[0]
		d.Topics = append(d.Topics, "public.>")
	})
	x.waitUntilAccepted(t)
	h.waitForRules(t, "own: own", name+team+".jobs.> public.>")

	if err := c.Delete(t.Context(), x.get(t)); err != nil {
		t.Fatal(err)
	}
	h.waitForRules(t, "own: own")
	eventually(t, func() error {
		if c := meta.FindStatusCondition(h.get(t).Status.Conditions, switchboardv1alpha1.ConditionGrantsAccepted); c != nil {
			return fmt.Errorf("without Grants there is %+v", c)
		}
		return nil
	})
}

func TestGrantWithoutItsHub(t *testing.T) {
	c := useCluster(t)
	team := c.namespace(t)
	x := c.createGrant(t, team, "jobs", "{hubRef: {name: agents}, rules: [{name: r, publish: [a]}]}")
	if got, want := x.waitUntilRefused(t, switchboardv1alpha1.ReasonHubNotFound), "there is no Hub agents in namespace "+team; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	hub := rawHub(t, team, "agents", "{replicas: 0, authentication: {serviceAccount: {}}, authorization: {delegations: [{namespaces: [x], topics: [a]}, {namespaces: ['*'], topics: ['*']}]}}")
	if err := c.Create(t.Context(), hub); err != nil {
		t.Fatal(err)
	}
	x.waitUntilAccepted(t)
	if err := c.Delete(t.Context(), hub); err != nil {
		t.Fatal(err)
	}
	x.waitUntilRefused(t, switchboardv1alpha1.ReasonHubNotFound)
	if err := c.Delete(t.Context(), x.get(t)); err != nil {
		t.Fatal(err)
	}
	if err := c.Get(t.Context(), x.key, &switchboardv1alpha1.Grant{}); !apierrors.IsNotFound(err) {
		t.Errorf("the deleted Grant is held up: %v", err)
	}
}

func TestAPIServerRefusesInvalidGrant(t *testing.T) {
	c := useCluster(t)
	ns := c.namespace(t)
	for name, tt := range map[string]struct{ spec, field, text string }{
		"nothing":                     {"{}", "spec.hubRef", "Required"},
		"no rules":                    {"{hubRef: {name: a}, rules: []}", "spec.rules", "should have at least 1 items"},
		"a rule of no name":           {"{hubRef: {name: a}, rules: [{publish: [a]}]}", "spec.rules[0].name", "Required"},
		"a rule twice":                {"{hubRef: {name: a}, rules: [{name: a}, {name: a}]}", "spec.rules[1]", "Duplicate value"},
		"a topic that is none":        {"{hubRef: {name: a}, rules: [{name: a, publish: [a..b]}]}", "spec.rules[0].publish[0]", "must be tokens joined by dots"},
		"an id for anybody":           {"{hubRef: {name: a}, rules: [{name: a, connectAs: ['{id}']}]}", "spec.rules[0].connectAs", "must not have {id}"},
		"an id with an unknown value": {"{hubRef: {name: a}, rules: [{name: a, sendTo: ['{x}']}]}", "spec.rules[0].sendTo[0]", "there are {namespace}, {serviceAccount}, {name}, {id} and {claims.NAME}"},
		"all there is":                {"{hubRef: {name: a, namespace: b}, rules: [{name: a, when: 'true', connectAs: ['{namespace}/*'], sendTo: [a], publish: [a.>], subscribe: ['*'], history: ['>']}]}", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.Create(t.Context(), rawGrant(t, ns, "jobs", tt.spec), client.DryRunAll)
			switch {
			case tt.field == "" && err != nil:
				t.Errorf("create = %v, want it accepted", err)
			case tt.field != "" && (!apierrors.IsInvalid(err) || !strings.Contains(err.Error(), tt.field+":") || !strings.Contains(err.Error(), tt.text)):
				t.Errorf("create = %v\nwant the field %s and the text %q", err, tt.field, tt.text)
			}
		})
	}
	t.Run("with a right over the hub", func(t *testing.T) {
		grant := rawGrant(t, ns, "jobs", "{hubRef: {name: a}, rules: [{name: a, admin: View}]}")
		if err := client.WithFieldValidation(c, metav1.FieldValidationStrict).Create(t.Context(), grant); err == nil {
			t.Error("it was accepted")
		}
	})
	t.Run("moved to another hub", func(t *testing.T) {
		x := c.createGrant(t, ns, "moved", "{hubRef: {name: a}, rules: [{name: a}]}")
		grant := x.get(t)
		before := grant.DeepCopy()
		grant.Spec.HubRef.Name = "b"
		if err := c.Patch(t.Context(), grant, client.MergeFrom(before)); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "can't be changed: make a new Grant") {
			t.Errorf("got %v", err)
		}
	})
}
