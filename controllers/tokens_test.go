package controllers_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/switchboardhub/switchboard/controllers"
	"github.com/switchboardhub/switchboard/hubnode/access"
	"github.com/switchboardhub/switchboard/hubnode/auth"
	"github.com/switchboardhub/switchboard/wire"
)

// The whole way: a token that the API server makes for a pod's ServiceAccount is taken by
// a node that has nothing but what the operator wrote, and rules of the Hub and of a Grant
// say what it is good for.
func TestATokenOfTheClusterIsGoodForWhatRulesSay(t *testing.T) {
	c := useCluster(t)
	team := c.namespace(t)
	h := createHub(t, c, "{replicas: 1, authentication: {serviceAccount: {}}, authorization: {rules: [{name: all, connectAs: ['{namespace}/*']}], delegations: [{namespaces: ["+team+"], topics: ['{namespace}.>']}]}}")
	h.settle(t)
	x := h.createGrant(t, team, "jobs", h.ref(`, rules: [{name: workers, when: 'identity.serviceAccount == "worker"', publish: ["`+team+`.jobs.{serviceAccount}"]}]`))
	x.waitUntilAccepted(t)
	h.waitForRules(t, "all:", "grant "+team+"/jobs/workers: "+team+".jobs.{serviceAccount}")

	worker := &corev1.ServiceAccount{}
	worker.Namespace, worker.Name = team, "worker"
	if err := c.Create(t.Context(), worker); err != nil {
		t.Fatal(err)
	}
	token := func(audience string) string {
		t.Helper()
		request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{audience}}}
		if err := c.SubResource("token").Create(t.Context(), worker, request); err != nil {
			t.Fatal(err)
		}
		return request.Status.Token
	}
	settings, keys := h.settings(t)
	// Where the ConfigMap is mounted.
	settings.Authentication.ServiceAccount.KeysFile = filepath.Join(t.TempDir(), "cluster-keys.json")
	if err := os.WriteFile(settings.Authentication.ServiceAccount.KeysFile, []byte(keys), 0o600); err != nil {
		t.Fatal(err)
	}
	gate := auth.New(slog.New(slog.DiscardHandler), func() {})
	gate.Configure(settings.Authentication)
	policy, err := access.Compile(settings.Authorization.Rules)
	if err != nil {
		t.Fatal(err)
	}

	who, err := gate.Identify(t.Context(), auth.Credentials{Token: token(h.get(t).Status.Audience)})
	if err != nil {
		t.Fatalf("the token is refused: %v", err)
	}
	if who.Method != auth.ServiceAccount || who.Namespace != team || who.ServiceAccount != "worker" {
		t.Errorf("got %+v", who)
	}
	id := team + "/w1"
	grant := policy.For(who, "", id)
	for target, want := range map[string]bool{team + ".jobs.worker": true, team + ".jobs.other": false, "other.jobs.worker": false} {
		if got := grant.Allows(wire.ActionPublish, target); got != want {
			t.Errorf("publish %s: got %v, want %v", target, got, want)
		}
	}
	if !grant.Allows(wire.ActionConnect, id) || grant.Allows(wire.ActionConnect, "other/w1") || grant.Allows(wire.ActionView, "") {
		t.Error("it may not be who it is, or may be others")
	}
	if _, err := gate.Identify(t.Context(), auth.Credentials{Token: token("https://another.example")}); err == nil {
		t.Error("a token for another audience is taken")
	}
}

// An API server that refuses the operator its keys says why, and the condition has its words.
func TestTheAPIServersWordsAboutItsKeysAreTold(t *testing.T) {
	c := useCluster(t)
	nobody := rest.CopyConfig(c.env.Config)
	nobody.Impersonate.UserName = "nobody"
	issuer, err := controllers.NewAPIServerIssuer(nobody)
	if err != nil {
		t.Fatal(err)
	}
	_, err = issuer.ClusterIssuer(t.Context())
	if err == nil || !strings.Contains(err.Error(), `User "nobody" cannot get path`) {
		t.Errorf("got %v, want what the API server says", err)
	}
}
