package controllers_test

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/hubnode/auth"
	"github.com/switchboardhub/switchboard/hubnode/config"
)

// A node without a single key asks the API server, once it may.
func TestTheAPIServerIsAskedWhereThereAreNoKeys(t *testing.T) {
	c := useCluster(t)
	c.issuer.fail(t, errors.New("the API server does not say"))
	c.replaceOperator(t) // or it remembers the keys
	h := createHub(t, c, "{replicas: 1, authentication: {serviceAccount: {tokenReview: Fallback}}}")
	h.settle(t) // nodes start
	condition := h.waitForCondition(t, switchboardv1alpha1.ConditionAuthenticationReady, metav1.ConditionFalse, switchboardv1alpha1.ReasonKeysNotRead)
	if want := "; nodes ask the API server about each token, as tokenReview is Fallback"; !strings.HasSuffix(condition.Message, want) {
		t.Errorf("got %s, want that it ends by %s", condition.Message, want)
	}
	settings, keys := h.settings(t)
	accounts := settings.Authentication.ServiceAccount
	if accounts.Issuer != "" || keys != "" {
		t.Errorf("the operator knows the issuer %q and the keys %q", accounts.Issuer, keys)
	}
	want := config.TokenReview{Server: "https://kubernetes.default.svc", CAFile: "/etc/switchboard/auth/apiserver-ca.crt", TokenFile: "/etc/switchboard/auth/apiserver-token"}
	if accounts.TokenReview == nil || *accounts.TokenReview != want {
		t.Errorf("got %+v, want %+v", accounts.TokenReview, want)
	}
	workload := &appsv1.StatefulSet{}
	h.read(t, workload, "agents-node")
	if auto := workload.Spec.Template.Spec.AutomountServiceAccountToken; auto == nil || *auto {
		t.Error("the pods have a token in each container, whether it asks or not")
	}

	// Where the pod has them mounted, and the API server's address as it is here.
	dir := t.TempDir()
	node := &corev1.ServiceAccount{}
	h.read(t, node, "agents-node")
	ca := filepath.Join(dir, "ca.crt")
	accounts.KeysFile = filepath.Join(dir, "none.json")
	accounts.TokenReview = &config.TokenReview{Server: c.userConfig.Host, CAFile: ca, TokenFile: filepath.Join(dir, "token")}
	if !strings.HasPrefix(accounts.TokenReview.Server, "https://") {
		accounts.TokenReview.Server = "https://" + accounts.TokenReview.Server
	}
	for file, text := range map[string][]byte{ca: c.userConfig.CAData, accounts.TokenReview.TokenFile: []byte(c.token(t, node))} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if block, _ := pem.Decode(c.userConfig.CAData); block == nil {
		t.Fatal("the API server's CA is not known")
	}
	gate := auth.New(slog.New(slog.DiscardHandler), func() {})
	gate.Configure(settings.Authentication)

	worker := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: h.key.Namespace, Name: "worker"}}
	if err := c.Create(t.Context(), worker); err != nil {
		t.Fatal(err)
	}
	audience := h.get(t).Status.Audience
	shown := auth.Credentials{Token: c.token(t, worker, audience)}
	if _, err := gate.Identify(t.Context(), shown); err == nil || !strings.Contains(err.Error(), "can't be asked") {
		t.Errorf("a node that may not ask: got %v", err)
	}
	c.letAsk(t, node)
	eventually(t, func() error {
		who, err := gate.Identify(t.Context(), shown)
		if err == nil && (who.Method != auth.ServiceAccount || who.Namespace != worker.Namespace || who.ServiceAccount != "worker") {
			err = fmt.Errorf("got %+v", who)
		}
		return err
	})
	if _, err := gate.Identify(t.Context(), auth.Credentials{Token: c.token(t, worker, "other")}); err == nil || !strings.Contains(err.Error(), "audience") {
		t.Errorf("a token for another audience: got %v", err)
	}

	gone := c.token(t, worker, audience, "other") // another token, which was never asked about
	if err := c.Delete(t.Context(), worker); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { // the API server has a memory, too
		_, err := gate.Identify(t.Context(), auth.Credentials{Token: gone})
		if err == nil || !strings.Contains(err.Error(), "does not take the token") {
			return fmt.Errorf("the token of a ServiceAccount that is gone: got %v, want that the API server does not take it", err) //nolint:errorlint // nil, too
		}
		return nil
	})
}

func TestNodesWithOldKeysAskAboutOthers(t *testing.T) {
	c := useCluster(t)
	h := createHub(t, c, "{replicas: 1, authentication: {serviceAccount: {tokenReview: Fallback}}}")
	pods := h.settle(t)
	h.waitForCondition(t, switchboardv1alpha1.ConditionAuthenticationReady, metav1.ConditionTrue, switchboardv1alpha1.ReasonConfigured)
	c.issuer.fail(t, errors.New("the API server does not say"))
	c.clock.putOn(t, 3*time.Minute)
	h.poke(t, pods[0])
	condition := h.waitForCondition(t, switchboardv1alpha1.ConditionAuthenticationReady, metav1.ConditionFalse, switchboardv1alpha1.ReasonKeysNotRead)
	if want := "; nodes go on with the keys that were read before, and ask the API server about tokens by others"; !strings.HasSuffix(condition.Message, want) {
		t.Errorf("got %s, want that it ends by %s", condition.Message, want)
	}
	if settings, keys := h.settings(t); settings.Authentication.ServiceAccount.Issuer == "" || keys == "" {
		t.Error("the keys that were read before are gone")
	}
}

// On a Hub that runs, nodes come that have what their settings name, and later go that
// still have the token.
func TestNodesAreReplacedByOnesThatMayAsk(t *testing.T) {
	h := createHub(t, useCluster(t), "{replicas: 2, authentication: {serviceAccount: {}}}")
	h.settle(t)
	var evicted []string
	for _, review := range []switchboardv1alpha1.TokenReview{switchboardv1alpha1.TokenReviewFallback, switchboardv1alpha1.TokenReviewNever} {
		h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.Authentication.ServiceAccount.TokenReview = review })
		h.settle(t)
		evicted = append(evicted, "agents-node-1", "agents-node-0")
		if got := h.evictions(); !slices.Equal(got, evicted) {
			t.Fatalf("%s: evicted %q so far, want %q", review, got, evicted)
		}
		asks := review == switchboardv1alpha1.TokenReviewFallback
		for _, pod := range h.pods(t) {
			if got := mayAsk(&pod); got != asks {
				t.Errorf("%s: %s has a token of the API server's: %v", review, pod.Name, got)
			}
		}
		if settings, _ := h.settings(t); (settings.Authentication.ServiceAccount.TokenReview != nil) != asks {
			t.Errorf("%s: settings are %+v", review, settings.Authentication.ServiceAccount)
		}
		if c := meta.FindStatusCondition(h.get(t).Status.Conditions, switchboardv1alpha1.ConditionUpdateAvailable); c != nil {
			t.Errorf("%s: %+v", review, c)
		}
	}
}

func TestNewOperatorRestartsNoNodeThatMayAsk(t *testing.T) {
	h := createHub(t, useCluster(t), "{replicas: 2, authentication: {serviceAccount: {tokenReview: Fallback}}}")
	h.settle(t)
	sts := h.startedByAnEarlierOperator(t)
	h.waitForCondition(t, switchboardv1alpha1.ConditionUpdateAvailable, metav1.ConditionTrue, switchboardv1alpha1.ReasonOperatorUpdated)
	h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.History.MaxArtifacts = 7 })
	h.settle(t)
	if h.read(t, sts, "agents-node"); image(sts) != "switchboard:earlier" || len(h.evictions()) > 0 {
		t.Errorf("nodes run %s, evicted %q", image(sts), h.evictions())
	}
	h.change(t, func(s *switchboardv1alpha1.HubSpec) {
		s.Authentication.ServiceAccount.TokenReview = switchboardv1alpha1.TokenReviewNever
	})
	h.settle(t)
	if h.read(t, sts, "agents-node"); image(sts) != nodeImage || len(h.evictions()) != 2 {
		t.Errorf("nodes run %s, evicted %q; want all to take over this operator's image with another change", image(sts), h.evictions())
	}
}

// mayAsk reports whether a pod has the token by which the API server knows it.
func mayAsk(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool {
		return v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool { return s.ServiceAccountToken != nil })
	})
}

// token asks for a token of a ServiceAccount; for no audience: for the API server.
func (c *cluster) token(t *testing.T, account *corev1.ServiceAccount, audiences ...string) string {
	t.Helper()
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: audiences}}
	if err := c.SubResource("token").Create(t.Context(), account, request); err != nil {
		t.Fatal(err)
	}
	return request.Status.Token
}

// letAsk does what an administrator is told to.
func (c *cluster) letAsk(t *testing.T, account *corev1.ServiceAccount) {
	t.Helper()
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "ask-" + account.Namespace},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "system:auth-delegator"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: account.Namespace, Name: account.Name}},
	}
	if err := c.Create(t.Context(), binding); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Delete(context.WithoutCancel(t.Context()), binding); err != nil {
			t.Error(err)
		}
	})
}
