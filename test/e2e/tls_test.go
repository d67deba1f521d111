//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
)

const (
	// renewedWithin is how long the kubelet may take to bring new files to pods.
	renewedWithin = 5 * time.Minute
	// trustDir is where pods of applications mount the authorities.
	trustDir = "/etc/hub-ca"
)

// TestTLS goes from plain connections to encrypted ones and renews the certificate.
// Clients go on meanwhile, and no node restarts that has one.
func TestTLS(t *testing.T) {
	s := newSuite(t)
	s.makeNamespaces(t)
	s.installChart(t)

	_ = t.Run("a hub of three becomes available", s.hubBecomesAvailable) &&
		t.Run("its nodes link by TLS only", s.linksAreEncrypted) &&
		t.Run("it takes both kinds of clients", s.tlsBecomesOptional) &&
		t.Run("it takes encrypted clients alone", s.tlsBecomesRequired) &&
		t.Run("its certificate is renewed under load", s.certificateIsRenewed) &&
		t.Run("its gossip key is rotated under load", s.keysAreRotated)
}

// linksAreEncrypted finds that nodes have gone over to links by TLS alone, and that one of
// them turns away who connects to its cluster port without: nobody but nodes gets so far.
func (s *suite) linksAreEncrypted(t *testing.T) {
	s.eventually(t, reloadWithin, "links are encrypted", func(ctx context.Context) error { return s.condition(ctx, switchboardv1alpha1.ConditionLinksEncrypted) })
	for pod, encrypted := range s.served(t, "mesh_links_encrypted") {
		if encrypted != "2" {
			t.Errorf("%s has %s encrypted links, want 2", pod, encrypted)
		}
	}
	const refused = `mesh_links_refused_total{reason="plain"}`
	before := s.served(t, refused)
	port := fmt.Sprintf("%s-node-1.%s-nodes:7401", hubName, hubName)
	out, err := s.run(s.kubectl, "", "-n", hubNamespace, "exec", hubName+"-node-0", "--", "/hubctl", "--server", port, "nodes")
	if err == nil || !strings.Contains(out+err.Error(), "TLS") {
		t.Errorf("a plain client of the cluster port hears %v\n%s", err, out)
	}
	if after := s.served(t, refused); after[hubName+"-node-1"] == before[hubName+"-node-1"] {
		t.Errorf("refused plain links: had %v, have %v", before, after)
	}
}

// patchTLS sets who may connect, and waits until all nodes go by it.
func (s *suite) patchTLS(t *testing.T, clients string) {
	t.Helper()
	start := time.Now()
	s.mustRun(t, s.kubectl, "", "-n", hubNamespace, "patch", "hub", hubName, "--type=merge", "-p",
		fmt.Sprintf(`{"spec": {"tls": {"clients": %q}}}`, clients))
	s.waitNodes(t, 3)
	for _, condition := range []string{switchboardv1alpha1.ConditionCertificatesReady, switchboardv1alpha1.ConditionConfigApplied} {
		s.eventually(t, reloadWithin, condition, func(ctx context.Context) error { return s.condition(ctx, condition) })
	}
	t.Logf("tls.clients is %s on all nodes after %.1fs", clients, time.Since(start).Seconds())
}

func (s *suite) tlsBecomesOptional(t *testing.T) {
	plain := s.startAgent(t, "plain", 0, service(), "listen", "--id", "plain", "-o", "json")
	plain.waitRunning(t)
	s.patchTLS(t, "Optional")
	s.waitServed(t) // nodes were replaced
	secure := s.startSecureAgent(t, "secure", 1, service(), "listen", "--id", "secure", "-o", "json")
	secure.waitRunning(t)
	s.waitConnected(t, plain, "secure")
	plain.mustHubctl(t, "send", "secure", "hello", "--id", "a")
	secure.mustHubctl(t, "send", "plain", "hello yourself", "--id", "b")
	plain.waitHeard(t, "hello yourself")
	secure.waitHeard(t, "hello")
}

func (s *suite) tlsBecomesRequired(t *testing.T) {
	defer s.removeAgents(t)
	before := s.incarnations(t)
	s.patchTLS(t, "Required")
	if after := s.incarnations(t); !maps.Equal(before, after) {
		t.Errorf("pods were restarted: had %v, have %v", before, after)
	}
	refused := s.startAgent(t, "refused", 2, service(), "listen", "--id", "refused")
	s.eventually(t, podWithin, "a plain client is refused", func(ctx context.Context) error { return refused.phase(ctx, corev1.PodFailed) })
	if said := refused.logs(t); !strings.Contains(said, "TLS") {
		t.Errorf("the plain client is told:\n%s", said)
	}
	asker := &agent{s: s, pod: "secure"}
	asker.mustHubctl(t, "send", "secure", "still there", "--id", "a")
	asker.waitHeard(t, "still there")
	for who, out := range map[string]string{
		"hubctl in a node's container": s.mustRun(t, s.kubectl, "", "-n", hubNamespace, "exec", hubName+"-node-1", "--", "/hubctl", "nodes"),
		"kubectl hub":                  s.mustRun(t, buildPlugin(t), "", "nodes", hubName, "-n", hubNamespace),
	} {
		if !strings.Contains(out, hubName+"-node-2") {
			t.Errorf("%s shows:\n%s", who, out)
		}
	}
}

// certificateIsRenewed asks for another certificate while clients send to each other by
// names of nodes and of the Service.
func (s *suite) certificateIsRenewed(t *testing.T) {
	expiries := []string{`certificate_expiry_timestamp_seconds{port="client"}`, `certificate_expiry_timestamp_seconds{port="cluster"}`}
	before, old := s.incarnations(t), make(map[string]map[string]string)
	for _, metric := range expiries {
		old[metric] = s.served(t, metric)
	}
	load := s.startSecureAgent(t, "load", 0, service(), "bench", "pair", "--clients", "6", "--rate", "300", "--duration", "2m", "-o", "json")
	load.waitRunning(t)
	start := time.Now()
	s.mustRun(t, s.kubectl, "", "-n", hubNamespace, "annotate", "hub", hubName, "switchboard.dev/rotate=certificates")
	asker := s.startSecureAgent(t, "asker", 1, service(), "listen", "--id", "asker")
	asker.waitRunning(t)
	s.eventually(t, renewedWithin, "all nodes serve another certificate", func(ctx context.Context) error {
		for _, metric := range expiries {
			for pod, now := range s.served(t, metric) {
				if now == old[metric][pod] {
					return fmt.Errorf("%s serves what it served before: %s %s", pod, metric, now)
				}
			}
		}
		return s.condition(ctx, switchboardv1alpha1.ConditionCertificatesReady)
	})
	t.Logf("all nodes serve another certificate %.1fs after it was asked for", time.Since(start).Seconds())
	for i := range 3 {
		out, err := s.run(s.kubectl, "", "-n", hubNamespace, "exec", "asker", "--", "/hubctl", "--server", member(i), "nodes")
		if err != nil {
			t.Errorf("a client of node %d: %v\n%s", i, err, out)
		}
	}
	if after := s.incarnations(t); !maps.Equal(before, after) {
		t.Errorf("pods were restarted: had %v, have %v", before, after)
	}
	checkBench(t, load.waitLogs(t), 10_000)
}

// rotatedWithin is how long two phases of a rotation of authorities take, and what the
// kubelet takes three times for those of the gossip's key.
const rotatedWithin = 15 * time.Minute

// keysAreRotated asks for another gossip key and, with E2E_LONG set, while that takes its
// eleven minutes, for other authorities. Clients send to each other over all nodes meanwhile.
func (s *suite) keysAreRotated(t *testing.T) {
	defer s.removeAgents(t)
	before, members := s.incarnations(t), s.served(t, "gossip_members")
	what, duration := []string{"gossip"}, "2m"
	if os.Getenv("E2E_LONG") != "" {
		what, duration = []string{"ca", "gossip"}, "11m"
	}
	load := s.startSecureAgent(t, "rotating", 0, service(), "bench", "pair", "--clients", "6", "--rate", "100", "--duration", duration, "-o", "json")
	load.waitRunning(t)
	start := time.Now()
	for _, one := range what {
		s.mustRun(t, s.kubectl, "", "-n", hubNamespace, "annotate", "hub", hubName, "switchboard.dev/rotate="+one)
		s.eventually(t, reloadWithin, "the request is taken", func(ctx context.Context) error {
			hub, err := s.hub(ctx)
			if err != nil {
				return err
			}
			if asked := hub.Annotations["switchboard.dev/rotate"]; asked != "" {
				return fmt.Errorf("%s is still asked for", asked)
			}
			return nil
		})
	}
	s.eventually(t, rotatedWithin, "the gossip key is rotated", func(ctx context.Context) error {
		return s.condition(ctx, switchboardv1alpha1.ConditionGossipKeyRotated)
	})
	t.Logf("all nodes have another gossip key alone %.1fs after it was asked for", time.Since(start).Seconds())
	s.eventually(t, rotatedWithin, "only the new authorities are trusted", func(ctx context.Context) error {
		hub, err := s.hub(ctx)
		if err != nil {
			return err
		}
		for _, condition := range []string{switchboardv1alpha1.ConditionCertificatesReady, switchboardv1alpha1.ConditionLinksEncrypted} {
			c := meta.FindStatusCondition(hub.Status.Conditions, condition)
			if c == nil || c.Status != metav1.ConditionTrue || strings.Contains(c.Message, "phase") {
				return fmt.Errorf("%s is %+v", condition, c)
			}
		}
		return nil
	})
	t.Logf("only authorities of one generation are trusted %.1fs after it was asked for", time.Since(start).Seconds())
	if after := s.incarnations(t); !maps.Equal(before, after) {
		t.Errorf("pods were restarted: had %v, have %v", before, after)
	}
	for pod, keys := range s.served(t, "gossip_keys") {
		if keys != "1" {
			t.Errorf("%s has %s gossip keys", pod, keys)
		}
	}
	if after := s.served(t, "gossip_members"); !maps.Equal(members, after) {
		t.Errorf("members: had %v, have %v", members, after)
	}
	s.eventually(t, rotatedWithin, "the load ends", func(ctx context.Context) error { return load.phase(ctx, corev1.PodSucceeded) })
	checkBench(t, load.logs(t), 10_000)
}

// served returns the value of a series of each node, in the words of its metrics.
func (s *suite) served(t *testing.T, series string) map[string]string {
	t.Helper()
	metric := "\nswitchboard_" + series + " "
	all := map[string]string{}
	for _, pod := range s.hubPods(t) {
		text := s.mustRun(t, s.kubectl, "", "get", "--raw", fmt.Sprintf("/api/v1/namespaces/%s/pods/%s:7480/proxy/metrics", hubNamespace, pod.Name))
		_, value, ok := strings.Cut(text, metric)
		if !ok {
			t.Fatalf("%s has no metric %s", pod.Name, strings.TrimSpace(metric))
		}
		all[pod.Name], _, _ = strings.Cut(value, "\n")
	}
	return all
}

// startSecureAgent is startAgent for a client that trusts the authorities of the hub.
func (s *suite) startSecureAgent(t *testing.T, name string, worker int, server string, args ...string) *agent {
	t.Helper()
	pod := s.podFor(name, worker, s.image, server, append([]string{"/hubctl"}, args...)...)
	pod.Spec.Volumes = []corev1.Volume{{Name: "hub-ca", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: hubName + "-ca"},
	}}}}
	c := &pod.Spec.Containers[0]
	c.VolumeMounts = []corev1.VolumeMount{{Name: "hub-ca", MountPath: trustDir, ReadOnly: true}}
	c.Env = append(c.Env, corev1.EnvVar{Name: "SWITCHBOARD_CA_FILE", Value: trustDir + "/ca.crt"})
	return s.start(t, pod)
}

// waitHeard waits until the agent, which listens, has printed an artifact with the payload.
func (a *agent) waitHeard(t *testing.T, payload string) {
	t.Helper()
	a.s.eventually(t, heardWithin, a.pod+" hears "+payload, func(context.Context) error {
		got := a.artifacts(t)
		for _, one := range got {
			if one.Payload == payload {
				return nil
			}
		}
		return fmt.Errorf("it has heard %+v", got)
	})
}
