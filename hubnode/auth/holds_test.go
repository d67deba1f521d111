package auth_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/auth"
	"github.com/switchboardhub/switchboard/hubnode/config"
)

func TestAnIssuerThatIsTakenAwayHoldsNothing(t *testing.T) {
	w := newWorld(t)
	end := time.Now().Add(1000 * time.Hour)
	pod := must[auth.Identity](t)(w.gate.Identify(t.Context(), auth.Credentials{Token: must[string](t)(w.cluster.ServiceAccountToken(audience, "a", "b", end))}))
	person := must[auth.Identity](t)(w.gate.Identify(t.Context(), auth.Credentials{Token: must[string](t)(w.oidc.Token("hub", end, map[string]any{"email": "a"}))}))
	if !w.gate.Holds(&pod) || !w.gate.Holds(&person) {
		t.Error("who was just let in may not stay")
	}
	other := config.TokenIssuer{Issuer: "https://other.example.com", Audiences: []string{"hub"}, KeysFile: w.keys}
	w.gate.Configure(config.Authentication{ServiceAccount: &other, OIDC: []config.TokenIssuer{{Issuer: "https://third.example.com", Audiences: []string{"hub"}, KeysFile: w.keys}}})
	if w.gate.Holds(&person) || w.gate.Holds(&pod) {
		t.Error("whom only an issuer of before knows stays, because there is another one")
	}
}

func TestAGroupThatIsTakenAwayHoldsNothing(t *testing.T) {
	w := newWorld(t)
	hashed := hash(t, "x")
	write(t, filepath.Dir(w.list), "tokens", []byte("kim:"+hashed+":ops,dev\nbob:"+hashed+":dev\n"))
	w.run(t)
	lets := func(token string) (id auth.Identity) {
		eventually(t, "the list is read", func() bool {
			var err error
			id, err = w.gate.Identify(t.Context(), auth.Credentials{Token: token})
			return err == nil
		})
		return id
	}
	kim, bob := lets("kim:x"), lets("bob:x")
	write(t, filepath.Dir(w.list), "tokens", []byte("kim:"+hashed+":dev\nbob:"+hashed+":dev\n"))
	eventually(t, "kim is no longer of ops", func() bool { return !w.gate.Holds(&kim) })
	if !w.gate.Holds(&bob) {
		t.Error("bob, of whom the list says the same, may not stay")
	}
}
