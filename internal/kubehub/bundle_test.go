package kubehub_test

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/internal/kubectlhub"
	"github.com/switchboardhub/switchboard/test/secrets"
)

const webToken = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZ2VudCJ9.c2lnbmF0dXJl"

// planted are secrets that a bundle must not hold, by where they are.
var planted = map[string]string{
	"the Hub's variable":        "planted-" + rand.Text(),
	"what was applied":          "planted-" + rand.Text(),
	"an annotation":             "planted-" + rand.Text(),
	"a log, after a name":       "planted-" + rand.Text(),
	"a log, in JSON":            "planted " + rand.Text() + " spaced",
	"a log, as bearer":          "planted0" + rand.Text(),
	"a log, by its shape":       webToken,
	"a log, a hash":             "$2y$05$" + rand.Text() + rand.Text() + ".",
	"a log, a gossip key":       base64.StdEncoding.EncodeToString([]byte(rand.Text()[:16])),
	"a log of before":           "planted-" + rand.Text(),
	"a URL":                     "planted-" + rand.Text(),
	"the operator's argument":   "planted-" + rand.Text(),
	"the operator's variable":   "planted-" + rand.Text(),
	"the operator's log":        "planted-" + rand.Text(),
	"a message of an event":     "planted-" + rand.Text(),
	"a Secret in the namespace": "planted-" + rand.Text(),
}

func TestBundleHoldsWhatHelpsAndNoSecret(t *testing.T) {
	tls := &switchboardv1alpha1.TLSSpec{Clients: switchboardv1alpha1.ClientTLSOptional}
	h := startHub(t, switchboardv1alpha1.HubSpec{Replicas: new(int32(2)), TLS: tls, Pod: &switchboardv1alpha1.PodSpec{
		Env: []switchboardv1alpha1.EnvVar{
			{Name: "GREETING", Value: new(planted["the Hub's variable"])},
			{Name: "FROM", SecretKeyRef: &switchboardv1alpha1.KeyRef{Name: "where-it-is", Key: "k"}},
		},
	}})
	h.freeze()
	h.plant(t)
	gossip := &corev1.Secret{}
	if err := h.Get(t.Context(), h.key("agents-gossip"), gossip); err != nil {
		t.Fatal(err)
	}
	var set secrets.Set
	set.Add(t, "the gossip key", gossip.Data["key"])
	for _, name := range []string{"agents-ca", "agents-node-tls", "agents-cluster-authority", "agents-cluster-tls"} {
		secret := &corev1.Secret{}
		must(t, h.Get(t.Context(), h.key(name), secret))
		set.AddKey(t, "the key in "+name, secret.Data["tls.key"])
	}
	for where, s := range planted {
		set.AddText(t, where, s)
	}

	file := filepath.Join(t.TempDir(), "b.tar.gz")
	out, notes := h.hubctl(t, 0, "bundle", "--file", file)
	files := untar(t, file)
	for name, text := range files {
		set.Check(t, name, []byte(text))
	}
	set.Check(t, "the command", []byte(out+notes))
	for name, want := range map[string]string{
		"status.txt":                               "agents-node-1",
		"status.json":                              `"hub": "agents"`,
		"objects/hub.yaml":                         "name: where-it-is",
		"objects/statefulset.yaml":                 "secretName: agents-gossip",
		"objects/services.yaml":                    "name: agents-nodes",
		"objects/poddisruptionbudget.yaml":         "maxUnavailable: 1",
		"objects/networkpolicy.yaml":               "kind: NetworkPolicy",
		"objects/configmap.yaml":                   "hubnode.yaml",
		"objects/pods.yaml":                        "name: agents-node-1",
		"objects/events.yaml":                      "reason: Planted",
		"nodes/agents-node-0/hubnode.log":          "listening",
		"nodes/agents-node-0/status.json":          `"node":"agents-node-0"`,
		"nodes/agents-node-0/metrics.txt":          "switchboard_clients",
		"nodes/agents-node-1/hubnode.previous.log": "panic: said before it died",
		"clients.json":                             `"total": 0`,
		"topics.json":                              `"topics"`,
		"versions.json":                            "kubectl-hub v1-test",
		"operator/deployment.yaml":                 "kind: Deployment",
		"operator/operator-1/operator.log":         "Starting",
		"errors.txt":                               "nodes/agents-node-0/hubnode.previous.log: previous terminated container",
		"README.txt":                               "Look through it before you send it.",
	} {
		text, ok := files[name]
		if !ok {
			t.Errorf("there is no %s in it", name)
		} else if !strings.Contains(text, want) {
			t.Errorf("%s does not say %q:\n%s", name, want, text)
		}
		if !strings.Contains(out, "  "+name+"\n") {
			t.Errorf("the command does not list %s:\n%s", name, out)
		}
	}
	if !strings.Contains(notes, "not collected: nodes/agents-node-0/hubnode.previous.log") || !strings.Contains(out, "places redacted, 1 things not collected") {
		t.Errorf("the command says:\n%s%s", out, notes)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("others may read the file: %v, %v", info.Mode(), err)
	}
}

// plant puts secrets where a bundle looks.
func (h *hubInTest) plant(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	before := h.hub.DeepCopy()
	h.hub.Annotations = map[string]string{
		"kubectl.kubernetes.io/last-applied-configuration": `{"x":"` + planted["what was applied"] + `"}`,
		"example.com/api-token":                            planted["an annotation"],
	}
	must(t, h.Patch(ctx, h.hub, client.MergeFrom(before)))
	must(t, h.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: h.namespace, Name: "s", Labels: h.pod(t, "agents-node-0").Labels},
		StringData: map[string]string{"k": planted["a Secret in the namespace"]},
	}))
	must(t, h.Create(ctx, &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: h.namespace, Name: "e"},
		InvolvedObject: corev1.ObjectReference{Kind: "Hub", Namespace: h.namespace, Name: "agents"},
		Type:           "Warning", Reason: "Planted", Message: "api_key: " + planted["a message of an event"],
	}))
	ended := make(chan struct{})
	h.kubelet.set(h.namespace, "agents-node-0", &podOnMachine{ports: h.ports[0], ended: ended, log: []string{"listening", "env " + planted["the Hub's variable"]}})
	h.kubelet.set(h.namespace, "agents-node-1", &podOnMachine{
		ports: h.ports[1], ended: ended,
		log: []string{
			"listening", "password=" + planted["a log, after a name"], `{"msg":"x","accessToken":"` + planted["a log, in JSON"] + `"}`,
			"Authorization: Bearer " + planted["a log, as bearer"], "got " + webToken + " from a client",
			"dial https://user:" + planted["a URL"] + "@example.com/",
			"the hash of " + planted["a log, a hash"] + " is not one of bcrypt", "the gossip is encrypted by " + planted["a log, a gossip key"],
		},
		previous: []string{"secret: '" + planted["a log of before"] + "'", "panic: said before it died"},
	})
	for _, name := range []string{"agents-node-0", "agents-node-1"} {
		eventually(t, func() error { // the operator writes to it, too
			pod := &corev1.Pod{}
			if err := h.Get(ctx, h.key(name), pod); err != nil {
				return err
			}
			pod.Status.ContainerStatuses[0].RestartCount = 1
			return h.Status().Update(ctx, pod)
		})
	}
	h.plantOperator(t)
}

func (h *hubInTest) plantOperator(t *testing.T) {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "system-"}}
	must(t, h.Create(t.Context(), ns))
	labels := map[string]string{"app.kubernetes.io/name": "switchboard", "app.kubernetes.io/component": "operator"}
	spec := corev1.PodSpec{NodeName: machine, Containers: []corev1.Container{{
		Name: "operator", Image: "switchboard:test", Args: []string{"--token=" + planted["the operator's argument"]},
		Env: []corev1.EnvVar{{Name: "X", Value: planted["the operator's variable"]}},
	}}}
	meta := func(name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: ns.Name, Name: name, Labels: labels}
	}
	must(t, h.Create(t.Context(), &corev1.Pod{ObjectMeta: meta("operator-1"), Spec: spec}))
	spec.NodeName = ""
	must(t, h.Create(t.Context(), &appsv1.Deployment{ObjectMeta: meta("operator"), Spec: appsv1.DeploymentSpec{
		Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: spec},
	}}))
	h.kubelet.set(ns.Name, "operator-1", &podOnMachine{ended: make(chan struct{}), log: []string{"Starting", "token: " + planted["the operator's log"]}})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// untar returns the files of an archive, without the folder that they are all in.
func untar(t *testing.T, file string) map[string]string {
	t.Helper()
	f, err := os.Open(file)
	must(t, err)
	defer f.Close()
	zip, err := gzip.NewReader(f)
	must(t, err)
	files := map[string]string{}
	for archive := tar.NewReader(zip); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		must(t, err)
		text, err := io.ReadAll(archive)
		must(t, err)
		folder, name, _ := strings.Cut(header.Name, "/")
		if !strings.HasPrefix(folder, "agents-bundle-") {
			t.Errorf("%s is in no folder of the bundle", header.Name)
		}
		files[name] = string(text)
	}
}

func TestLogs(t *testing.T) {
	h := startHub(t, switchboardv1alpha1.HubSpec{Replicas: new(int32(2))})
	uid := func(name string) string { return fmt.Sprintf("pod %s runs", h.pod(t, name).UID) }
	if out, _ := h.hubctl(t, 0, "logs", "1"); out != "listening\n"+uid("agents-node-1")+"\n" {
		t.Errorf("the log of one node is: %s", out)
	}
	if out, _ := h.hubctl(t, 0, "logs", "agents-node-0", "--tail", "1", "-o", "json"); out != `{"line":"`+uid("agents-node-0")+`","node":"agents-node-0"}`+"\n" {
		t.Errorf("the log in JSON is: %s", out)
	}
	if _, notes := h.hubctl(t, 1, "logs", "agents", "0", "--previous"); !strings.Contains(notes, "previous terminated container") {
		t.Errorf("logs says: %s", notes)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out, notes lines
	ended := make(chan int, 1)
	go func() {
		ended <- kubectlhub.Run(ctx, "v1", []string{"logs", "-f", "-n", h.namespace, "--kubeconfig", h.kubeconfig}, strings.NewReader(""), &out, &notes)
	}()
	first := uid("agents-node-1")
	out.await(t, "[agents-node-1] "+first, "[agents-node-0] "+uid("agents-node-0"))
	must(t, h.Delete(t.Context(), h.pod(t, "agents-node-1")))
	eventually(t, func() error {
		pod := &corev1.Pod{}
		if err := h.Get(t.Context(), h.key("agents-node-1"), pod); err != nil {
			return err
		}
		if strings.Contains(first, string(pod.UID)) {
			return errors.New("the pod is the old one")
		}
		return nil
	})
	out.await(t, "[agents-node-1] "+uid("agents-node-1"))
	cancel()
	if status := <-ended; status != 0 {
		t.Errorf("logs -f exited with %d: %s", status, &notes)
	}
}

// lines is what a command has written so far.
type lines struct {
	mu   sync.Mutex // guards text
	text string
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text += string(b)
	return len(b), nil
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text
}

func (l *lines) await(t *testing.T, wanted ...string) {
	t.Helper()
	eventually(t, func() error {
		have := strings.Split(l.String(), "\n")
		for _, want := range wanted {
			if !slices.Contains(have, want) {
				return fmt.Errorf("no line %q in:\n%s", want, l)
			}
		}
		return nil
	})
}
