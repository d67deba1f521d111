package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers"
	"github.com/switchboardhub/switchboard/test/ports"
)

// TestOperatorThatCantRead runs the program for two namespaces, in one of which it has
// no rights, as when that namespace was deleted.
func TestOperatorThatCantRead(t *testing.T) {
	env, c := start(t)
	makeNamespaces(t, c, "team-a", "team-b")
	createAll(t, c, rendered("namespaces"))
	makeHubs(t, c, "team-a", "team-b")
	health, metrics := "http://"+ports.Free(t), "http://"+ports.Free(t)
	runHere := func(t *testing.T, args ...string) *process {
		t.Helper()
		return runOperator(t, env, append(args, "--node-image=switchboard:test", "--watch-namespaces=team-a,team-b", "--leader-elect",
			"--health-probe-bind-address="+strings.TrimPrefix(health, "http://"), "--metrics-secure=false", "--metrics-bind-address="+strings.TrimPrefix(metrics, "http://"))...)
	}
	binding := &rbacv1.RoleBinding{}
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: "team-b", Name: name}, binding); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(t.Context(), binding); err != nil {
		t.Fatal(err)
	}

	t.Run("gives up and says what it could not read", func(t *testing.T) {
		p := runHere(t, "--cache-sync-timeout=3s")
		err := p.wait(t)
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 {
			t.Errorf("it ended with %v, want exit status 1", err)
		}
		_, said, _ := strings.Cut(p.said.String(), "\noperator: ")
		for _, kind := range controllers.Watched() {
			gvk, err := apiutil.GVKForObject(kind, c.Scheme())
			if err != nil {
				t.Fatal(err)
			}
			want := regexp.MustCompile("(?m)^list " + gvk.Kind + ` in team-b: .*cannot list resource.* in the namespace "team-b"$`)
			if !want.MatchString(said) {
				t.Errorf("it does not say %s", want)
			}
		}
		if strings.Contains(said, "list Hub in team-a") || !strings.Contains(said, "not read within 3s") || !strings.Contains(said, "has to be taken out of --watch-namespaces") {
			t.Errorf("it says %q", said)
		}
	})

	t.Run("ends at once when it is told to", func(t *testing.T) {
		p := runHere(t)
		p.eventually(t, answers(health+"/healthz", http.StatusOK, "ok"))
		p.stop(t)
	})

	t.Run("is ready and acts once it has read", func(t *testing.T) {
		p := runHere(t)
		p.eventually(t, answers(health+"/readyz?verbose", http.StatusInternalServerError, "[-]read failed"))
		p.eventually(t, answers(health+"/healthz", http.StatusOK, "ok"))
		leads := func(value string) func(context.Context) error {
			return answers(metrics+"/metrics", http.StatusOK, "\nleader_election_master_status{name=\""+name+"\"} "+value+"\n")
		}
		p.eventually(t, leads("0"))
		if err := c.Get(t.Context(), client.ObjectKey{Namespace: "team-a", Name: "agents-node"}, &appsv1.StatefulSet{}); !apierrors.IsNotFound(err) {
			t.Errorf("the StatefulSet of a Hub: %v, want not found: an operator that has not read all acts", err)
		}
		again := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: binding.Namespace, Name: binding.Name}, RoleRef: binding.RoleRef, Subjects: binding.Subjects}
		if err := c.Create(t.Context(), again); err != nil {
			t.Fatal(err)
		}
		p.eventually(t, answers(health+"/readyz", http.StatusOK, "ok"))
		for _, ns := range []string{"team-a", "team-b"} {
			p.waitForNodes(t, c, ns, "agents")
		}
		p.eventually(t, leads("1"))
		p.stop(t)
	})
}

// refuser answers each list with an error of its own, or none.
type refuser struct {
	client.Reader
	answer func(kind, namespace string) error
}

func (r refuser) List(_ context.Context, list client.ObjectList, opts ...client.ListOption) error {
	o := client.ListOptions{}
	o.ApplyOptions(opts)
	return r.answer(list.GetObjectKind().GroupVersionKind().Kind, o.Namespace)
}

func TestUnreadSaysWhatTheAPIServerSays(t *testing.T) {
	forbidden := func(kind, namespace string) error {
		return apierrors.NewForbidden(schema.GroupResource{Resource: kind}, "", errors.New("not in "+namespace+"."))
	}
	for name, tt := range map[string]struct {
		namespaces []string
		answer     func(kind, namespace string) error
		want       string
	}{
		"a right is missing": {nil, func(kind, namespace string) error {
			if kind != "PodList" {
				return nil
			}
			return forbidden(kind, namespace)
		}, `list Pod: PodList is forbidden: not in .`},
		"a namespace is gone": {[]string{"a", "b"}, func(kind, namespace string) error {
			if namespace == "a" {
				return nil
			}
			return forbidden(kind, namespace)
		}, `list Hub in b: HubList is forbidden: not in b.
list Pod in b: PodList is forbidden: not in b.
a namespace that was deleted has to be taken out of --watch-namespaces (watchNamespaces of the chart)`},
		"nobody answers": {
			[]string{"a", "b"},
			func(string, string) error { return errors.New("connection refused") },
			`list Hub in a: connection refused`,
		},
		"it can be read by now": {
			[]string{"a", "b"},
			func(string, string) error { return nil },
			`all of it can be listed now: the API server was away, or takes long`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			scheme := runtime.NewScheme()
			if err := errors.Join(clientgoscheme.AddToScheme(scheme), switchboardv1alpha1.AddToScheme(scheme)); err != nil {
				t.Fatal(err)
			}
			err := unread(t.Context(), refuser{answer: tt.answer}, scheme, []client.Object{&switchboardv1alpha1.Hub{}, &corev1.Pod{}}, tt.namespaces)
			if diff := cmp.Diff(tt.want, fmt.Sprint(err)); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
}

// answers checks that a URL is answered with a status, and with what.
func answers(url string, status int, part string) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err == nil && (resp.StatusCode != status || !strings.Contains(string(body), part)) {
			err = fmt.Errorf("%s answers %d %.2000s, want %d and %q", url, resp.StatusCode, body, status, part)
		}
		return err
	}
}
