package kubehub_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/bcrypt"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/internal/kubectlhub"
	"github.com/switchboardhub/switchboard/test/ports"
	"github.com/switchboardhub/switchboard/wire"
)

// sameList reports how two answers differ, but for what is another one at each look.
func sameList(list, a, b string) error {
	var parsed [2]map[string]any
	for i, text := range []string{a, b} {
		if strings.Count(text, "\n") != 1 || !strings.HasSuffix(text, "\n") {
			return fmt.Errorf("it is not on one line: %q", text)
		}
		if err := json.Unmarshal([]byte(text), &parsed[i]); err != nil {
			return fmt.Errorf("%w: %s", err, text)
		}
		entries, ok := parsed[i][list].([]any)
		if !ok {
			return fmt.Errorf("it has no list: %s", text)
		}
		entries = slices.DeleteFunc(entries, func(e any) bool {
			id, _ := e.(map[string]any)["id"].(string)
			return strings.HasPrefix(id, "hubctl-") // who looks
		})
		parsed[i][list] = entries
		for _, e := range entries {
			switch list {
			case "nodes":
				for _, key := range []string{"uptimeSeconds", "self", "clients"} {
					delete(e.(map[string]any), key)
				}
			case "clients":
				delete(e.(map[string]any), "roundTripSeconds")
			case "durables":
				delete(e.(map[string]any), "used")
			}
		}
	}
	if diff := cmp.Diff(parsed[0], parsed[1]); diff != "" {
		return errors.New(diff)
	}
	return nil
}

// Who is on call has a kubeconfig, and no token of the hub.
func TestListsOfAHubThatAsksWhoClientsAre(t *testing.T) {
	dir := t.TempDir()
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	must(t, err)
	tokens, token := filepath.Join(dir, "tokens"), filepath.Join(dir, "token")
	must(t, os.WriteFile(tokens, []byte("alice:"+string(hash)+"\n"), 0o600))
	must(t, os.WriteFile(token, []byte("alice:secret"), 0o600))
	h := startHub(t, switchboardv1alpha1.HubSpec{Replicas: new(int32(2))}, func(cfg *config.Config) {
		cfg.Authentication.Static = &config.Static{File: tokens}
		cfg.Authorization.Rules = []config.Rule{{Name: "all", ConnectAs: []string{"*"}, Publish: []string{">"}, Subscribe: []string{">"}, History: []string{">"}, Admin: config.AdminView}}
	})
	c, err := client.Connect(t.Context(), h.ports[1]["7400"], client.WithID("agent-7"), client.WithTokenFile(token))
	must(t, err)
	defer c.Close()
	_, err = c.Publish(t.Context(), "shop.orders", &wire.Artifact{Payload: []byte("x")})
	must(t, err)

	_, err = c.Subscribe(t.Context(), "shop.orders", func(context.Context, *wire.Artifact) error { return nil }, client.Durable("billing"))
	must(t, err)
	eventually(t, func() error { // what it has then stays the same
		if out, _ := h.hubctl(t, 0, "durables"); !regexp.MustCompile(`(?m)^shop\.orders +billing +false +2 +0 +0 `).MatchString(out) {
			return fmt.Errorf("billing is not done with the artifact:\n%s", out)
		}
		return nil
	})

	for list, want := range map[string]string{"nodes": "agents-node-1", "clients": "agent-7  agents-node-1", "topics": "shop.orders", "namespaces": "NAMESPACE  HISTORY BYTES", "durables": "shop.orders  billing"} {
		t.Run(list, func(t *testing.T) {
			if out, _ := h.hubctl(t, 0, list); !strings.Contains(out, want) || strings.Contains(out, "hubctl-") {
				t.Errorf("no %q, or who looks, in:\n%s", want, out)
			}
		})
	}
	for _, list := range []string{"nodes", "clients", "topics", "namespaces", "durables"} {
		t.Run(list+" in JSON are those that a client is told", func(t *testing.T) {
			eventually(t, func() error { // a follower may hear of the artifact a moment later
				alone, _ := h.hubctl(t, 0, list, "-o", "json")
				asClient, _ := h.hubctl(t, 0, list, "-o", "json", "--token-file", token)
				return sameList(list, alone, asClient)
			})
		})
	}
	t.Run("again and again", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var out, notes lines
		ended := make(chan int, 1)
		go func() {
			ended <- kubectlhub.Run(ctx, "v1", []string{"topics", "--watch", "--interval", "10ms", "-o", "json", "-n", h.namespace, "--kubeconfig", h.kubeconfig}, strings.NewReader(""), &out, &notes)
		}()
		eventually(t, func() error {
			if n := strings.Count(out.String(), `"topic":"shop.orders"`); n < 2 {
				return fmt.Errorf("it was printed %d times", n)
			}
			return nil
		})
		cancel()
		if status := <-ended; status != 0 || notes.String() != "" {
			t.Errorf("it exited with %d and tells: %s", status, notes.String())
		}
	})
	t.Run("joins and leaves are told to clients only", func(t *testing.T) {
		_, notes := h.hubctl(t, 1, "clients", "--watch")
		if !strings.Contains(notes, "--token-file") {
			t.Errorf("it does not say what it takes: %s", notes)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var out, told lines
		ended := make(chan int, 1)
		go func() {
			ended <- kubectlhub.Run(ctx, "v1", []string{"clients", "--watch", "--token-file", token, "-n", h.namespace, "--kubeconfig", h.kubeconfig}, strings.NewReader(""), &out, &told)
		}()
		eventually(t, func() error {
			if !strings.Contains(out.String(), "agent-7  agents-node-1\n") {
				return fmt.Errorf("it prints %q and tells %q", &out, &told)
			}
			return nil
		})
		cancel()
		if status := <-ended; status != 0 {
			t.Errorf("it exited with %d and tells: %s", status, told.String())
		}
	})
	t.Run("of a node of another version", func(t *testing.T) {
		h.freeze()
		old := httptest.NewServer(http.NotFoundHandler())
		defer old.Close()
		pod := func() *podOnMachine {
			return &podOnMachine{ended: make(chan struct{}), ports: map[string]string{"7480": old.Listener.Addr().String()}}
		}
		h.kubelet.set(h.namespace, "agents-node-0", pod())
		if out, _ := h.hubctl(t, 0, "durables"); !strings.Contains(out, "shop.orders") {
			t.Errorf("agents-node-1 does not answer:\n%s", out)
		}
		h.kubelet.set(h.namespace, "agents-node-1", pod())
		if _, notes := h.hubctl(t, 1, "durables"); !strings.Contains(notes, "ask agents-node-0 for /v1/durables: its version tells that only to clients: say who you are with --token-file or --cert-file") {
			t.Errorf("it says %s", notes)
		}
		for i, node := range []string{"agents-node-0", "agents-node-1"} {
			h.kubelet.set(h.namespace, node, &podOnMachine{ended: make(chan struct{}), ports: h.ports[i]})
		}
	})
	t.Run("of another node when one does not listen", func(t *testing.T) {
		h.freeze()
		h.kubelet.set(h.namespace, "agents-node-0", &podOnMachine{ended: make(chan struct{}), ports: map[string]string{"7480": ports.Free(t)}})
		if out, _ := h.hubctl(t, 0, "nodes"); !strings.Contains(out, "agents-node-1 *") {
			t.Errorf("agents-node-1 does not answer:\n%s", out)
		}
	})
	t.Run("of another node when the machine of one is lost", func(t *testing.T) {
		lost := make(chan struct{})
		defer close(lost)
		h.kubelet.set(h.namespace, "agents-node-0", &podOnMachine{ended: make(chan struct{}), lost: lost})
		if out, _ := h.hubctl(t, 0, "nodes"); !strings.Contains(out, "agents-node-1 *") {
			t.Errorf("agents-node-1 does not answer:\n%s", out)
		}
	})
	t.Run("of no node", func(t *testing.T) {
		for _, node := range []string{"agents-node-0", "agents-node-1"} {
			h.kubelet.set(h.namespace, node, &podOnMachine{ended: make(chan struct{}), ports: map[string]string{"7480": ports.Free(t)}})
		}
		if _, notes := h.hubctl(t, 1, "nodes"); !strings.Contains(notes, "ask agents-node-0: connect to port 7480 inside the pod") {
			t.Errorf("it says %s", notes)
		}
	})
}
