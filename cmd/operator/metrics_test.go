package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// readMetrics reads them as nobody, as a ServiceAccount without the right, and
// with it, and compares what there is with the reference.
func readMetrics(t *testing.T, p *process, c client.Client, url string) {
	t.Helper()
	// The operator makes its certificate itself.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	get := func(ctx context.Context, token string) (int, string, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return 0, "", err
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body), err
	}
	answers := func(token string, want int, check func(body string) error) {
		t.Helper()
		p.eventually(t, func(ctx context.Context) error {
			status, body, err := get(ctx, token)
			if err == nil && status != want {
				err = fmt.Errorf("status %d, want %d: %s", status, want, body)
			}
			if err == nil && check != nil {
				err = check(body)
			}
			return err
		})
	}

	answers("", http.StatusUnauthorized, nil)
	answers(token(t, c, "somebody"), http.StatusForbidden, nil)
	reader := token(t, c, "prometheus")
	if err := c.Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "prometheus-reads-metrics"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name + "-metrics-reader"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "default", Name: "prometheus"}},
	}); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "reference", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, about, ok := strings.Cut(string(page), "\n## The operator\n")
	if !ok {
		t.Fatal("the page has no section about the operator")
	}
	answers(reader, http.StatusOK, func(body string) error { return compareMetrics(about, body) })
}

// token makes a ServiceAccount and returns a token of its.
func token(t *testing.T, c client.Client, account string) string {
	t.Helper()
	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: account}}
	if err := c.Create(t.Context(), sa); err != nil {
		t.Fatal(err)
	}
	request := &authenticationv1.TokenRequest{}
	if err := c.SubResource("token").Create(t.Context(), sa, request); err != nil {
		t.Fatal(err)
	}
	return request.Status.Token
}

var (
	metricRow    = regexp.MustCompile("(?m)^\\| `(switchboard_[a-z_]+)` \\| ([^|]*) \\|")
	metricInText = regexp.MustCompile("`([a-z_]+)\\{([a-z_]+)\\}`")
	labelName    = regexp.MustCompile("[a-z_]+")
)

// compareMetrics returns what the page and the metrics disagree about: our own
// metrics with their labels, and those of controller-runtime that the page names.
func compareMetrics(page, exposed string) error {
	described := make(map[string][]string)
	for _, row := range metricRow.FindAllStringSubmatch(page, -1) {
		described[row[1]] = slices.Sorted(slices.Values(labelName.FindAllString(row[2], -1)))
	}
	named := metricInText.FindAllStringSubmatch(page, -1)
	if len(described) == 0 || len(named) == 0 {
		return fmt.Errorf("the page describes no metrics: %v, %v", described, named)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(exposed))
	if err != nil {
		return err
	}
	ours := make(map[string][]string)
	for family := range maps.Keys(families) {
		if strings.HasPrefix(family, "switchboard_") {
			ours[family] = labelsOf(families[family])
		}
	}
	if diff := cmp.Diff(described, ours); diff != "" {
		return fmt.Errorf("metrics and labels (-described +exposed):\n%s", diff)
	}
	for _, m := range named {
		if !slices.Contains(labelsOf(families[m[1]]), m[2]) {
			return fmt.Errorf("the page names %s with the label %s; it has %v", m[1], m[2], labelsOf(families[m[1]]))
		}
	}
	return nil
}

func labelsOf(family *dto.MetricFamily) []string {
	labels := make(map[string]bool)
	for _, m := range family.GetMetric() {
		for _, l := range m.GetLabel() {
			labels[l.GetName()] = true
		}
	}
	return slices.Sorted(maps.Keys(labels))
}
