package hubnode

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/wire"
)

// runLimited runs a node whose tenants may keep so many bytes.
func runLimited(t *testing.T, limit config.Bytes) *Node {
	t.Helper()
	cfg := config.Default()
	cfg.Hub, cfg.Node, cfg.Advertise = "test/"+t.Name(), "node-0", "127.0.0.1"
	cfg.Listen = config.Listen{Client: "127.0.0.1:0", Cluster: "127.0.0.1:0", Gossip: "127.0.0.1:0", HTTP: "127.0.0.1:0"}
	cfg.Authentication.ServiceAccount = &config.TokenIssuer{Issuer: "https://issuer.example", Audiences: []string{"a"}, KeysFile: "/nowhere"}
	cfg.Tenancy = config.TenancyNamespace
	cfg.History.MaxArtifacts = 1000
	cfg.Limits.PerNamespace.HistoryBytes = limit
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(30 * time.Second); !n.Ready(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the node does not become ready")
		}
	}
	return n
}

// store stores one artifact on a topic.
func (n *Node) store(t *testing.T, topic string, by hub.Publisher) (wire.Sequence, error) {
	t.Helper()
	var run wire.Run
	if err := run.Append(&wire.Artifact{ID: wire.ID{1}, Payload: []byte(strings.Repeat("x", 1000))}, 1<<20); err != nil {
		t.Fatal(err)
	}
	type outcome struct {
		first wire.Sequence
		err   error
	}
	result := make(chan outcome, 1)
	err := n.keeper.Append(wire.AppendFrame(nil, wire.Header{Kind: wire.KindPublish, Count: 1}, topic, "shop/w", run.Body()), 0, by,
		func(_ *hub.Stage, first wire.Sequence, err error) { result <- outcome{first, err} })
	if err != nil {
		return 0, err
	}
	got := <-result
	return got.first, got.err
}

// A refusal says that nothing was stored: whoever sends again what was, because it heard no
// answer, is told where, also when there is no room for more.
func TestWhatIsStoredAlreadyIsNeverOverTheLimit(t *testing.T) {
	n := runLimited(t, 10<<10)
	number, firsts := uint64(0), []wire.Sequence{}
	for {
		first, err := n.store(t, "shop.a", hub.Publisher{ID: 7, Number: number + 1})
		if coded, ok := errors.AsType[*wire.Error](err); ok && coded.Code == wire.CodeStorageFull {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		number++
		firsts = append(firsts, first)
	}
	if number < 5 || n.shares.refused.Load() != 1 {
		t.Fatalf("%d artifacts are stored, %d refused", number, n.shares.refused.Load())
	}
	for i, want := range firsts {
		if first, err := n.store(t, "shop.a", hub.Publisher{ID: 7, Number: uint64(i) + 1}); err != nil || first != want {
			t.Errorf("artifact %d again: %d, %v, want %d", i+1, first, err, want)
		}
	}
	if _, err := n.store(t, "shop.b", hub.Publisher{ID: 7, Number: 1}); err == nil {
		t.Error("one more is taken, on another topic")
	}
	n.countShares() // what was stored during a count is in it twice until the next one
	held := n.shares.byTenant()["shop"]
	if _, size := n.keeper.Size(); size != held || held == 0 {
		t.Errorf("the node keeps %d bytes, the share is %d", size, held)
	}

	// A purge counts before whoever asked for it hears of it.
	if err := n.keeper.Purge(t.Context(), "shop.a", firsts[2]); err != nil {
		t.Fatal(err)
	}
	if first, err := n.store(t, "shop.a", hub.Publisher{ID: 7, Number: number + 1}); err != nil || first != firsts[len(firsts)-1]+1 {
		t.Errorf("after a purge: %d, %v", first, err)
	}
}
