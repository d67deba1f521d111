package controllers_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers"
	"github.com/switchboardhub/switchboard/controllers/pki"
	"github.com/switchboardhub/switchboard/hubnode/config"
)

// issuerInTest is the API server's, which may fail.
type issuerInTest struct {
	real *controllers.APIServerIssuer

	mu  sync.Mutex // guards err
	err error
}

func (i *issuerInTest) ClusterIssuer(ctx context.Context) (controllers.ClusterIssuer, error) {
	i.mu.Lock()
	err := i.err
	i.mu.Unlock()
	if err != nil {
		return controllers.ClusterIssuer{}, err
	}
	return i.real.ClusterIssuer(ctx)
}

// fail makes it fail until the end of the test, or until it is called with nil.
func (i *issuerInTest) fail(t *testing.T, err error) {
	t.Helper()
	set := func(err error) {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.err = err
	}
	set(err)
	t.Cleanup(func() { set(nil) })
}

// settings returns the nodes' settings, and the cluster's keys that are beside them.
func (h *hubInTest) settings(t *testing.T) (config.Config, string) {
	t.Helper()
	settings := &corev1.ConfigMap{}
	h.read(t, settings, "agents-config")
	parsed, err := config.Parse([]byte(settings.Data["hubnode.yaml"]))
	if err != nil {
		t.Fatalf("a node refuses the settings: %v", err)
	}
	return parsed, settings.Data["cluster-keys.json"]
}

func TestNodesLearnWhoIssuesTheClustersTokens(t *testing.T) {
	c := useCluster(t)
	h := createHub(t, c, "{replicas: 1, authentication: {serviceAccount: {}}}")
	h.settle(t)
	h.waitForCondition(t, switchboardv1alpha1.ConditionAuthenticationReady, metav1.ConditionTrue, switchboardv1alpha1.ReasonConfigured)
	want, err := c.issuer.real.ClusterIssuer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	settings, keys := h.settings(t)
	audience := "agents." + h.key.Namespace + ".switchboard.dev"
	wantAuth := config.Authentication{ServiceAccount: &config.TokenIssuer{
		Issuer: want.Issuer, Audiences: []string{audience}, KeysFile: "/etc/switchboard/config/cluster-keys.json",
	}}
	if diff := cmp.Diff(wantAuth, settings.Authentication); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	if err := json.Unmarshal([]byte(keys), &set); err != nil || len(set.Keys) == 0 || keys != string(want.Keys) {
		t.Errorf("keys %s (%v), want %s", keys, err, want.Keys)
	}
	if got := h.get(t).Status.Audience; got != audience {
		t.Errorf("status.audience %q, want %q", got, audience)
	}
	workload := &appsv1.StatefulSet{}
	h.read(t, workload, "agents-node")
	for _, v := range workload.Spec.Template.Spec.Volumes {
		if v.Name == "node-auth" {
			t.Error("there is a volume for what the Hub does not name")
		}
	}

	generation := workload.Generation
	h.change(t, func(s *switchboardv1alpha1.HubSpec) {
		s.Authentication.ServiceAccount.Audience = "mine"
		s.Authorization = &switchboardv1alpha1.AuthorizationSpec{Rules: []switchboardv1alpha1.HubRule{
			{Rule: switchboardv1alpha1.Rule{Name: "all", Publish: []switchboardv1alpha1.TopicTemplate{">"}}, Admin: switchboardv1alpha1.AdminView},
		}}
	})
	h.settle(t)
	settings, _ = h.settings(t)
	if got := settings.Authentication.ServiceAccount.Audiences[0]; got != "mine" || h.get(t).Status.Audience != "mine" {
		t.Errorf("audience %q in the settings, %q in the status", got, h.get(t).Status.Audience)
	}
	if diff := cmp.Diff([]config.Rule{{Name: "all", Publish: []string{">"}, Admin: config.AdminView}}, settings.Authorization.Rules); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}

	h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.Authentication, s.Authorization = nil, nil })
	h.settle(t)
	settings, keys = h.settings(t)
	if !settings.Authentication.IsZero() || !settings.Authorization.IsZero() || keys != "" {
		t.Errorf("without authentication the settings have %+v, %+v, and the keys %q", settings.Authentication, settings.Authorization, keys)
	}
	if hub := h.get(t); hub.Status.Audience != "" || meta.FindStatusCondition(hub.Status.Conditions, switchboardv1alpha1.ConditionAuthenticationReady) != nil {
		t.Errorf("without authentication the status has %+v", hub.Status)
	}
	if h.read(t, workload, "agents-node"); workload.Generation != generation {
		t.Error("the StatefulSet has changed")
	}
}

// A hub that should ask who clients are is never started with settings that ask nobody.
func TestNoNodeStartsBeforeTheKeysAreKnown(t *testing.T) {
	c := useCluster(t)
	c.issuer.fail(t, errors.New("the API server is silent"))
	c.replaceOperator(t) // or it remembers them
	h := &hubInTest{cluster: c, key: client.ObjectKey{Namespace: c.namespace(t), Name: "agents"}}
	if err := c.Create(t.Context(), rawHub(t, h.key.Namespace, h.key.Name, "{replicas: 1, authentication: {serviceAccount: {}}}")); err != nil {
		t.Fatal(err)
	}
	got := h.waitForCondition(t, switchboardv1alpha1.ConditionAuthenticationReady, metav1.ConditionFalse, switchboardv1alpha1.ReasonKeysNotRead)
	want := "the API server does not say by which keys tokens of ServiceAccounts are known: the API server is silent; no node is started or changed before"
	if got.Message != want {
		t.Errorf("got  %s\nwant %s", got.Message, want)
	}
	h.waitForCondition(t, switchboardv1alpha1.ConditionProgressing, metav1.ConditionTrue, switchboardv1alpha1.ReasonAwaitingKeys)
	h.waitForCondition(t, switchboardv1alpha1.ConditionDegraded, metav1.ConditionTrue, switchboardv1alpha1.ReasonAuthenticationNotReady)
	for name, obj := range map[string]client.Object{"agents-config": &corev1.ConfigMap{}, "agents-node": &appsv1.StatefulSet{}} {
		if err := c.Get(t.Context(), client.ObjectKey{Namespace: h.key.Namespace, Name: name}, obj); !apierrors.IsNotFound(err) {
			t.Errorf("%T %s: got %v, want that there is none", obj, name, err)
		}
	}
	c.issuer.fail(t, nil)
	h.waitFor(t, &appsv1.StatefulSet{}, "agents-node", func() error { return nil })
	h.settle(t)
	h.waitForCondition(t, switchboardv1alpha1.ConditionAuthenticationReady, metav1.ConditionTrue, switchboardv1alpha1.ReasonConfigured)
}

func TestNodesGoOnWithTheLastKeys(t *testing.T) {
	c := useCluster(t)
	h := createHub(t, c, "{replicas: 1, authentication: {serviceAccount: {}}}")
	pods := h.settle(t)
	before, keys := h.settings(t)
	see := func(what string) {
		t.Helper()
		h.waitForCondition(t, switchboardv1alpha1.ConditionAuthenticationReady, metav1.ConditionFalse, switchboardv1alpha1.ReasonKeysNotRead)
		settings, now := h.settings(t)
		if diff := cmp.Diff(before.Authentication, settings.Authentication); diff != "" || now != keys {
			t.Errorf("%s the settings have the keys %q, want %q, and %s", what, now, keys, diff)
		}
	}
	c.issuer.fail(t, errors.New("the API server is silent"))
	c.clock.putOn(t, 3*time.Minute)
	h.poke(t, pods[0])
	see("while they can't be read")
	c.replaceOperator(t)
	h.poke(t, pods[0])
	see("for an operator that has never read any")
	c.issuer.fail(t, nil)
	h.poke(t, pods[0])
	h.waitForCondition(t, switchboardv1alpha1.ConditionAuthenticationReady, metav1.ConditionTrue, switchboardv1alpha1.ReasonConfigured)
}

// Keys that somebody else writes are set back, and never taken for ours.
func TestKeysInTheConfigMapAreTheOperators(t *testing.T) {
	c := useCluster(t)
	h := createHub(t, c, "{replicas: 1, authentication: {serviceAccount: {}}}")
	h.settle(t)
	_, keys := h.settings(t)
	settings := &corev1.ConfigMap{}
	h.read(t, settings, "agents-config")
	before := settings.DeepCopy()
	settings.Data["cluster-keys.json"] = `{"keys":[{"kty":"RSA"}]}`
	if err := c.Patch(t.Context(), settings, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	h.waitFor(t, settings, "agents-config", func() error {
		if got := settings.Data["cluster-keys.json"]; got != keys {
			return fmt.Errorf("got %s, want %s", got, keys)
		}
		return nil
	})
}

// bcryptHash is a hash of no token in particular.
const bcryptHash = "$2y$05$bvIG6Nmid91Mu9RcmmWZfO5HJIMCT8riNW0hEp8f6/FuA2/mHZFpe"

func TestWhatTheHubNamesIsMountedAndChecked(t *testing.T) {
	c := useCluster(t)
	h := createHub(t, c, "{replicas: 1, tls: {clients: Optional}, authentication: {static: {secretName: tokens}, mutualTLS: {configMapName: clients}, oidc: [{issuer: 'https://a.example', audiences: [a], caSecretName: login}]}}")
	pods := h.settle(t) // what is missing does not keep nodes from starting
	waitFor := func(reason string, parts ...string) {
		t.Helper()
		eventually(t, func() error {
			h.poke(t, pods[0])
			c := meta.FindStatusCondition(h.get(t).Status.Conditions, switchboardv1alpha1.ConditionAuthenticationReady)
			if c == nil || c.Reason != reason {
				return fmt.Errorf("got %+v, want %s", c, reason)
			}
			for _, part := range parts {
				if !strings.Contains(c.Message, part) {
					return fmt.Errorf("got %s, want %s", c.Message, part)
				}
			}
			return nil
		})
	}
	waitFor(switchboardv1alpha1.ReasonSourceNotFound,
		fmt.Sprintf(`there is no ConfigMap "clients" in namespace %s, which spec.authentication.mutualTLS names: make it, with the key ca.crt. Until it is mended, nobody is let in by it that is not already`, h.key.Namespace),
		`there is no Secret "tokens" in namespace`, `which spec.authentication.oidc[0] names`)
	h.waitForCondition(t, switchboardv1alpha1.ConditionDegraded, metav1.ConditionTrue, switchboardv1alpha1.ReasonAuthenticationNotReady)

	authority, err := pki.NewAuthority("x", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	data, err := authority.Data()
	if err != nil {
		t.Fatal(err)
	}
	ca := data[pki.CertificateKey]
	create := func(obj client.Object, name string) {
		t.Helper()
		obj.SetNamespace(h.key.Namespace)
		obj.SetName(name)
		if err := c.Create(t.Context(), obj); err != nil {
			t.Fatal(err)
		}
	}
	tokens := &corev1.Secret{Data: map[string][]byte{"token": []byte("x")}}
	create(&corev1.ConfigMap{Data: map[string]string{"ca.crt": string(ca)}}, "clients")
	create(&corev1.Secret{Data: map[string][]byte{"ca.crt": ca}}, "login")
	create(tokens, "tokens")
	waitFor(switchboardv1alpha1.ReasonSourceNotFound, `there is no key "tokens" in Secret "tokens", which spec.authentication.static names`)

	list := func(text string) {
		t.Helper()
		before := tokens.DeepCopy()
		tokens.Data["tokens"] = []byte(text)
		if err := c.Patch(t.Context(), tokens, client.MergeFrom(before)); err != nil {
			t.Fatal(err)
		}
	}
	list("# people\nana:" + bcryptHash + "\nbob:secret\n")
	waitFor(switchboardv1alpha1.ReasonSourceInvalid, `Secret "tokens", which spec.authentication.static names, key tokens: line 3: the hash is not one of bcrypt`)
	if got := meta.FindStatusCondition(h.get(t).Status.Conditions, switchboardv1alpha1.ConditionAuthenticationReady).Message; strings.Contains(got, "secret") {
		t.Errorf("the condition repeats the list: %s", got)
	}
	list("ana:" + bcryptHash + ":admins,people\n\nbob:" + bcryptHash + "\n")
	waitFor(switchboardv1alpha1.ReasonConfigured)

	settings, keys := h.settings(t)
	want := config.Authentication{
		OIDC:      []config.TokenIssuer{{Issuer: "https://a.example", Audiences: []string{"a"}, NameClaim: "sub", GroupsClaim: "groups", CAFile: "/etc/switchboard/auth/issuer-0-ca.crt"}},
		MutualTLS: &config.MutualTLS{CAFile: "/etc/switchboard/auth/clients-ca.crt"},
		Static:    &config.Static{File: "/etc/switchboard/auth/tokens"},
	}
	if diff := cmp.Diff(want, settings.Authentication); diff != "" || keys != "" {
		t.Errorf("keys %q, settings (-want +got):\n%s", keys, diff)
	}
	workload := &appsv1.StatefulSet{}
	h.read(t, workload, "agents-node")
	generation := workload.Generation
	h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.Authentication.Static.SecretName = "others" })
	h.waitFor(t, workload, "agents-node", func() error {
		if workload.Generation == generation {
			return errors.New("the StatefulSet has not changed with the Secret's name")
		}
		return nil
	})
}

func TestARuleThatDoesNotCompileIsNamed(t *testing.T) {
	h := createHub(t, useCluster(t), rules("{name: a, when: 'true'}"))
	h.settle(t)
	h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.Authorization.Rules[0].When = "identity.nam == 'x'" })
	got := h.waitForCondition(t, switchboardv1alpha1.ConditionDegraded, metav1.ConditionTrue, switchboardv1alpha1.ReasonInvalidSpec)
	if want := "authorization.rules[0].when: condition"; !strings.Contains(got.Message, want) {
		t.Errorf("got %s, want %s", got.Message, want)
	}
	if settings, _ := h.settings(t); settings.Authorization.Rules[0].When != "true" {
		t.Errorf("nodes are given %+v", settings.Authorization)
	}
}
