package controllers_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/bcrypt"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/test/secrets"
)

// operatorLog is what the operator logs, at the most talkative level that it takes, while
// somebody listens, and the last of it for a test that fails.
type operatorLog struct {
	mu     sync.Mutex // guards the fields below
	text   *bytes.Buffer
	recent [40]string // lines, in a ring
	n      int        // written so far
}

func (l *operatorLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.text != nil {
		l.text.Write(b)
	}
	l.recent[l.n%len(l.recent)] = string(b) // a line: slog writes one at a time
	l.n++
	return len(b), nil
}

// tellLast logs the last lines of the operator's when a test has failed.
func (l *operatorLog) tellLast(t *testing.T) {
	t.Helper()
	if !t.Failed() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var last strings.Builder
	for i := max(0, l.n-len(l.recent)); i < l.n; i++ {
		last.WriteString(l.recent[i%len(l.recent)])
	}
	t.Logf("the operator's last lines:\n%s", last.String())
}

// listen returns what returns all that was logged since.
func (l *operatorLog) listen(t *testing.T) (said func() []byte) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = new(bytes.Buffer)
	t.Cleanup(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.text = nil
	})
	return func() []byte {
		l.mu.Lock()
		defer l.mu.Unlock()
		return bytes.Clone(l.text.Bytes())
	}
}

// What Secrets hold is in no log, condition, event, metric or object but Secrets, also when it is
// wrong.
func TestTheOperatorTellsNoSecret(t *testing.T) {
	c := useCluster(t)
	said := c.log.listen(t)
	var set secrets.Set
	secret := func(name string) string {
		text := rand.Text()
		set.AddText(t, name, text)
		return text
	}
	h := createHub(t, c, "{replicas: 1, tls: {clients: Optional}, authentication: {static: {secretName: tokens}}}")
	hash, err := bcrypt.GenerateFromPassword([]byte(secret("a static token's secret")), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	set.Add(t, "the hash of a static token", hash)
	good := "ana:" + string(hash) + ":people\n"
	tokens := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: h.key.Namespace, Name: "tokens"}, Data: map[string][]byte{"tokens": []byte(good)}}
	if err := c.Create(t.Context(), tokens); err != nil {
		t.Fatal(err)
	}
	pods := h.settle(t)

	kept := make(map[string]*corev1.Secret)
	for name, key := range map[string]string{"agents-gossip": "key", "agents-ca": "tls.key", "agents-node-tls": "tls.key", "agents-cluster-authority": "tls.key", "agents-cluster-tls": "tls.key"} {
		kept[name] = &corev1.Secret{}
		h.read(t, kept[name], name)
		if key == "tls.key" {
			set.AddKey(t, "the key in "+name, kept[name].Data[key])
			continue
		}
		set.Add(t, "the gossip key", kept[name].Data[key])
		raw, err := base64.StdEncoding.DecodeString(string(kept[name].Data[key]))
		if err != nil {
			t.Fatal(err)
		}
		set.Add(t, "the gossip key", raw)
	}
	write := func(name, key, text string) {
		t.Helper()
		live := &corev1.Secret{}
		h.read(t, live, name)
		live.Data[key] = []byte(text)
		if err := h.Update(t.Context(), live); err != nil {
			t.Fatal(err)
		}
	}
	conditions := func() string {
		text, err := json.Marshal(h.get(t).Status)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	var wrongs []string
	try := func(name, key, text, says string) {
		t.Helper()
		write(name, key, text)
		eventually(t, func() error {
			h.poke(t, pods[0])
			status := conditions()
			wrongs = append(wrongs, status)
			if !strings.Contains(status, says) {
				return fmt.Errorf("the status is %s, want it to say %q", status, says)
			}
			return nil
		})
	}
	half := "-----BEGIN PRIVATE KEY-----\n"
	try("tokens", "tokens", "bob:"+secret("a secret that is no hash")+"\n", "line 1: the hash is not one of bcrypt")
	try("tokens", "tokens", "\n"+secret("a secret before its name")+":bob\n", "line 2: the hash is not one of bcrypt")
	try("tokens", "tokens", "\n\n"+secret("a secret alone")+"\n", "line 3: want NAME:HASH")
	try("tokens", "tokens", "\n\n\n"+string(hash)+":ana\n", "line 4: the hash is not one of bcrypt")
	try("tokens", "tokens", good, `"reason":"Configured"`)
	try("agents-gossip", "key", "open "+secret("a gossip key that is no base64"), "must be 16, 24 or 32 bytes in base64")
	write("agents-gossip", "key", base64.StdEncoding.EncodeToString([]byte(secret("a gossip key of another length"))))
	h.poke(t, pods[0])
	write("agents-gossip", "key", string(kept["agents-gossip"].Data["key"]))
	try("agents-ca", "tls.key", secret("an authority's key that is none"), "holds 0 private keys in PEM")
	try("agents-ca", "tls.key", half+secret("half an authority's key"), "PEM blocks are damaged")
	try("agents-ca", "tls.crt", half+secret("a key where a certificate should be")+"\n-----END PRIVATE KEY-----\n", "tls.crt")
	write("agents-ca", "tls.key", string(kept["agents-ca"].Data["tls.key"]))
	try("agents-ca", "tls.crt", string(kept["agents-ca"].Data["tls.crt"]), `"reason":"Issued"`)
	for _, name := range []string{"agents-node-tls", "agents-cluster-tls"} { // which the operator mends
		write(name, "tls.key", half+secret("half a key in "+name))
		h.poke(t, pods[0])
	}
	h.settle(t)

	log := said()
	for _, text := range []string{"Applied", "Created", `"agents-gossip"`} {
		if !bytes.Contains(log, []byte(text)) {
			t.Errorf("nothing is logged of %s", text)
		}
	}
	set.Check(t, "the log", log)
	set.Check(t, "the status", []byte(strings.Join(append(wrongs, conditions()), "\n")))
	for _, list := range []client.ObjectList{
		&corev1.EventList{}, &corev1.ConfigMapList{}, &corev1.ServiceList{}, &corev1.PodList{}, &appsv1.StatefulSetList{}, &switchboardv1alpha1.HubList{},
	} {
		if err := c.List(t.Context(), list, client.InNamespace(h.key.Namespace)); err != nil {
			t.Fatal(err)
		}
		if meta.LenList(list) == 0 {
			t.Errorf("there is nothing in %T", list)
		}
		text, err := json.Marshal(list)
		if err != nil {
			t.Fatal(err)
		}
		set.Check(t, fmt.Sprintf("%T", list), text)
	}
	families, err := metrics.Registry.Gather()
	if err != nil || len(families) == 0 {
		t.Fatalf("%d metrics, %v", len(families), err)
	}
	for _, family := range families {
		set.Check(t, family.GetName(), []byte(family.String()))
	}
	all := &corev1.SecretList{} // where they would be seen
	if err := c.List(t.Context(), all, client.InNamespace(h.key.Namespace)); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	found := set.Find(text)
	for _, name := range []string{"the gossip key", "the key in agents-ca", "the key in agents-cluster-authority", "the hash of a static token"} {
		if !slices.ContainsFunc(found, func(f secrets.Finding) bool { return f.Name == name }) {
			t.Errorf("%s is not found in the Secrets themselves", name)
		}
	}
}
