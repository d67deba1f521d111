package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/test/cluster"
	"github.com/switchboardhub/switchboard/wire"
)

// untilHeard publishes from pub until every inbox has something, then empties
// them: from then on pub's node knows that all of them want to hear topic.
func untilHeard(t *testing.T, c *cluster.Cluster, pub *client.Client, topic string, boxes ...inbox) {
	t.Helper()
	c.WaitFor("interest in "+topic, func() bool {
		if _, err := pub.Publish(patient(t), topic, &wire.Artifact{ContentType: "probe"}); err != nil {
			t.Fatal(err)
		}
		for _, b := range boxes {
			if len(b) == 0 {
				return false
			}
		}
		return true
	})
}

// nextBut returns the next artifact that is not of untilHeard's.
func (in inbox) nextBut(t *testing.T, contentType string) *wire.Artifact {
	t.Helper()
	for {
		if a := in.next(t); a.ContentType != contentType {
			return a
		}
	}
}

// The name of what a node wants to hear is the pattern's and the group's
// together, both as long as they may be.
func TestGroupOnSeveralNodesSharesWhatComes(t *testing.T) {
	c := cluster.Start(t, 3, nil)
	topic := strings.Repeat("t", wire.MaxTopic)
	group := strings.Repeat("g", wire.MaxGroup)
	shared := make(inbox, 1000)
	all := make(inbox, 1000)
	for node := 1; node < 3; node++ {
		for i := range 2 {
			member := connect(t, c.Node(node), fmt.Sprintf("member-%d-%d", node, i))
			if _, err := member.Subscribe(patient(t), topic, shared.handle, client.Group(group)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := connect(t, c.Node(2), "observer").Subscribe(patient(t), topic, all.handle); err != nil {
		t.Fatal(err)
	}
	pub := connect(t, c.Node(0), "pub")
	untilHeard(t, c, pub, topic, shared, all)
	const count = 200
	for i := range count {
		if _, err := pub.Publish(patient(t), topic, &wire.Artifact{ContentType: "work", Payload: []byte{byte(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[byte]int{}
	for range count {
		a := shared.nextBut(t, "probe")
		seen[a.Payload[0]]++
	}
	if len(seen) != count {
		t.Errorf("the group got %d of %d artifacts, some of them more than once: %v", len(seen), count, seen)
	}
	for range count {
		all.nextBut(t, "probe")
	}
}

func TestGroupNameIsChecked(t *testing.T) {
	c := cluster.Start(t, 1, nil)
	_, err := connect(t, c.Node(0), "a").Subscribe(patient(t), "jobs", make(inbox).handle, client.Group(strings.Repeat("g", wire.MaxGroup+1)))
	var refused *client.Error
	if !errors.As(err, &refused) || refused.Code != wire.CodeInvalidRequest || !strings.Contains(refused.Detail, "longer than 128 bytes") {
		t.Errorf("Subscribe = %v, want a refusal that names the limit", err)
	}
}

func TestFilterHoldsAcrossNodes(t *testing.T) {
	c := cluster.Start(t, 2, keepHistory)
	pub := connect(t, c.Node(0), "pub")
	for i := range 20 {
		a := &wire.Artifact{Payload: make([]byte, i), Attributes: map[string]string{"parity": []string{"even", "odd"}[i%2]}}
		if _, err := pub.Publish(patient(t), "sizes", a); err != nil {
			t.Fatal(err)
		}
	}
	box := make(inbox, 20)
	sub := connect(t, c.Node(1), "sub")
	if _, err := sub.Subscribe(patient(t), "sizes", box.handle, client.SinceAll(), client.Filter(`artifact.size > 10 && artifact.attributes["parity"] == "odd"`)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{11, 13, 15, 17, 19} {
		if a := box.next(t); len(a.Payload) != want {
			t.Errorf("an artifact of %d bytes arrived, want one of %d", len(a.Payload), want)
		}
	}
}

// What a topic's filter refuses takes nothing with it that shares its frame, wherever the
// topic's leader is and whatever becomes of the connection; the rest stays in order, and
// each publisher hears of its own.
func TestARefusedArtifactLeavesItsNeighbours(t *testing.T) {
	const artifacts = 1000
	c := cluster.Start(t, 3, func(cfg *config.Config) {
		keep := 2 * artifacts
		cfg.Topics = []config.Topic{
			{Pattern: "kept.>", History: &config.TopicHistory{MaxArtifacts: &keep}, Filter: `!("bad" in artifact.attributes)`},
			{Pattern: "live.>", Filter: `!("bad" in artifact.attributes)`},
		}
	})
	all := allNodes(c)
	sub := connect(t, c.Node(1), "sub")
	for _, topic := range []string{"kept.a", "kept.b", "kept.c", "live.a", "live.b"} {
		t.Run(topic, func(t *testing.T) {
			box := make(inbox, artifacts)
			if _, err := sub.Subscribe(patient(t), topic, box.handle, client.SinceAll()); err != nil {
				t.Fatal(err)
			}
			var near wires
			pub := near.connect(t, all, "pub-"+topic)
			if topic[0] == 'l' {
				c.WaitFor("the subscription to be known", func() bool {
					_, err := pub.Publish(patient(t), topic, &wire.Artifact{Payload: []byte("first")})
					return err == nil && len(box) > 0
				})
			}
			acks := make([]client.Ack, artifacts)
			for i := range acks {
				a := &wire.Artifact{Payload: fmt.Append(nil, i)}
				if i%7 == 3 {
					a.Attributes = map[string]string{"bad": ""}
				}
				var err error
				if acks[i], err = pub.PublishAsync(patient(t), topic, a); err != nil {
					t.Fatal(err)
				}
				if i%300 == 299 {
					near.cut()
				}
			}
			next := wire.Sequence(1)
			for i, ack := range acks {
				seq, err := ack.Wait(patient(t))
				if i%7 == 3 {
					var refused *client.Error
					if !errors.As(err, &refused) || refused.Code != wire.CodeRefused {
						t.Fatalf("artifact %d: %d, %v, want it refused", i, seq, err)
					}
					continue
				}
				if topic[0] == 'l' {
					next = 0
				}
				if err != nil || seq != next {
					t.Fatalf("artifact %d: %d, %v, want %d", i, seq, err, next)
				}
				next++
				a := box.next(t)
				for string(a.Payload) == "first" {
					a = box.next(t)
				}
				if string(a.Payload) != fmt.Sprint(i) {
					t.Fatalf("artifact %s came, %d was expected", a.Payload, i)
				}
			}
			if len(box) > 0 {
				t.Errorf("%d more came", len(box))
			}
		})
	}
}

func TestRequestAcrossNodes(t *testing.T) {
	c := cluster.Start(t, 2, nil)
	connect(t, c.Node(1), "doubler").Handle(func(_ context.Context, a *wire.Artifact) (*wire.Artifact, error) {
		if len(a.Payload) == 0 {
			return nil, errors.New("nothing to double")
		}
		return &wire.Artifact{Payload: append(a.Payload, a.Payload...)}, nil
	})
	asker := connect(t, c.Node(0), "asker")
	got, err := asker.Request(patient(t), "doubler", &wire.Artifact{Payload: []byte("ab")})
	if err != nil || string(got.Payload) != "abab" {
		t.Errorf("Request = %v, %v; want abab", got, err)
	}
	var failed *client.HandlerError
	if _, err := asker.Request(patient(t), "doubler", &wire.Artifact{}); !errors.As(err, &failed) || !strings.Contains(err.Error(), "nothing to double") {
		t.Errorf("Request = %v, want the handler's error", err)
	}
}

func TestBroadcastReachesEveryClientThatDidNotOptOut(t *testing.T) {
	c := cluster.Start(t, 3, nil)
	var boxes []inbox
	join := func(node int, id wire.ClientID, opts ...client.Option) *client.Client {
		box := make(inbox, 1000)
		boxes = append(boxes, box)
		joined, err := client.Connect(patient(t), c.Node(node).Client(), append(opts, client.WithID(id), client.OnBroadcast(box.handle))...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = joined.Close() })
		return joined
	}
	quiet := make(inbox, 1000)
	out, err := client.Connect(patient(t), c.Node(1).Client(), client.WithID("out"), client.WithoutBroadcast(), client.OnBroadcast(quiet.handle))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = out.Close() })
	for node := range 3 {
		join(node, fmt.Sprintf("member-%d", node))
	}
	pub := connect(t, c.Node(0), "pub")
	untilHeard(t, c, pub, "broadcast", boxes...)
	if len(quiet) > 0 {
		t.Errorf("the client that opted out got %d artifacts", len(quiet))
	}
}
