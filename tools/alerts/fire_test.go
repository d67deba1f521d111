package alerts

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
)

// healthy is a hub of three nodes to which nothing happens but work, and its
// operator: half an hour of samples, in promtool's notation.
const healthy = `
load 1m
	switchboard_hub_condition{namespace="team-a",hub="agents",type="Available",status="True",reason="MajorityReady"} 1x30
	switchboard_hub_condition{namespace="team-a",hub="agents",type="Progressing",status="False",reason="Complete"} 1x30
	switchboard_hub_condition{namespace="team-a",hub="agents",type="Degraded",status="False",reason="AsExpected"} 1x30
	switchboard_hub_condition{namespace="team-a",hub="agents",type="ConfigApplied",status="True",reason="Applied"} 1x30
	switchboard_hub_condition{namespace="team-a",hub="agents",type="CertificatesReady",status="True",reason="Rotating"} 1x30
	switchboard_hub_condition{namespace="team-a",hub="agents",type="AuthenticationReady",status="True",reason="Configured"} 1x30
	switchboard_hub_condition{namespace="team-a",hub="agents",type="LinksEncrypted",status="False",reason="NodesGoingOver"} 1x30
	switchboard_certificate_stale{namespace="team-a",hub="agents",pod="agents-node-0",port="cluster"} 0x30
	switchboard_certificate_not_before_timestamp_seconds{namespace="team-a",hub="agents",pod="agents-node-0",port="cluster"} -5011200x30
	switchboard_certificate_expiry_timestamp_seconds{namespace="team-a",hub="agents",pod="agents-node-0",port="cluster"} 2764800x30
	switchboard_certificate_not_before_timestamp_seconds{namespace="team-a",hub="agents",pod="agents-node-0",port="client"} -57600x30
	switchboard_certificate_expiry_timestamp_seconds{namespace="team-a",hub="agents",pod="agents-node-0",port="client"} 28800x30
	switchboard_gossip_keys_stale{namespace="team-a",hub="agents",pod="agents-node-1"} 0x30
	switchboard_mesh_links_refused_total{namespace="team-a",hub="agents",pod="agents-node-0",reason="untrusted"} 4x30
	switchboard_hub_condition{namespace="team-a",hub="asleep",type="Available",status="False",reason="ScaledToZero"} 1x30
	switchboard_hub_replicas{namespace="team-a",hub="agents"} 3x30
	switchboard_hub_ready_replicas{namespace="team-a",hub="agents"} 3x30
	switchboard_raft_leader{namespace="team-a",hub="agents",pod="agents-node-0",shard="7"} 0x30
	switchboard_raft_leader{namespace="team-a",hub="agents",pod="agents-node-1",shard="7"} 1x30
	switchboard_history_disk_full{namespace="team-a",hub="agents",pod="agents-node-0"} 0x30
	switchboard_memory_level{namespace="team-a",hub="agents",pod="agents-node-0"} 0x9 2x1 0x20
	switchboard_history_disk_free_bytes{namespace="team-a",hub="agents",pod="agents-node-0"} 900x30
	switchboard_history_disk_size_bytes{namespace="team-a",hub="agents",pod="agents-node-0"} 1000x30
	switchboard_history_disk_reserve_bytes{namespace="team-a",hub="agents",pod="agents-node-0"} 250x30
	switchboard_history_disk_free_bytes{namespace="team-a",hub="agents",pod="agents-of-before-0"} 210x30
	switchboard_history_disk_size_bytes{namespace="team-a",hub="agents",pod="agents-of-before-0"} 1000x30
	switchboard_history_disk_free_bytes{namespace="team-a",hub="memory",pod="memory-node-0"} 0x30
	switchboard_history_disk_size_bytes{namespace="team-a",hub="memory",pod="memory-node-0"} 0x30
	switchboard_history_disk_reserve_bytes{namespace="team-a",hub="memory",pod="memory-node-0"} 0x30
	switchboard_raft_recoveries_total{namespace="team-a",hub="agents",pod="agents-node-0"} 3x30
	switchboard_raft_replicas_remade_total{namespace="team-a",hub="agents",pod="agents-node-0"} 3x30
	switchboard_durable_lost_artifacts_total{namespace="team-a",hub="agents",pod="agents-node-0",durable="orders.new/workers"} 3x20 stale
	switchboard_durable_lost_artifacts_total{namespace="team-a",hub="agents",pod="agents-node-1",durable="orders.new/workers"} _x20 3x10
	switchboard_slow_clients_total{namespace="team-a",hub="agents",pod="agents-node-0"} 0+0.1x30
	switchboard_artifacts_over_quota_total{namespace="team-a",hub="agents",pod="agents-node-0"} 7x30
	switchboard_artifacts_dropped_total{namespace="team-a",hub="agents",pod="agents-node-0",reason="slow_client"} 0+1x30
	switchboard_artifacts_dropped_total{namespace="team-a",hub="agents",pod="agents-node-0",reason="filtered"} 0+1000x30
	switchboard_artifacts_delivered_total{namespace="team-a",hub="agents",pod="agents-node-0",route="topic"} 0+1000x30
	controller_runtime_reconcile_errors_total{namespace="switchboard-system",job="hubs-metrics",controller="hub"} 0+0.1x30
	controller_runtime_reconcile_timeouts_total{namespace="switchboard-system",job="hubs-metrics",controller="hub"} 0x30
	up{namespace="switchboard-system",job="hubs-metrics",pod="hubs-0"} 1x30
	up{namespace="switchboard-system",job="hubs-metrics",pod="hubs-1"} 0x30
	leader_election_master_status{namespace="switchboard-system",job="hubs-metrics",pod="hubs-0",name="switchboard-operator"} 1x30
	leader_election_master_status{namespace="switchboard-system",job="hubs-metrics",pod="hubs-1",name="switchboard-operator"} 0x30
	leader_election_master_status{namespace="elsewhere",job="hubs-metrics",pod="hubs-0",name="switchboard-operator"} 0x30
`

// unhealthy says for each alert what is otherwise when it has to fire, one of
// these at a time.
var unhealthy = map[string][]string{
	"SwitchboardHubNotAvailable":    {`switchboard_hub_condition{namespace="team-a",hub="other",type="Available",status="False",reason="TooFewNodesReady"} 1x30`},
	"SwitchboardNodeNotReady":       {`switchboard_hub_ready_replicas{namespace="team-a",hub="agents"} 2x30`},
	"SwitchboardShardWithoutLeader": {`switchboard_raft_leader{namespace="team-a",hub="agents",pod="agents-node-1",shard="7"} 0x30`},
	"SwitchboardDiskFull":           {`switchboard_history_disk_full{namespace="team-a",hub="agents",pod="agents-node-0"} 1x30`},
	"SwitchboardDiskNearlyFull": {
		`switchboard_history_disk_free_bytes{namespace="team-a",hub="agents",pod="agents-node-0"} 340x30`, // of which it uses 90
		`switchboard_history_disk_free_bytes{namespace="team-a",hub="agents",pod="agents-node-0"} 190x30`,
		`switchboard_history_disk_free_bytes{namespace="team-a",hub="agents",pod="agents-of-before-0"} 190x30`,
		`switchboard_history_disk_reserve_bytes{namespace="team-a",hub="agents",pod="agents-of-before-0"} 150x30`, // it is of this version now
	},
	"SwitchboardMemoryShort": {`switchboard_memory_level{namespace="team-a",hub="agents",pod="agents-node-0"} 1x30`},
	"SwitchboardAcknowledgedAtRisk": {
		`switchboard_raft_recoveries_total{namespace="team-a",hub="agents",pod="agents-node-0"} 3x20 4x9`,
		`switchboard_raft_recoveries_total{namespace="team-a",hub="agents",pod="agents-node-0",instance="another"} _x25 1x5`,
	},
	"SwitchboardReplicaRemade": {
		`switchboard_raft_replicas_remade_total{namespace="team-a",hub="agents",pod="agents-node-0"} 3x20 4x9`,
		`switchboard_raft_replicas_remade_total{namespace="team-a",hub="agents",pod="agents-node-0",instance="another"} _x25 1x5`,
	},
	"SwitchboardWorkLost": {
		`switchboard_durable_lost_artifacts_total{namespace="team-a",hub="agents",pod="agents-node-1",durable="orders.new/workers"} _x20 5x10`,
		`switchboard_durable_lost_artifacts_total{namespace="team-a",hub="agents",pod="agents-node-1",durable="orders.old/workers"} _x20 5x10`,
	},
	"SwitchboardSlowClients":      {`switchboard_slow_clients_total{namespace="team-a",hub="agents",pod="agents-node-0"} 0+1x30`},
	"SwitchboardTenantFull":       {`switchboard_artifacts_over_quota_total{namespace="team-a",hub="agents",pod="agents-node-0"} 7x20 8x10`},
	"SwitchboardArtifactsDropped": {`switchboard_artifacts_dropped_total{namespace="team-a",hub="agents",pod="agents-node-0",reason="slow_client"} 0+20x30`},
	"SwitchboardRolloutStuck":     {`switchboard_hub_condition{namespace="team-a",hub="other",type="Progressing",status="False",reason="RolloutStuck"} 1x30`},
	"SwitchboardConfigRefused":    {`switchboard_hub_condition{namespace="team-a",hub="other",type="ConfigApplied",status="False",reason="Rejected"} 1x30`},
	"SwitchboardCertificatesNotReady": {
		`switchboard_hub_condition{namespace="team-a",hub="other",type="CertificatesReady",status="False",reason="IssuerNotReady"} 1x30`,
		`switchboard_hub_condition{namespace="team-a",hub="other",type="LinksEncrypted",status="False",reason="SecretInvalid"} 1x30`,
		`switchboard_hub_condition{namespace="team-a",hub="other",type="LinksEncrypted",status="False",reason="Expired"} 1x30`,
	},
	"SwitchboardCertificateExpires": {
		`switchboard_certificate_expiry_timestamp_seconds{namespace="team-a",hub="agents",pod="agents-node-0",port="cluster"} 900000x30`,
		`switchboard_certificate_expiry_timestamp_seconds{namespace="team-a",hub="agents",pod="agents-node-0",port="client"} 10800x30`,       // of a life of 19 hours
		`switchboard_certificate_expiry_timestamp_seconds{namespace="team-a",hub="agents",pod="agents-of-before-0",port="client"} 900000x30`, // since when is not told
	},
	"SwitchboardAuthenticationNotReady": {`switchboard_hub_condition{namespace="team-a",hub="other",type="AuthenticationReady",status="False",reason="SourceNotFound"} 1x30`},
	"SwitchboardKeysStale": {
		`switchboard_certificate_stale{namespace="team-a",hub="agents",pod="agents-node-0",port="cluster"} 1x30`,
		`switchboard_gossip_keys_stale{namespace="team-a",hub="agents",pod="agents-node-1"} 1x30`,
	},
	"SwitchboardLinksRefused": {`switchboard_mesh_links_refused_total{namespace="team-a",hub="agents",pod="agents-node-0",reason="untrusted"} 0+1x30`},
	"SwitchboardHubStalled":   {`switchboard_hub_condition{namespace="team-a",hub="other",type="Stalled",status="True",reason="NameTaken"} 1x30`},
	"SwitchboardOperatorDown": {`up{namespace="switchboard-system",job="hubs-metrics",pod="hubs-0"} 0x30`},
	"SwitchboardOperatorIdle": {
		`leader_election_master_status{namespace="switchboard-system",job="hubs-metrics",pod="hubs-0",name="switchboard-operator"} 0x30`,
		`leader_election_master_status{namespace="switchboard-system",job="hubs-metrics",pod="hubs-0",name="switchboard-operator"} 1x20 stale`,
	},
	"SwitchboardReconcileErrors": {
		`controller_runtime_reconcile_errors_total{namespace="switchboard-system",job="hubs-metrics",controller="hub"} 0+2x30`,
		`controller_runtime_reconcile_timeouts_total{namespace="switchboard-system",job="hubs-metrics",controller="hub"} 0+0.4x30`,
	},
}

// firing evaluates an alert's expression at the end of the samples.
func firing(t *testing.T, expr, samples string) promql.Vector {
	t.Helper()
	storage := promqltest.LoadedStorage(t, samples)
	engine := promqltest.NewTestEngine(t, false, 0, 10_000)
	q, err := engine.NewInstantQuery(t.Context(), storage, nil, expr, time.Unix(0, 0).Add(30*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	vector, err := q.Exec(t.Context()).Vector()
	if err != nil {
		t.Fatal(err)
	}
	return append(promql.Vector(nil), vector...) // q.Close takes the original back
}

// with replaces the series of samples that line is another course of, or adds it.
func with(samples, line string) string {
	series, _, _ := strings.Cut(line, "} ")
	kept := make([]string, 0, 32)
	for old := range strings.SplitSeq(strings.TrimRight(samples, "\n"), "\n") {
		if !strings.HasPrefix(strings.TrimSpace(old), series+"} ") {
			kept = append(kept, old)
		}
	}
	return strings.Join(append(kept, "\t"+line), "\n") + "\n"
}

var labelInText = regexp.MustCompile(`\$labels\.([a-z_]+)`)

func TestAlertsFireWhenTheyShould(t *testing.T) {
	for _, r := range rules(t) {
		t.Run(r.Alert, func(t *testing.T) {
			wrong := unhealthy[r.Alert]
			if len(wrong) == 0 {
				t.Fatal("this test does not know when it has to fire")
			}
			parsed, err := parser.NewParser(parser.Options{}).ParseExpr(r.Expr)
			if err != nil {
				t.Fatal(err)
			}
			for _, selector := range parser.ExtractSelectors(parsed) {
				for _, m := range selector {
					if m.Name == model.MetricNameLabel && !strings.Contains(healthy, "\t"+m.Value+"{") {
						t.Errorf("it is quiet for want of %s", m.Value)
					}
				}
			}
			if got := firing(t, r.Expr, healthy); len(got) > 0 {
				t.Errorf("all is well, and it fires: %v", got)
			}
			for _, line := range wrong {
				got := firing(t, r.Expr, with(healthy, line))
				if len(got) != 1 {
					t.Fatalf("it fires %d times with %s, want once: %v", len(got), line, got)
				}
				for _, text := range r.Annotations {
					for _, m := range labelInText.FindAllStringSubmatch(text, -1) {
						if got[0].Metric.Get(m[1]) == "" {
							t.Errorf("%q names the label %s, which the alert has not: %v", text, m[1], got[0].Metric)
						}
					}
				}
			}
		})
	}
}
