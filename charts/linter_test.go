package charts_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// The checks below are those that kube-linter runs by default (v0.7.1, see
// https://docs.kubelinter.io/#/generated/checks), under its names. They are written out
// because Go's proxy does not serve its module everywhere; kube-score, which it does
// serve, is run by `make lint`.

// linted is what is installed together.
type linted struct {
	workloads []workload
	services  []corev1.Service
	accounts  []corev1.ServiceAccount
	budgets   []policyv1.PodDisruptionBudget
	versions  []string // the apiVersion of each object
}

// workload is a Deployment or a StatefulSet.
type workload struct {
	namespace string
	replicas  int32
	selector  *metav1.LabelSelector
	pod       corev1.PodTemplateSpec
}

// lint reads YAML documents, those of kinds without checks too.
func lint(t *testing.T, manifests []byte) *linted {
	t.Helper()
	found := &linted{}
	docs := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(manifests)))
	for {
		doc, err := docs.Read()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err == nil {
			err = found.add(doc)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (l *linted) add(doc []byte) error {
	var kind metav1.TypeMeta
	if err := yaml.Unmarshal(doc, &kind); err != nil || kind.Kind == "" {
		return err
	}
	l.versions = append(l.versions, kind.APIVersion)
	switch kind.Kind {
	case "Deployment":
		var d appsv1.Deployment
		err := yaml.Unmarshal(doc, &d)
		l.workloads = append(l.workloads, workload{d.Namespace, replicas(d.Spec.Replicas), d.Spec.Selector, d.Spec.Template})
		return err
	case "StatefulSet":
		var s appsv1.StatefulSet
		err := yaml.Unmarshal(doc, &s)
		l.workloads = append(l.workloads, workload{s.Namespace, replicas(s.Spec.Replicas), s.Spec.Selector, s.Spec.Template})
		return err
	case "Service":
		return appended(&l.services, doc)
	case "ServiceAccount":
		return appended(&l.accounts, doc)
	case "PodDisruptionBudget":
		return appended(&l.budgets, doc)
	}
	return nil
}

func replicas(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}

func appended[T any](to *[]T, doc []byte) error {
	var obj T
	err := yaml.Unmarshal(doc, &obj)
	*to = append(*to, obj)
	return err
}

// check is one of kube-linter's.
type check struct {
	name string
	// finds reports whether there is something to complain of.
	finds func(*linted) bool
	// breaks makes manifests with which all is well into ones that it complains of.
	breaks func(*linted)
}

// anyContainer checks each container of each workload.
func anyContainer(complain func(w *workload, c *corev1.Container) bool) func(*linted) bool {
	return func(l *linted) bool {
		return slices.ContainsFunc(l.workloads, func(w workload) bool {
			all := slices.Concat(w.pod.Spec.InitContainers, w.pod.Spec.Containers)
			return slices.ContainsFunc(all, func(c corev1.Container) bool { return complain(&w, &c) })
		})
	}
}

// anyPod checks each workload's pods.
func anyPod(complain func(*corev1.PodSpec) bool) func(*linted) bool {
	return func(l *linted) bool {
		return slices.ContainsFunc(l.workloads, func(w workload) bool { return complain(&w.pod.Spec) })
	}
}

func firstContainer(how func(*corev1.Container)) func(*linted) {
	return func(l *linted) { how(&l.workloads[0].pod.Spec.Containers[0]) }
}

func firstPod(how func(*corev1.PodSpec)) func(*linted) {
	return func(l *linted) { how(&l.workloads[0].pod.Spec) }
}

func anyBudget(complain func(*policyv1.PodDisruptionBudget) bool) func(*linted) bool {
	return func(l *linted) bool {
		return slices.ContainsFunc(l.budgets, func(b policyv1.PodDisruptionBudget) bool { return complain(&b) })
	}
}

func addBudget(spec policyv1.PodDisruptionBudgetSpec) func(*linted) {
	return func(l *linted) { l.budgets = append(l.budgets, policyv1.PodDisruptionBudget{Spec: spec}) }
}

// probesNoPort reports whether a probe asks a port that the container does not name.
func probesNoPort(c *corev1.Container, p *corev1.Probe) bool {
	if p == nil {
		return false
	}
	var port intstr.IntOrString
	switch {
	case p.HTTPGet != nil:
		port = p.HTTPGet.Port
	case p.TCPSocket != nil:
		port = p.TCPSocket.Port
	default:
		return false
	}
	return !hasPort(c, port)
}

func hasPort(c *corev1.Container, port intstr.IntOrString) bool {
	return slices.ContainsFunc(c.Ports, func(has corev1.ContainerPort) bool {
		return has.Name == port.StrVal && port.Type == intstr.String || has.ContainerPort == port.IntVal && port.Type == intstr.Int
	})
}

// serves reports whether the Service leads to the workload's pods.
func (w *workload) serves(s *corev1.Service) bool {
	return w.namespace == s.Namespace && labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(w.pod.Labels))
}

var (
	aSecret = regexp.MustCompile(`(?i)secret`)
	tagged  = regexp.MustCompile(`(:[^/:]+|@sha256:[0-9a-f]+)$`)
)

var kubeLintersChecks = []check{
	{
		"dangling-service",
		func(l *linted) bool {
			return slices.ContainsFunc(l.services, func(s corev1.Service) bool {
				return !slices.ContainsFunc(l.workloads, func(w workload) bool { return w.serves(&s) })
			})
		},
		func(l *linted) { l.services[0].Spec.Selector = map[string]string{"app": "another"} },
	},
	{
		"deprecated-service-account-field",
		anyPod(func(p *corev1.PodSpec) bool { return p.DeprecatedServiceAccount != "" }),
		firstPod(func(p *corev1.PodSpec) { p.DeprecatedServiceAccount = "default" }),
	},
	{
		"docker-sock, sensitive-host-mounts", // of the host's folders, none at all
		anyPod(func(p *corev1.PodSpec) bool {
			return slices.ContainsFunc(p.Volumes, func(v corev1.Volume) bool { return v.HostPath != nil })
		}),
		firstPod(func(p *corev1.PodSpec) {
			p.Volumes = append(p.Volumes, corev1.Volume{VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/etc"}}})
		}),
	},
	{
		"drop-net-raw-capability",
		anyContainer(func(_ *workload, c *corev1.Container) bool {
			return c.SecurityContext == nil || c.SecurityContext.Capabilities == nil || !slices.Contains(c.SecurityContext.Capabilities.Drop, "ALL") || len(c.SecurityContext.Capabilities.Add) > 0
		}),
		firstContainer(func(c *corev1.Container) { c.SecurityContext.Capabilities.Drop = nil }),
	},
	{
		"duplicate-env-var",
		anyContainer(func(_ *workload, c *corev1.Container) bool {
			seen := map[string]bool{}
			return slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool {
				before := seen[e.Name]
				seen[e.Name] = true
				return before
			})
		}),
		firstContainer(func(c *corev1.Container) { c.Env = append(c.Env, corev1.EnvVar{Name: "A"}, corev1.EnvVar{Name: "A"}) }),
	},
	{
		"env-var-secret",
		anyContainer(func(_ *workload, c *corev1.Container) bool {
			return slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return aSecret.MatchString(e.Name) && e.Value != "" })
		}),
		firstContainer(func(c *corev1.Container) { c.Env = append(c.Env, corev1.EnvVar{Name: "MY_SECRET", Value: "sesame"}) }),
	},
	{
		"host-ipc",
		anyPod(func(p *corev1.PodSpec) bool { return p.HostIPC }),
		firstPod(func(p *corev1.PodSpec) { p.HostIPC = true }),
	},
	{
		"host-network",
		anyPod(func(p *corev1.PodSpec) bool { return p.HostNetwork }),
		firstPod(func(p *corev1.PodSpec) { p.HostNetwork = true }),
	},
	{
		"host-pid",
		anyPod(func(p *corev1.PodSpec) bool { return p.HostPID }),
		firstPod(func(p *corev1.PodSpec) { p.HostPID = true }),
	},
	{
		"invalid-target-ports", // and it is one of the pods' own
		func(l *linted) bool {
			return slices.ContainsFunc(l.services, func(s corev1.Service) bool {
				return slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool {
					return !slices.ContainsFunc(l.workloads, func(w workload) bool {
						return w.serves(&s) && slices.ContainsFunc(w.pod.Spec.Containers, func(c corev1.Container) bool { return hasPort(&c, p.TargetPort) })
					})
				})
			})
		},
		func(l *linted) { l.services[0].Spec.Ports[0].TargetPort = intstr.FromString("no_port") },
	},
	{
		"latest-tag",
		anyContainer(func(_ *workload, c *corev1.Container) bool {
			return !tagged.MatchString(c.Image) || strings.HasSuffix(c.Image, ":latest")
		}),
		firstContainer(func(c *corev1.Container) { c.Image = "registry.example.com:5000/switchboard" }),
	},
	{
		"liveness-port",
		anyContainer(func(_ *workload, c *corev1.Container) bool { return probesNoPort(c, c.LivenessProbe) }),
		firstContainer(func(c *corev1.Container) { c.LivenessProbe.HTTPGet.Port = intstr.FromInt32(9) }),
	},
	{
		"readiness-port",
		anyContainer(func(_ *workload, c *corev1.Container) bool { return probesNoPort(c, c.ReadinessProbe) }),
		firstContainer(func(c *corev1.Container) { c.ReadinessProbe.HTTPGet.Port = intstr.FromString("nine") }),
	},
	{
		"startup-port",
		anyContainer(func(_ *workload, c *corev1.Container) bool { return probesNoPort(c, c.StartupProbe) }),
		firstContainer(func(c *corev1.Container) {
			c.StartupProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(9)}}}
		}),
	},
	{
		"mismatching-selector",
		func(l *linted) bool {
			return slices.ContainsFunc(l.workloads, func(w workload) bool {
				selector, err := metav1.LabelSelectorAsSelector(w.selector)
				return err != nil || !selector.Matches(labels.Set(w.pod.Labels))
			})
		},
		func(l *linted) { l.workloads[0].pod.Labels = nil },
	},
	{
		// Asks for podAntiAffinity. Ours spread by the constraint that came after it, which
		// also keeps them even when there are more pods than machines.
		"no-anti-affinity",
		func(l *linted) bool {
			return slices.ContainsFunc(l.workloads, func(w workload) bool {
				return w.replicas > 1 && !slices.ContainsFunc(w.pod.Spec.TopologySpreadConstraints, func(c corev1.TopologySpreadConstraint) bool {
					selector, err := metav1.LabelSelectorAsSelector(c.LabelSelector)
					return err == nil && selector.Matches(labels.Set(w.pod.Labels)) && (c.TopologyKey == corev1.LabelHostname || c.TopologyKey == corev1.LabelTopologyZone)
				})
			})
		},
		func(l *linted) { l.workloads[0].replicas, l.workloads[0].pod.Spec.TopologySpreadConstraints = 3, nil },
	},
	{
		"no-extensions-v1beta",
		func(l *linted) bool {
			return slices.ContainsFunc(l.versions, func(v string) bool { return strings.HasPrefix(v, "extensions/v1beta") })
		},
		func(l *linted) { l.versions = append(l.versions, "extensions/v1beta1") },
	},
	{
		"no-read-only-root-fs",
		anyContainer(func(_ *workload, c *corev1.Container) bool { return !isTrue(c.SecurityContext.ReadOnlyRootFilesystem) }),
		firstContainer(func(c *corev1.Container) { c.SecurityContext.ReadOnlyRootFilesystem = nil }),
	},
	{
		"non-existent-service-account",
		func(l *linted) bool {
			return slices.ContainsFunc(l.workloads, func(w workload) bool {
				return !slices.ContainsFunc(l.accounts, func(a corev1.ServiceAccount) bool {
					return a.Namespace == w.namespace && a.Name == w.pod.Spec.ServiceAccountName
				})
			})
		},
		firstPod(func(p *corev1.PodSpec) { p.ServiceAccountName = "another" }),
	},
	{
		"pdb-max-unavailable",
		anyBudget(func(b *policyv1.PodDisruptionBudget) bool {
			return b.Spec.MaxUnavailable != nil && (b.Spec.MaxUnavailable.String() == "0" || b.Spec.MaxUnavailable.String() == "0%")
		}),
		addBudget(policyv1.PodDisruptionBudgetSpec{MaxUnavailable: new(intstr.FromString("0%"))}),
	},
	{
		"pdb-min-available", // what lets no pod go; ours say how many may go
		anyBudget(func(b *policyv1.PodDisruptionBudget) bool { return b.Spec.MinAvailable != nil }),
		addBudget(policyv1.PodDisruptionBudgetSpec{MinAvailable: new(intstr.FromString("100%"))}),
	},
	{
		"pdb-unhealthy-pod-eviction-policy",
		anyBudget(func(b *policyv1.PodDisruptionBudget) bool { return b.Spec.UnhealthyPodEvictionPolicy == nil }),
		addBudget(policyv1.PodDisruptionBudgetSpec{MaxUnavailable: new(intstr.FromInt32(1))}),
	},
	{
		"privilege-escalation-container",
		anyContainer(func(_ *workload, c *corev1.Container) bool {
			return c.SecurityContext.AllowPrivilegeEscalation == nil || *c.SecurityContext.AllowPrivilegeEscalation
		}),
		firstContainer(func(c *corev1.Container) { c.SecurityContext.AllowPrivilegeEscalation = nil }),
	},
	{
		"privileged-container",
		anyContainer(func(_ *workload, c *corev1.Container) bool { return isTrue(c.SecurityContext.Privileged) }),
		firstContainer(func(c *corev1.Container) { c.SecurityContext.Privileged = new(true) }),
	},
	{
		"run-as-non-root",
		anyContainer(func(w *workload, c *corev1.Container) bool {
			own, pods := c.SecurityContext.RunAsNonRoot, w.pod.Spec.SecurityContext
			return !isTrue(own) && (own != nil || pods == nil || !isTrue(pods.RunAsNonRoot))
		}),
		firstContainer(func(c *corev1.Container) { c.SecurityContext.RunAsNonRoot = new(false) }),
	},
	{
		"ssh-port",
		anyContainer(func(_ *workload, c *corev1.Container) bool { return hasPort(c, intstr.FromInt32(22)) }),
		firstContainer(func(c *corev1.Container) { c.Ports = append(c.Ports, corev1.ContainerPort{ContainerPort: 22}) }),
	},
	{
		"unsafe-sysctls", // none at all
		anyPod(func(p *corev1.PodSpec) bool { return p.SecurityContext != nil && len(p.SecurityContext.Sysctls) > 0 }),
		firstPod(func(p *corev1.PodSpec) {
			p.SecurityContext.Sysctls = []corev1.Sysctl{{Name: "kernel.msgmax", Value: "1"}}
		}),
	},
	{
		// Of the CPU a request is asked for: see tools/score/waivers for limits.
		"unset-cpu-requirements",
		anyContainer(func(_ *workload, c *corev1.Container) bool { return c.Resources.Requests.Cpu().IsZero() }),
		firstContainer(func(c *corev1.Container) { delete(c.Resources.Requests, corev1.ResourceCPU) }),
	},
	{
		"unset-memory-requirements",
		anyContainer(func(_ *workload, c *corev1.Container) bool {
			return c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero()
		}),
		firstContainer(func(c *corev1.Container) { delete(c.Resources.Limits, corev1.ResourceMemory) }),
	},
}

func isTrue(b *bool) bool { return b != nil && *b }

// shipped is what we ship, by name: the chart as its profiles render it, and what the
// operator makes for a Hub. It is what `make lint` gives to kube-score, too.
func shipped(t *testing.T) map[string][]byte {
	t.Helper()
	read := func(file string) []byte {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	all := map[string][]byte{}
	for _, profile := range []string{"default", "everything", "namespaces"} {
		all[profile] = read(filepath.Join("testdata", profile+".yaml"))
	}
	var hub [][]byte
	for _, kind := range []string{"poddisruptionbudget", "service", "service-peers", "serviceaccount", "statefulset"} {
		hub = append(hub, read(filepath.Join("..", "controllers", "manifests", "testdata", kind+".yaml")))
	}
	all["a hub"] = bytes.Join(hub, []byte("\n---\n"))
	return all
}

func TestKubeLintersChecksComplain(t *testing.T) {
	for _, c := range kubeLintersChecks {
		t.Run(c.name, func(t *testing.T) {
			l := lint(t, shipped(t)["default"])
			if c.breaks(l); !c.finds(l) {
				t.Error("it does not complain of what it is there for")
			}
		})
	}
}

func TestManifestsPassKubeLintersChecks(t *testing.T) {
	for name, manifests := range shipped(t) {
		for _, c := range kubeLintersChecks {
			t.Run(fmt.Sprintf("%s/%s", name, c.name), func(t *testing.T) {
				l := lint(t, manifests)
				if len(l.workloads) == 0 {
					t.Fatal("there is nothing to complain of")
				}
				if c.finds(l) {
					t.Error("it complains")
				}
			})
		}
	}
}
