//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSecurityPage secures a hub as docs/security.md says it: with its commands and its pod,
// as they stand there but for the namespace and the image.
func TestSecurityPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, chapter, ok := strings.Cut(string(page), "\n## In five minutes\n")
	if !ok {
		t.Fatal("docs/security.md has no chapter In five minutes")
	}
	s := newSuite(t)
	block := func(language string) string {
		_, after, ok := strings.Cut(chapter, "```"+language+"\n")
		if !ok {
			t.Fatalf("the chapter has no block of %s", language)
		}
		text, _, _ := strings.Cut(after, "```")
		return strings.NewReplacer("default", hubNamespace, "registry.example/switchboard:dev", s.image).Replace(text)
	}
	script, pod := block("sh"), block("yaml")

	s.makeNamespaces(t)
	s.installChart(t)
	_ = t.Run("a hub of three becomes available", s.hubBecomesAvailable) &&
		t.Run("the page's commands secure it", func(t *testing.T) { s.typeScript(t, script) }) &&
		t.Run("the page's pod is its client", func(t *testing.T) { s.startPagesPod(t, pod) })
}

// typeScript runs a script whose kubectl works in the hub's namespace.
func (s *suite) typeScript(t *testing.T, script string) {
	t.Helper()
	start := time.Now()
	bin := t.TempDir()
	wrapper := fmt.Sprintf("#!/bin/sh\nexec %s -n %s \"$@\"\n", s.kubectl, hubNamespace)
	if err := os.WriteFile(filepath.Join(bin, "kubectl"), []byte(wrapper), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(s.ctx, "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	t.Logf("%.1fs\n%s", time.Since(start).Seconds(), out)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(string(out), audience) {
		t.Errorf("the last line is not the audience %s", audience)
	}
}

func (s *suite) startPagesPod(t *testing.T, pod string) {
	t.Helper()
	s.mustRun(t, s.kubectl, "", "-n", hubNamespace, "create", "serviceaccount", "worker")
	s.mustRun(t, s.kubectl, pod, "-n", hubNamespace, "apply", "-f", "-")
	worker, as := &agent{s: s, pod: "worker-1"}, hubNamespace+"/asker"
	worker.waitRunning(t)
	s.eventually(t, podWithin, "the pod hears what is sent to it", func(context.Context) error {
		out, err := worker.hubctl("send", hubNamespace+"/worker-1", "hello", "--id", as)
		if err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	})
	out, err := worker.hubctl("--id", as, "pub", "news", "x")
	if err == nil || !strings.Contains(err.Error()+out, `ask for a rule with publish: ["news"]`) {
		t.Errorf("the page says that this is refused: %v\n%s", err, out)
	}
	if said := worker.logs(t); !strings.Contains(said, "hello") {
		t.Errorf("the pod printed:\n%s", said)
	}
}
