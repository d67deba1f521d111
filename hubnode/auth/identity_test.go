package auth_test

import (
	"testing"

	"github.com/switchboardhub/switchboard/hubnode/auth"
)

// People of the same name that somebody else has vouched for are others.
func TestKeysTellNamesakesApart(t *testing.T) {
	first := auth.Identity{Method: auth.OIDC, Name: "alice", Claims: map[string]any{"iss": "https://a.example"}}
	seen := make(map[string]auth.Identity)
	for _, id := range []auth.Identity{
		first,
		{Method: auth.OIDC, Name: "alice", Claims: map[string]any{"iss": "https://b.example"}},
		{Method: auth.OIDC, Name: "bob", Claims: map[string]any{"iss": "https://a.example"}},
		{Method: auth.Static, Name: "alice"},
		{Method: auth.MutualTLS, Name: "alice"},
	} {
		if other, ok := seen[id.Key()]; ok {
			t.Errorf("%+v has the key of %+v", id, other)
		}
		seen[id.Key()] = id
	}
	again := first
	again.Groups, again.Claims = []string{"new"}, map[string]any{"iss": "https://a.example", "iat": 7.0}
	if again.Key() != first.Key() {
		t.Error("a newer token is somebody else's")
	}
}
