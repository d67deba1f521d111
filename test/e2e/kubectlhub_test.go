//go:build e2e

package e2e

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
)

// TestKubectlHub uses the plugin as who is on call does, while a load publishes to the
// hub, follows it and works on it.
func TestKubectlHub(t *testing.T) {
	p := &pluginTest{historyTest: *newSuite(t).newHistoryTest(t), program: buildPlugin(t)}

	_ = t.Run("a hub in memory becomes available", p.begin) &&
		t.Run("its history moves to volumes", p.moveToVolumes) &&
		t.Run("status", p.status) &&
		t.Run("nodes", p.nodes) &&
		t.Run("restart", p.restartAll) &&
		t.Run("drain", p.drain) &&
		t.Run("logs", p.logs) &&
		t.Run("bundle", p.bundle) &&
		t.Run("nothing was lost", func(t *testing.T) { p.load.judge(t) })
}

// pluginTest is what the steps of TestKubectlHub share.
type pluginTest struct {
	historyTest
	program string
}

// buildPlugin builds the plugin under the name that kubectl finds it by.
func buildPlugin(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "kubectl-hub")
	if out, err := exec.Command("go", "build", "-o", program, "../../cmd/kubectl-hub").CombinedOutput(); err != nil {
		t.Fatalf("build the plugin: %v\n%s", err, out)
	}
	return program
}

// hub runs a command of the plugin that has to succeed.
func (p *pluginTest) hub(t *testing.T, args ...string) string {
	t.Helper()
	out := p.mustRun(t, p.program, "", append(args, "-n", hubNamespace)...)
	t.Logf("kubectl hub %s\n%s", strings.Join(args, " "), out)
	return out
}

func (p *pluginTest) status(t *testing.T) {
	p.eventually(t, rolloutWithin, "status says that all is well", func(context.Context) error {
		out, err := p.run(p.program, "", "status", "-n", hubNamespace)
		if err != nil {
			return err
		}
		for _, want := range []string{"all is well", "3 of 3 ready", service(), fmt.Sprintf("%d of %[1]d have all replicas", ledgerShards), "any one node may stop now", hubName + "-node-2"} {
			if !strings.Contains(out, want) {
				return fmt.Errorf("no %q in:\n%s", want, out)
			}
		}
		if strings.Contains(out, "does not answer") {
			return fmt.Errorf("a node can't be reached:\n%s", out)
		}
		return nil
	})
	p.hub(t, "status")
}

func (p *pluginTest) nodes(t *testing.T) {
	for list, want := range map[string]string{"nodes": hubName + "-node-2", "clients": "asker", "topics": ledgerTopic(0)} {
		if out := p.hub(t, list, hubName); !strings.Contains(out, want) {
			t.Errorf("%s shows no %s", list, want)
		}
	}
}

func (p *pluginTest) restartAll(t *testing.T) {
	before := p.hubPods(t)
	p.step(t, "kubectl hub restart", func() {
		var done struct {
			Nodes []string `json:"nodes"`
		}
		if err := json.Unmarshal([]byte(p.hub(t, "restart", hubName, "-o", "json")), &done); err != nil || len(done.Nodes) != 3 {
			t.Errorf("restart says %+v (%v)", done, err)
		}
	})
	p.waitReplaced(t, before...)
}

func (p *pluginTest) drain(t *testing.T) {
	p.waitSafe(t)
	before := p.hubPods(t)
	p.step(t, "kubectl hub drain", func() { p.hub(t, "drain", "1") })
	for i := range before {
		var now corev1.Pod
		if err := p.client.Get(p.ctx, client.ObjectKeyFromObject(&before[i]), &now); err != nil {
			t.Fatal(err)
		}
		if replaced := now.UID != before[i].UID; replaced != (now.Name == hubName+"-node-1") {
			t.Errorf("%s is replaced: %v", now.Name, replaced)
		}
	}
	if err := p.condition(p.ctx, switchboardv1alpha1.ConditionAvailable); err != nil {
		t.Error(err)
	}
}

func (p *pluginTest) logs(t *testing.T) {
	out := p.mustRun(t, p.program, "", "logs", hubName, "--tail", "5", "-n", hubNamespace)
	for i := range 3 {
		if want := fmt.Sprintf("[%s-node-%d] ", hubName, i); !strings.Contains(out, want) {
			t.Errorf("no line of %s in:\n%s", want, out)
		}
	}
	if out := p.mustRun(t, p.program, "", "logs", "0", "--tail", "1", "-n", hubNamespace); strings.Count(out, "\n") != 1 || strings.HasPrefix(out, "[") {
		t.Errorf("the last line of one node: %s", out)
	}
}

func (p *pluginTest) bundle(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bundle.tar.gz")
	p.hub(t, "bundle", hubName, "--file", file)
	var key corev1.Secret
	if err := p.client.Get(p.ctx, client.ObjectKey{Namespace: hubNamespace, Name: hubName + "-gossip"}, &key); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	sizes := map[string]int{}
	for archive := tar.NewReader(zip); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		_, name, _ := strings.Cut(header.Name, "/")
		sizes[name] = len(text)
		if strings.Contains(string(text), string(key.Data["key"])) {
			t.Errorf("%s holds the gossip key", name)
		}
		if name == "errors.txt" {
			t.Errorf("not everything could be collected:\n%s", text)
		}
	}
	for _, want := range []string{
		"status.txt", "objects/hub.yaml", "objects/pods.yaml", "objects/persistentvolumeclaims.yaml", "operator/deployment.yaml",
		"nodes/" + hubName + "-node-1/hubnode.log", "nodes/" + hubName + "-node-1/metrics.txt", "clients.json", "topics.json",
	} {
		if sizes[want] == 0 {
			t.Errorf("there is no %s in the bundle, which has %v", want, sizes)
		}
	}
}
