package controllers_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	"sigs.k8s.io/controller-runtime/pkg/client"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
)

// rightsLog remembers the rights by which the API server answered the operator,
// as in "create apps/statefulsets".
type rightsLog struct {
	mu   sync.Mutex // guards used
	used sets.Set[string]
}

func (l *rightsLog) wrap(next http.RoundTripper) http.RoundTripper {
	requests := &apirequest.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		resp, err := next.RoundTrip(req)
		info, infoErr := requests.NewRequestInfo(req)
		if err != nil || infoErr != nil || !info.IsResourceRequest || resp.StatusCode == http.StatusForbidden {
			return resp, err
		}
		resource := info.Resource
		if info.Subresource != "" {
			resource += "/" + info.Subresource
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.used.Insert(right(info.Verb, info.APIGroup, resource))
		if info.Verb == "patch" && resp.StatusCode == http.StatusCreated { // applied, and it was not there
			l.used.Insert(right("create", info.APIGroup, resource))
		}
		return resp, err
	})
}

func (l *rightsLog) uses(right string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.used.Has(right)
}

func right(verb, group, resource string) string { return verb + " " + group + "/" + resource }

// rightsOf lists what rules grant.
func rightsOf(rules []rbacv1.PolicyRule) []string {
	var rights []string
	for _, rule := range rules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					rights = append(rights, right(verb, group, resource))
				}
			}
		}
	}
	return rights
}

// unseen are the rights without which something fails that no request of these
// tests shows, and what that is.
var unseen = map[string]string{
	"update switchboard.dev/hubs/finalizers": "the API server asks for it when a child's owner reference blocks the Hub's deletion (OwnerReferencesPermissionEnforcement)",
	"patch events.k8s.io/events":             "an event that is repeated within minutes becomes a series",
	"list switchboard.dev/hubs":              noStream,
	"list switchboard.dev/topics":            noStream,
	"list switchboard.dev/grants":            noStream,
	"list /configmaps":                       noStream,
	"list /persistentvolumeclaims":           noStream,
	"list /pods":                             noStream,
	"list /serviceaccounts":                  noStream,
	"list /services":                         noStream,
	"list apps/statefulsets":                 noStream,
	"list networking.k8s.io/networkpolicies": noStream,
	"list policy/poddisruptionbudgets":       noStream,
}

// noStream is why the cache may list: here a watch begins with what is there.
const noStream = "not every API server before 1.34 begins a watch with what is there"

// TestEveryRightIsUsed takes a Hub through its life. That no right is missing is
// what all tests of this package show: the operator has those of the role alone.
func TestEveryRightIsUsed(t *testing.T) {
	c := useCluster(t)
	storageClass(t, c, "expands", true)
	c.installCertManager(t)
	h := createHub(t, c, "{replicas: 2, storage: {size: 1Gi, storageClassName: expands}}")
	h.bindClaims(t)
	h.settle(t)
	workload := &appsv1.StatefulSet{}
	h.read(t, workload, "agents-node")
	h.grow(t, "2Gi")
	h.adopt(t, h.makeAgain(t, workload))
	for _, claim := range h.claims(t) {
		h.provide(t, &claim)
	}
	h.settle(t)
	h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.History.MaxArtifacts = 5 })
	h.settle(t)
	h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.Image = "switchboard:2" })
	h.settle(t)
	topic := h.createTopic(t, h.key.Namespace, "orders", "{hubRef: {name: agents}, deletionPolicy: Purge}")
	topic.waitForFinalizer(t, true)
	topic.waitUntilAccepted(t)
	grant := h.createGrant(t, h.key.Namespace, "orders", "{hubRef: {name: agents}, rules: [{name: r}]}")
	grant.waitUntilRefused(t, switchboardv1alpha1.ReasonNotDelegated)
	h.annotate(t, "ca")
	h.waitUntilTaken(t)
	h.change(t, func(s *switchboardv1alpha1.HubSpec) {
		s.TLS = &switchboardv1alpha1.TLSSpec{Clients: switchboardv1alpha1.ClientTLSRequired, IssuerRef: &switchboardv1alpha1.IssuerRef{Name: "corporate"}}
	})
	h.certificate(t)
	h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.TLS = nil })
	h.settle(t)
	for key, obj := range children() { // some are written a second time only when they were changed
		h.read(t, obj, childName(key))
		before := obj.DeepCopyObject().(client.Object)
		obj.SetLabels(nil)
		if err := c.Patch(t.Context(), obj, client.MergeFrom(before)); err != nil {
			t.Fatal(err)
		}
	}

	eventually(t, func() error {
		unused := slices.DeleteFunc(rightsOf(c.role.Rules), func(right string) bool { return unseen[right] != "" || c.rights.uses(right) })
		if len(unused) > 0 {
			return fmt.Errorf("never used, so take them from the markers or say in this test what for:\n%s", strings.Join(unused, "\n"))
		}
		return nil
	})
	granted := rightsOf(c.role.Rules)
	for _, right := range slices.Sorted(maps.Keys(unseen)) {
		if !slices.Contains(granted, right) {
			t.Errorf("%s is not granted: take it from this test's list", right)
		}
	}
}
