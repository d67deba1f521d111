package admin

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/switchboardhub/switchboard/hubnode/hub"
)

// fill gives every number in v a value of its own, from 1001 on, and every map
// two entries.
func fill(t *testing.T, v reflect.Value, next *int) {
	t.Helper()
	*next++
	switch v.Kind() {
	case reflect.Struct:
		for _, field := range v.Fields() {
			fill(t, field, next)
		}
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(1000 + *next))
	case reflect.Uint64:
		v.SetUint(uint64(1000 + *next))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for _, key := range []string{"one", "two"} {
			value := reflect.New(v.Type().Elem()).Elem()
			fill(t, value, next)
			v.SetMapIndex(reflect.ValueOf(key), value)
		}
	default:
		t.Fatalf("a number of type %s: teach the test what it is", v.Type())
	}
}

// expose returns what Prometheus gets to read.
func expose(t *testing.T, m hub.Metrics, n Counts) []byte {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{func() hub.Metrics { return m }, func() Counts { return n }})
	w := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.Bytes()
}

// series returns the value of each time series, by name without the prefix and
// labels, as in `artifacts_dropped_total{reason="filtered"}`.
func series(t *testing.T, text []byte) map[string]float64 {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]float64)
	for name, family := range families {
		name, ok := strings.CutPrefix(name, "switchboard_")
		if !ok {
			t.Errorf("a metric without the prefix: %s", name)
		}
		for _, m := range family.GetMetric() {
			labels := ""
			for _, l := range m.GetLabel() {
				labels += fmt.Sprintf("{%s=%q}", l.GetName(), l.GetValue())
			}
			switch {
			case m.GetGauge() != nil:
				all[name+labels] = m.GetGauge().GetValue()
			case m.GetCounter() != nil:
				all[name+labels] = m.GetCounter().GetValue()
			case m.GetSummary() != nil:
				all[name+"_count"] = float64(m.GetSummary().GetSampleCount())
				all[name+"_sum"] = m.GetSummary().GetSampleSum()
			default:
				t.Errorf("a metric of an unknown kind: %s", name)
			}
		}
	}
	return all
}

// Every number that a hub or a node has is exposed, under one name, as it is.
func TestMetricsAreConsistent(t *testing.T) {
	var m hub.Metrics
	var n Counts
	next := 0
	fill(t, reflect.ValueOf(&m).Elem(), &next)
	fill(t, reflect.ValueOf(&n).Elem(), &next)
	m.ArtifactsSent += 10_000 // those that were sent directly included

	want := map[string]float64{
		"artifacts_delivered_total" + `{route="topic"}`: float64(m.ArtifactsSent - m.ArtifactsDirect),
		"client_round_trip_seconds_count":               float64(m.RoundTrips),
		"client_round_trip_seconds_sum":                 m.RoundTripTime.Seconds(),
	}
	told := map[string]bool{"ArtifactsSent": true, "RoundTrips": true, "RoundTripTime": true} // by the above
	for field, name := range map[string]string{
		"ActiveClients":      "clients",
		"EncryptedClients":   "clients_encrypted",
		"HandshakesCrowded":  "handshakes_crowded_out_total",
		"Delayed":            "connections_delayed_total",
		"TurnedAway":         "connections_turned_away_total{limit=%q}",
		"TokenReviews":       "token_reviews_total{result=%q}",
		"TLSHandshakes":      "tls_handshakes_total{result=%q}",
		"CertificateExpiry":  "certificate_expiry_timestamp_seconds{port=%q}",
		"CertificateStart":   "certificate_not_before_timestamp_seconds{port=%q}",
		"CertificateStale":   "certificate_stale{port=%q}",
		"Sessions":           "sessions",
		"ArtifactsReceived":  "artifacts_received_total",
		"ArtifactsDirect":    `artifacts_delivered_total{route="direct"}`,
		"ArtifactsForwarded": "artifacts_forwarded_total",
		"ArtifactsDropped":   "artifacts_dropped_total{reason=%q}",
		"BytesReceived":      "bytes_received_total",
		"MalformedFrames":    "malformed_frames_total",
		"ArtifactsThrottled": "artifacts_throttled_total",
		"PermissionsDenied":  "permission_denied_total{action=%q}",
		"SlowClients":        "slow_clients_total",
		"UnhealthyClients":   "unhealthy_clients_total",
		"ClientsJoined":      "clients_joined_total",
		"ClientsLeft":        "clients_left_total{reason=%q}",
		"ClientsRefused":     "clients_refused_total{reason=%q}",
		"TopicSubscribers":   "topic_subscribers{pattern=%q}",
		"PendingBytes":       "pending_bytes",
		"HistoryArtifacts":   "history_artifacts",
		"HistoryBytes":       "history_bytes",
		"DirectoryEntries":   "directory_entries",
		"MeshLinks":          "mesh_links",
		"GossipMembers":      "gossip_members",
		"GossipHealth":       "gossip_health_score",
		"GossipKeys":         "gossip_keys",
		"GossipKeysStale":    "gossip_keys_stale",
		"MeshLinked":         "mesh_links_made_total",
		"MeshRefused":        "mesh_links_refused_total{reason=%q}",
		"MeshEncrypted":      "mesh_links_encrypted",
		"AnnounceRefused":    "directory_refused_total",
		"FilterErrors":       "filter_errors_total",
		"RaftLeader":         "raft_leader{shard=%q}",
		"RaftTerm":           "raft_term{shard=%q}",
		"RaftApplied":        "raft_applied_index{shard=%q}",
		"RaftCommitted":      "raft_committed_index{shard=%q}",
		"RaftPending":        "raft_pending_bytes{shard=%q}",
		"RaftVoters":         "raft_voters{shard=%q}",
		"RaftRecovered":      "raft_recoveries_total",
		"RaftRemade":         "raft_replicas_remade_total",
		"DiskFree":           "history_disk_free_bytes",
		"DiskSize":           "history_disk_size_bytes",
		"DiskReserve":        "history_disk_reserve_bytes",
		"DiskFull":           "history_disk_full",
		"DiskAway":           "history_disk_away",
		"MemoryUsed":         "memory_used_bytes",
		"MemoryLimit":        "memory_limit_bytes",
		"MemoryLevel":        "memory_level",
		"OverQuota":          "artifacts_over_quota_total",
		"DurableLost":        "durable_lost_artifacts_total{durable=%q}",
		"DurablePending":     "durable_pending_artifacts{durable=%q}",
		"DurableInFlight":    "durable_in_flight_artifacts{durable=%q}",

		"NamespaceHistory":      "namespace_history_bytes{tenant=%q}",
		"NamespaceHistoryLimit": "namespace_history_limit_bytes",
	} {
		told[field] = true
		v := reflect.ValueOf(m).FieldByName(field)
		if !v.IsValid() {
			v = reflect.ValueOf(n).FieldByName(field)
		}
		if v.Kind() != reflect.Map {
			want[name] = number(v)
			continue
		}
		for _, key := range v.MapKeys() {
			want[fmt.Sprintf(name, key)] = number(v.MapIndex(key))
		}
	}
	for _, numbers := range []reflect.Type{reflect.TypeFor[hub.Metrics](), reflect.TypeFor[Counts]()} {
		for f := range numbers.Fields() {
			if !told[f.Name] {
				t.Errorf("%s.%s is not exposed, or this test does not know as what", numbers, f.Name)
			}
		}
	}
	if diff := cmp.Diff(want, series(t, expose(t, m, n))); diff != "" {
		t.Errorf("the exposition differs (-want +got):\n%s", diff)
	}
}

// The page has a row for each metric, with its label, and no other.
func TestMetricsPageIsComplete(t *testing.T) {
	page, err := os.ReadFile("../../docs/reference/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	nodes, _, _ := strings.Cut(string(page), "\n## The operator\n")
	described := make(map[string]string) // labels, by name
	for _, row := range regexp.MustCompile("(?m)^\\| `switchboard_([a-z_]+)` \\| (?:`([a-z]+)`)? \\|").FindAllStringSubmatch(nodes, -1) {
		described[row[1]] = row[2]
	}
	var m hub.Metrics
	var n Counts
	next := 0
	fill(t, reflect.ValueOf(&m).Elem(), &next)
	fill(t, reflect.ValueOf(&n).Elem(), &next)
	exposed := make(map[string]string)
	for one := range series(t, expose(t, m, n)) {
		name, labels, _ := strings.Cut(one, "{")
		if base, ok := strings.CutSuffix(name, "_seconds_count"); ok {
			name = base + "_seconds"
		} else if base, ok := strings.CutSuffix(name, "_seconds_sum"); ok {
			name = base + "_seconds"
		}
		exposed[name], _, _ = strings.Cut(labels, "=")
	}
	if diff := cmp.Diff(exposed, described); diff != "" {
		t.Errorf("the page (-exposed +described):\n%s", diff)
	}
}

func number(v reflect.Value) float64 {
	if v.CanInt() {
		return float64(v.Int())
	}
	return float64(v.Uint())
}

func TestMetricsFollowTheConventions(t *testing.T) {
	var m hub.Metrics
	var n Counts
	next := 0
	fill(t, reflect.ValueOf(&m).Elem(), &next)
	fill(t, reflect.ValueOf(&n).Elem(), &next)
	problems, err := promlint.New(bytes.NewReader(expose(t, m, n))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// However many patterns are subscribed to, only the most popular have a time
// series.
func TestPatternsAreBounded(t *testing.T) {
	m := hub.Metrics{TopicSubscribers: make(map[string]int), RoundTripTime: time.Second}
	for i := range 10 * patternsMax {
		m.TopicSubscribers[fmt.Sprintf("t.%03d", i)] = i
	}
	var patterns []string
	for name := range series(t, expose(t, m, Counts{})) {
		if strings.HasPrefix(name, "topic_subscribers") {
			patterns = append(patterns, name)
		}
	}
	slices.Sort(patterns)
	if len(patterns) != patternsMax || patterns[0] != fmt.Sprintf("topic_subscribers{pattern=\"t.%03d\"}", 9*patternsMax) {
		t.Errorf("%d patterns from %s on", len(patterns), slices.Sorted(maps.Keys(m.TopicSubscribers))[0])
	}
}
