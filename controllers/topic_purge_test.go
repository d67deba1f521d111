package controllers_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/controllers"
	"github.com/switchboardhub/switchboard/hubnode/config"
	hubcluster "github.com/switchboardhub/switchboard/test/cluster"
	"github.com/switchboardhub/switchboard/wire"
)

// port returns the port of host:port.
func port(t *testing.T, address string) int {
	t.Helper()
	_, digits, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(digits)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// keeping returns how many artifacts each topic of a hub keeps.
func keeping(t *testing.T, node *hubcluster.Node) map[string]int {
	t.Helper()
	resp, err := http.Get(node.HTTP() + "/v1/topics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var list struct {
		Topics []struct {
			Topic     string `json:"topic"`
			Artifacts int    `json:"artifacts"`
			History   bool   `json:"history"`
		} `json:"topics"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		t.Fatal(err)
	}
	found := make(map[string]int)
	for _, topic := range list.Topics {
		if topic.History {
			found[topic.Topic] = topic.Artifacts
		}
	}
	return found
}

// TestPurgeOnARealHub purges through one of three nodes, which lead the topics'
// shards by turns.
func TestPurgeOnARealHub(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	hub := hubcluster.Start(t, 3, func(c *config.Config) { c.History.MaxArtifacts = 100 })
	c, err := client.Connect(t.Context(), hub.Node(0).Client())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	want := make(map[string]int)
	publish := func(topic string) {
		if _, err := c.Publish(t.Context(), topic, &wire.Artifact{Payload: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		want[topic]++
	}
	for i := range 20 {
		publish(fmt.Sprintf("orders.%d", i))
		publish(fmt.Sprintf("orders.%d", i))
		publish(fmt.Sprintf("bills.%d", i))
	}
	publish("orders")

	node := hub.Node(1)
	purger := controllers.HubClient{HTTP: controllers.HTTPNodes{Port: port(t, node.HTTP()[len("http://"):])}, Port: port(t, node.Client())}
	_, err = purger.PurgeTopics(t.Context(), "another", []string{"127.0.0.1"}, "orders.>")
	if err == nil || !strings.Contains(err.Error(), "belongs to hub") {
		t.Errorf("purge on a node of another hub: %v, want it refused", err)
	}
	identity := c.Server().Hub
	hub.WaitFor("all leaders", func() bool { return len(keeping(t, node)) == len(want) })
	if diff := cmp.Diff(want, keeping(t, node)); diff != "" {
		t.Fatalf("kept before (-want +got):\n%s", diff)
	}

	done, err := purger.PurgeTopics(t.Context(), identity, []string{"127.0.0.1"}, "orders.*")
	if err != nil || done != (controllers.Purged{Topics: 20, Artifacts: 40}) {
		t.Errorf("purge = %+v, %v, want 20 topics and 40 artifacts", done, err)
	}
	for topic := range want {
		if strings.HasPrefix(topic, "orders.") {
			want[topic] = 0
		}
	}
	if diff := cmp.Diff(want, keeping(t, node)); diff != "" {
		t.Errorf("kept after (-want +got):\n%s", diff)
	}
	if done, err = purger.PurgeTopics(t.Context(), identity, []string{"127.0.0.1"}, "orders.*"); err != nil || done != (controllers.Purged{}) {
		t.Errorf("purge again = %+v, %v, want nothing to do", done, err)
	}

	// Without a leader nobody knows what a shard keeps.
	leaderless := func() bool {
		_, err := purger.PurgeTopics(t.Context(), identity, []string{"127.0.0.1"}, "bills.*")
		return err != nil && strings.Contains(err.Error(), "no leader")
	}
	hub.Kill(0)
	hub.Kill(2)
	hub.WaitFor("a purge that is refused for want of a leader", leaderless)
}
