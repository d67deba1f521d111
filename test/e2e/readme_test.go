//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// readmeNamespaces are the ones that the README's commands name or take by default.
const (
	readmeSystem = "switchboard-system"
	readmeHub    = "default"
)

// TestREADME runs the commands of the README's Kubernetes chapter, each line as
// it stands there but for the image's name. After a line that starts a pod it
// waits for what a reader sees before they type the next one.
func TestREADME(t *testing.T) {
	s := newSuite(t)
	t.Cleanup(func() { s.tidyREADME(t) })
	t.Cleanup(func() { s.dump(t, readmeSystem, readmeHub) })

	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	repository, tag := splitImage(s.image)
	bin := s.binaries(t)
	started := regexp.MustCompile(`^kubectl run (\S+) `)
	var printed string
	for _, line := range commands(t, string(text), "Five minutes on Kubernetes") {
		line = strings.NewReplacer(
			"registry.example/switchboard:dev", s.image,
			"image.repository=registry.example/switchboard", "image.repository="+repository,
			"image.tag=dev", "image.tag="+tag,
		).Replace(line)
		cmd := exec.CommandContext(s.ctx, "bash", "-c", line)
		cmd.Dir = "../.."
		cmd.Env = append(os.Environ(), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		printed = string(out)
		t.Logf("$ %s\n%s", line, printed)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if m := started.FindStringSubmatch(line); m != nil {
			s.waitStarted(t, m[1])
		}
	}
	if !strings.Contains(printed, "hello") {
		t.Errorf("the last command shows no hello:\n%s", printed)
	}
}

// waitStarted waits until a pod that runs hubctl has ended well, or is a client
// of the hub under its own name.
func (s *suite) waitStarted(t *testing.T, pod string) {
	t.Helper()
	s.eventually(t, podWithin, "pod "+pod+" does its work", func(ctx context.Context) error {
		var p corev1.Pod
		if err := s.client.Get(ctx, client.ObjectKey{Namespace: readmeHub, Name: pod}, &p); err != nil {
			return err
		}
		switch p.Status.Phase {
		case corev1.PodSucceeded:
			return nil
		case corev1.PodRunning:
			out, err := s.run(s.kubectl, "", "-n", readmeHub, "exec", pod, "--", "/hubctl", "clients")
			if err != nil {
				return err
			}
			if !slices.Contains(strings.Fields(out), pod) {
				return fmt.Errorf("the hub has these clients:\n%s", out)
			}
			return nil
		default:
			return fmt.Errorf("it is %s", p.Status.Phase)
		}
	})
}

// binaries makes a folder in which kubectl and helm have the names a reader types.
func (s *suite) binaries(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, program := range map[string]string{"kubectl": s.kubectl, "helm": s.helm} {
		path, err := exec.LookPath(program)
		if err == nil {
			path, err = filepath.Abs(path)
		}
		if err == nil {
			err = os.Symlink(path, filepath.Join(dir, name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func (s *suite) tidyREADME(t *testing.T) {
	t.Helper()
	s.tidy(t,
		[]string{"-n", readmeHub, "delete", "pod", "a", "b", "--ignore-not-found", "--grace-period=1"},
		// Before the CRD, which would also take it away, so that nothing of it is left.
		[]string{"-n", readmeHub, "delete", "hub", "agents", "--ignore-not-found", "--cascade=foreground"},
		// What Helm remembers of the release that the Hub was of.
		[]string{"-n", readmeHub, "delete", "secret", "-l", "owner=helm,name=agents"},
		[]string{"delete", "namespace", readmeSystem, "--ignore-not-found"},
	)
}

// commands returns the lines of the shell blocks in a text's chapter of that title,
// continued lines as one.
func commands(t *testing.T, text, title string) []string {
	t.Helper()
	_, chapter, ok := strings.Cut(text, "\n## "+title+"\n")
	if !ok {
		t.Fatalf("there is no chapter %q", title)
	}
	chapter, _, _ = strings.Cut(chapter, "\n## ")
	var lines []string
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(chapter, -1) {
		for line := range strings.Lines(strings.ReplaceAll(block[1], "\\\n", "")) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	if len(lines) == 0 {
		t.Fatalf("the chapter %q has no commands", title)
	}
	return lines
}
