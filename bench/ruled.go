package main

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/internal/throwaway"
)

// ruled runs hubnode processes whose clients prove who they are, by tokens as pods have
// them, and do what rules allow.
type ruled struct {
	switchboard
	token string
}

func (s *ruled) start(ctx context.Context, n int) error {
	const audience = "bench"
	issuer, err := throwaway.NewIssuer("https://kubernetes.default.svc")
	if err != nil {
		return err
	}
	keys, err := issuer.Keys()
	if err != nil {
		return err
	}
	keysFile := filepath.Join(s.dir, "jwks.json")
	if err := os.WriteFile(keysFile, keys, 0o600); err != nil {
		return err
	}
	if s.token, err = issuer.ServiceAccountToken(audience, "team-a", "bench", time.Now().Add(24*time.Hour)); err != nil {
		return err
	}
	s.auth.ServiceAccount = &config.TokenIssuer{Issuer: issuer.Name, Audiences: []string{audience}, KeysFile: keysFile}
	all := []string{"*"}
	s.rules = []config.Rule{
		{Name: "ops", When: `"ops" in identity.groups`, Admin: config.AdminManage},
		{Name: "team", When: `identity.namespace == "team-a"`, ConnectAs: all, SendTo: all, Publish: []string{"{namespace}.>", ">"}, Subscribe: []string{">"}},
	}
	return s.switchboard.start(ctx, n)
}

func (s *ruled) connect(ctx context.Context, server int, id string, h handler) (conn, error) {
	raw, err := dialSocket(ctx, s.clients[server])
	if err != nil {
		return nil, err
	}
	return opened(greetSwitchboard(ctx, raw, id, s.token, h))
}
