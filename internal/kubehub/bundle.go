package kubehub

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
)

// What bounds a bundle: enough to see what happened, little enough to be sent.
const (
	bundleLogLines = 20_000
	bundleLogBytes = 8 << 20 // of each log
	bundleEntries  = 1000    // of the lists of clients and topics, each
	bundleObjects  = 500     // of a kind
)

// BundleFile is a file of a bundle.
type BundleFile struct {
	Name  string `json:"name"`
	Bytes int    `json:"bytes"`
}

// BundleContents is what a bundle holds.
type BundleContents struct {
	Files []BundleFile `json:"files"`
	// Redacted is in how many places something was taken out.
	Redacted int `json:"redacted"`
	// Missing is what could not be collected; errors.txt says it, too.
	Missing []string `json:"missing,omitempty"`
}

// BundleOptions say more about a bundle.
type BundleOptions struct {
	Program           string // which makes it, with its version
	OperatorNamespace string // where the operator is looked for; empty: everywhere
	Now               time.Time
}

// Bundle writes a gzipped tar archive about the Hub to out, for somebody who helps.
// It holds no Secrets, no values of environment variables and nothing that looks
// like a token or a password. What can't be collected is noted in it.
func (c *Cluster) Bundle(ctx context.Context, hub *switchboardv1alpha1.Hub, o BundleOptions, out io.Writer, tell Progress) (*BundleContents, error) {
	zip := gzip.NewWriter(out)
	b := &bundle{
		Cluster: c, hub: hub, BundleOptions: o, tar: tar.NewWriter(zip), contents: &BundleContents{},
		dir: fmt.Sprintf("%s-bundle-%s/", hub.Name, o.Now.UTC().Format("20060102T150405Z")),
	}
	for _, step := range []struct {
		name string
		run  func(context.Context)
	}{
		{"objects", b.objects},
		{"operator", b.operator},
		{"status", b.status},
		{"lists of clients and topics", b.lists},
		{"nodes", b.nodes},
		{"versions", b.versions},
	} {
		tell("collecting: %s", step.name)
		step.run(ctx)
		if b.err != nil || ctx.Err() != nil {
			return nil, errors.Join(b.err, ctx.Err())
		}
	}
	if missing := strings.Join(b.contents.Missing, "\n"); missing != "" {
		b.add("errors.txt", []byte(missing+"\n"))
	}
	b.add("README.txt", fmt.Appendf(nil, bundleReadme, hub.Namespace+"/"+hub.Name, o.Now.UTC().Format(time.RFC3339)))
	b.contents.Redacted = b.redact.count
	return b.contents, errors.Join(b.err, b.tar.Close(), zip.Close())
}

const bundleReadme = `A support bundle of Hub %s, made %s by kubectl hub bundle.

status.txt is the place to begin. objects/ are the Kubernetes objects of the Hub,
nodes/ what each node says (its logs, /v1/status and /metrics), operator/ the operator's
part. clients.json and topics.json are cut after 1000 entries. errors.txt, if it is
there, lists what could not be collected.

No Secret was read. Values of environment variables, annotations with what was applied
last, and what looks like a token, key or password are replaced by REDACTED. Names and
addresses of clients, topics and machines are in it. Look through it before you send it.
`

// bundle is one that is being written.
type bundle struct {
	*Cluster
	BundleOptions
	hub      *switchboardv1alpha1.Hub
	dir      string
	tar      *tar.Writer
	redact   redactor
	contents *BundleContents
	err      error // of writing
}

// add writes a text, without what looks like a secret.
func (b *bundle) add(name string, text []byte) { b.addRaw(name, b.redact.text(text)) }

// addRaw writes a file as it is.
func (b *bundle) addRaw(name string, data []byte) {
	if b.err != nil {
		return
	}
	header := &tar.Header{Name: b.dir + name, Mode: 0o600, Size: int64(len(data)), ModTime: b.Now, Format: tar.FormatPAX}
	if b.err = b.tar.WriteHeader(header); b.err == nil {
		_, b.err = b.tar.Write(data)
	}
	b.contents.Files = append(b.contents.Files, BundleFile{name, len(data)})
}

// missing notes what could not be collected.
func (b *bundle) missing(what string, err error) {
	b.contents.Missing = append(b.contents.Missing, string(b.redact.text(fmt.Appendf(nil, "%s: %v", what, err))))
}

func (b *bundle) addJSON(name string, v any) {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		b.missing(name, err)
		return
	}
	b.add(name, append(data, '\n'))
}

// kind is objects to collect.
type kind struct {
	file    string
	kind    schema.GroupVersionKind
	options []client.ListOption
	keep    func(*unstructured.Unstructured) bool // nil: all
	maybe   bool                                  // the cluster may not know the kind
}

// v1 is a kind of Kubernetes' own.
func v1(group, name string) schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: group, Version: "v1", Kind: name}
}

// objects collects the Hub and what belongs to it. All are read before the first is
// written: the values of their variables are taken out of everything.
func (b *bundle) objects(ctx context.Context) {
	here, ours := client.InNamespace(b.hub.Namespace), client.MatchingLabels(manifests.Selector(b.hub))
	api := switchboardv1alpha1.GroupVersion
	b.collect(ctx, []kind{
		{
			file: "objects/hub.yaml", kind: api.WithKind("Hub"), options: []client.ListOption{here},
			keep: func(o *unstructured.Unstructured) bool { return o.GetName() == b.hub.Name },
		},
		{file: "objects/topics.yaml", kind: api.WithKind("Topic"), options: []client.ListOption{here}, maybe: true},
		{file: "objects/grants.yaml", kind: api.WithKind("Grant"), options: []client.ListOption{here}, maybe: true},
		{file: "objects/statefulset.yaml", kind: v1("apps", "StatefulSet"), options: []client.ListOption{here, ours}},
		{file: "objects/services.yaml", kind: v1("", "Service"), options: []client.ListOption{here, ours}},
		{file: "objects/poddisruptionbudget.yaml", kind: v1("policy", "PodDisruptionBudget"), options: []client.ListOption{here, ours}},
		{file: "objects/networkpolicy.yaml", kind: v1("networking.k8s.io", "NetworkPolicy"), options: []client.ListOption{here, ours}},
		{file: "objects/configmap.yaml", kind: v1("", "ConfigMap"), options: []client.ListOption{here, ours}},
		{file: "objects/pods.yaml", kind: v1("", "Pod"), options: []client.ListOption{here, ours}},
		{file: "objects/persistentvolumeclaims.yaml", kind: v1("", "PersistentVolumeClaim"), options: []client.ListOption{here, ours}},
		{file: "objects/events.yaml", kind: v1("", "Event"), options: []client.ListOption{here}, keep: func(o *unstructured.Unstructured) bool {
			name, _, _ := unstructured.NestedString(o.Object, "involvedObject", "name")
			what, _, _ := unstructured.NestedString(o.Object, "involvedObject", "kind")
			return about(b.hub, corev1.ObjectReference{Kind: what, Name: name})
		}},
	})
}

func (b *bundle) collect(ctx context.Context, kinds []kind) []*unstructured.UnstructuredList {
	lists := make([]*unstructured.UnstructuredList, len(kinds))
	for i, k := range kinds {
		list, err := b.list(ctx, k)
		if err != nil && (!k.maybe || !meta.IsNoMatchError(err)) {
			b.missing(k.file, err)
		}
		lists[i] = list
		for j := range list.Items {
			b.redact.learn(list.Items[j].Object)
		}
	}
	for i, list := range lists {
		var text bytes.Buffer
		for j := range list.Items {
			b.redact.object(list.Items[j].Object)
			data, err := yaml.Marshal(list.Items[j].Object)
			if err != nil {
				b.missing(kinds[i].file, err)
				continue
			}
			text.WriteString("---\n")
			text.Write(data)
		}
		if len(list.Items) > 0 {
			// Not by add: its rules for text take "secretName: x" for a secret.
			b.addRaw(kinds[i].file, text.Bytes())
		}
	}
	return lists
}

// list reads the objects of a kind, page by page. With an error it returns what came
// before.
func (b *bundle) list(ctx context.Context, k kind) (*unstructured.UnstructuredList, error) {
	all := &unstructured.UnstructuredList{}
	for next := ""; ; {
		page := &unstructured.UnstructuredList{}
		page.SetGroupVersionKind(k.kind.GroupVersion().WithKind(k.kind.Kind + "List"))
		err := b.client.List(ctx, page, append(slices.Clone(k.options), client.Limit(bundleObjects), client.Continue(next))...)
		if err != nil {
			return all, err
		}
		for i := range page.Items {
			if k.keep == nil || k.keep(&page.Items[i]) {
				all.Items = append(all.Items, page.Items[i])
			}
		}
		if len(all.Items) > bundleObjects {
			all.Items = all.Items[len(all.Items)-bundleObjects:]
			return all, fmt.Errorf("more than %d objects, these are some", bundleObjects)
		}
		if next = page.GetContinue(); next == "" {
			return all, nil
		}
	}
}

func (b *bundle) status(ctx context.Context) {
	r, err := b.Status(ctx, b.hub.Name)
	if err != nil {
		b.missing("status", err)
		return
	}
	b.add("status.txt", []byte(r.Text(b.Now)))
	b.addJSON("status.json", r)
}

// lists collects who is connected, and the topics, as the first node says that answers.
func (b *bundle) lists(ctx context.Context) {
	for _, list := range []struct{ name, order string }{{"clients", "pendingBytes"}, {"topics", "bytes"}} {
		body, err := b.List(ctx, b.hub, list.name)
		if err == nil {
			err = b.addList(list.name, list.order, body)
		}
		if err != nil {
			b.missing(list.name+".json", err)
		}
	}
}

// addList adds a list, cut to those of its entries that have most of what order names.
func (b *bundle) addList(name, order string, body []byte) error {
	var answer map[string]any
	if err := json.Unmarshal(body, &answer); err != nil {
		return err
	}
	entries, _ := answer[name].([]any)
	size := func(entry any) float64 {
		fields, _ := entry.(map[string]any)
		n, _ := fields[order].(float64)
		return n
	}
	slices.SortStableFunc(entries, func(a, b any) int { return cmp.Compare(size(b), size(a)) })
	answer["total"] = len(entries)
	answer[name] = entries[:min(len(entries), bundleEntries)]
	b.addJSON(name+".json", answer)
	return nil
}

func (b *bundle) nodes(ctx context.Context) {
	pods, err := b.Cluster.nodes(ctx, b.hub)
	if err != nil {
		b.missing("nodes", err)
		return
	}
	for i := range pods {
		pod := &pods[i]
		dir := "nodes/" + pod.Name + "/"
		b.addLogs(ctx, dir, pod)
		for _, ask := range []struct{ file, path string }{{"status.json", "/v1/status"}, {"metrics.txt", "/metrics"}} {
			body, err := b.get(ctx, pod.Name, ask.path)
			if err != nil {
				b.missing(dir+ask.file, err)
				continue
			}
			b.add(dir+ask.file, body)
		}
	}
}

// addLogs adds the ends of a pod's logs: of each container, and the one before it.
func (b *bundle) addLogs(ctx context.Context, dir string, pod *corev1.Pod) {
	restarts := make(map[string]int32)
	for _, s := range pod.Status.ContainerStatuses {
		restarts[s.Name] = s.RestartCount
	}
	for _, container := range pod.Spec.Containers {
		for _, previous := range []bool{false, true} {
			file := dir + container.Name + ".log"
			if previous {
				if restarts[container.Name] == 0 {
					continue
				}
				file = dir + container.Name + ".previous.log"
			}
			text, err := b.log(ctx, pod, &corev1.PodLogOptions{
				Container: container.Name, Previous: previous, Timestamps: true,
				TailLines: new(int64(bundleLogLines)), LimitBytes: new(int64(bundleLogBytes)),
			})
			if err != nil {
				b.missing(file, err)
			}
			if err == nil || len(text) > 0 {
				b.add(file, text)
			}
		}
	}
}

// log returns what there is of a log. (Asked for it raw, client-go hides why there is
// none.)
func (b *bundle) log(ctx context.Context, pod *corev1.Pod, o *corev1.PodLogOptions) ([]byte, error) {
	stream, err := b.core.Pods(pod.Namespace).GetLogs(pod.Name, o).Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = stream.Close() }() // it was only read
	return io.ReadAll(io.LimitReader(stream, 2*bundleLogBytes))
}

// operator collects the operator's part, in whatever namespace it is, as far as one
// may read it.
func (b *bundle) operator(ctx context.Context) {
	options := []client.ListOption{
		client.InNamespace(b.OperatorNamespace), client.MatchingLabels{manifests.LabelName: "switchboard", manifests.LabelComponent: "operator"},
	}
	lists := b.collect(ctx, []kind{
		{file: "operator/deployment.yaml", kind: v1("apps", "Deployment"), options: options},
		{file: "operator/pods.yaml", kind: v1("", "Pod"), options: options},
	})
	for i := range lists[1].Items {
		pod := &corev1.Pod{}
		found := &lists[1].Items[i]
		if err := b.client.Get(ctx, client.ObjectKeyFromObject(found), pod); err != nil {
			b.missing("operator/"+found.GetName(), err)
			continue
		}
		b.addLogs(ctx, "operator/"+pod.Name+"/", pod)
	}
}

func (b *bundle) versions(ctx context.Context) {
	versions := map[string]any{"program": b.Program}
	discover, err := discovery.NewDiscoveryClientForConfig(b.config)
	if err == nil {
		versions["kubernetes"], err = discover.ServerVersion()
	}
	if err != nil {
		b.missing("the API server's version", err)
	}
	nodes := make(map[string]string)
	for _, n := range b.look(ctx, b.hub).Nodes {
		nodes[n.Node] = n.Image
		if n.Status != nil {
			nodes[n.Node] += " " + n.Status.Version
		}
	}
	versions["nodes"] = nodes
	b.addJSON("versions.json", versions)
}
