package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/test/cluster"
	"github.com/switchboardhub/switchboard/wire"
)

// storages runs a test with history in memory and on disk.
func storages(t *testing.T, test func(t *testing.T, settings func(*config.Config))) {
	t.Helper()
	t.Run("memory", func(t *testing.T) { test(t, keepHistory) })
	t.Run("disk", func(t *testing.T) {
		root := t.TempDir()
		test(t, func(c *config.Config) {
			keepHistory(c)
			c.Storage.Dir = root + "/" + c.Node
		})
	})
}

// reader collects what a subscription gets, by topic.
type reader struct {
	t *testing.T

	mu  sync.Mutex // guards got
	got map[string][]string
}

func (r *reader) handle(_ context.Context, a *wire.Artifact) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got[a.Topic] = append(r.got[a.Topic], string(a.Payload))
	if want := wire.Sequence(len(r.got[a.Topic])); a.Sequence != want {
		r.t.Errorf("topic %s: got sequence %d, want %d", a.Topic, a.Sequence, want)
	}
	return nil
}

func (r *reader) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, all := range r.got {
		n += len(all)
	}
	return n
}

// Every node crashes in turn while an asynchronous publisher goes on. What it
// published is there once, in its order, for those who listened all the time and
// for those who come later.
func TestCrashesLoseNothingAndDoubleNothing(t *testing.T) {
	storages(t, func(t *testing.T, settings func(*config.Config)) {
		t.Helper()
		const topics, each = 4, 250
		c := cluster.Start(t, 3, settings)
		addrs := c.Node(0).Client() + "," + c.Node(1).Client() + "," + c.Node(2).Client()
		join := func(id string) (*client.Client, *reader) {
			cl, err := client.Connect(patient(t), addrs, client.WithID(id))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = cl.Close() })
			r := &reader{t: t, got: make(map[string][]string)}
			if _, err := cl.Subscribe(patient(t), "t.>", r.handle, client.SinceAll()); err != nil {
				t.Fatal(err)
			}
			return cl, r
		}
		pub, early := join("early")
		var acks []client.Ack
		publish := func(from, to int) {
			for i := from; i < to; i++ {
				for topic := range topics {
					ack, err := pub.PublishAsync(patient(t), fmt.Sprintf("t.%d", topic), &wire.Artifact{Payload: []byte(strconv.Itoa(i))})
					if err != nil {
						t.Fatal(err)
					}
					acks = append(acks, ack)
				}
			}
		}
		for node := range 3 {
			publish(node*each, node*each+each/2)
			crashing := make(chan struct{})
			go func() {
				defer close(crashing)
				c.Kill(node)
			}()
			publish(node*each+each/2, (node+1)*each)
			<-crashing
			c.Revive(node)
		}
		for _, ack := range acks {
			if _, err := ack.Wait(patient(t)); err != nil {
				t.Fatal(err)
			}
		}
		_, late := join("late")
		for who, r := range map[string]*reader{"early": early, "late": late} {
			c.WaitFor("all artifacts for "+who, func() bool { return r.count() >= topics*3*each })
			for topic := range topics {
				got := r.got[fmt.Sprintf("t.%d", topic)]
				for i := range 3 * each {
					if got[i] != strconv.Itoa(i) {
						t.Fatalf("%s: topic %d has %s where %d belongs", who, topic, got[i], i)
					}
				}
			}
		}
	})
}

// All nodes are gone at once. On disk, all of it is there when they are back.
func TestHistoryOnDiskIsThereAfterAllNodesCrashed(t *testing.T) {
	root := t.TempDir()
	c := cluster.Start(t, 3, func(c *config.Config) {
		keepHistory(c)
		c.Storage.Dir = root + "/" + c.Node
	})
	pub := connect(t, c.Node(0), "pub")
	for i := range 50 {
		if seq, err := pub.Publish(patient(t), "t.x", &wire.Artifact{Payload: []byte(strconv.Itoa(i))}); err != nil || seq != wire.Sequence(i+1) {
			t.Fatalf("Publish = %d, %v", seq, err)
		}
	}
	for i := range 3 {
		c.Kill(i)
	}
	for i := range 3 {
		c.Run(i)
	}
	for i := range 3 {
		c.WaitReady(c.Node(i))
	}
	r := &reader{t: t, got: make(map[string][]string)}
	if _, err := connect(t, c.Node(1), "sub").Subscribe(patient(t), "t.x", r.handle, client.SinceAll()); err != nil {
		t.Fatal(err)
	}
	c.WaitFor("all artifacts", func() bool { return r.count() == 50 })
}

// said is what reading a range gave: payloads, and gaps.
func said(t *testing.T, c *client.Client, topic string, r client.Range) []string {
	t.Helper()
	var all []string
	for a, err := range c.History(patient(t), topic, r) {
		var gap *client.HistoryGapError
		switch {
		case errors.As(err, &gap):
			all = append(all, fmt.Sprintf("gap %d-%d", gap.From, gap.To))
		case err != nil:
			t.Fatalf("History(%s, %+v): %v", topic, r, err)
		default:
			if a.Topic != topic || a.From != "pub" || fmt.Sprint(a.Sequence) != string(a.Payload) {
				t.Fatalf("History(%s, %+v) = %s from %s on %s, sequence %d", topic, r, a.Payload, a.From, a.Topic, a.Sequence)
			}
			all = append(all, string(a.Payload))
		}
	}
	return all
}

func TestARangeOfHistoryIsReadFromEveryNode(t *testing.T) {
	storages(t, func(t *testing.T, settings func(*config.Config)) {
		t.Helper()
		c := cluster.Start(t, 3, func(cfg *config.Config) {
			settings(cfg)
			cfg.History.MaxArtifacts = 8
		})
		pub := connect(t, c.Node(0), "pub")
		for i := range 10 {
			if _, err := pub.Publish(patient(t), "t.x", &wire.Artifact{Payload: []byte(strconv.Itoa(i + 1))}); err != nil {
				t.Fatal(err)
			}
		}
		for node := range 3 {
			reader := connect(t, c.Node(node), fmt.Sprintf("reader-%d", node))
			for name, test := range map[string]struct {
				part client.Range
				want []string
			}{
				"all":                  {client.Range{}, []string{"3", "4", "5", "6", "7", "8", "9", "10"}},
				"from":                 {client.Range{From: 9}, []string{"9", "10"}},
				"to":                   {client.Range{To: 4}, []string{"3", "4"}},
				"from and to":          {client.Range{From: 5, To: 6}, []string{"5", "6"}},
				"what has gone":        {client.Range{From: 1, To: 2}, []string{"gap 1-2"}},
				"half of it has gone":  {client.Range{From: 2, To: 3}, []string{"gap 2-2", "3"}},
				"what will be":         {client.Range{From: 20, To: 30}, nil},
				"the last two":         {client.Range{Last: 2}, []string{"9", "10"}},
				"the last ones":        {client.Range{Last: 50, To: 3}, []string{"3"}},
				"the last two from 10": {client.Range{Last: 2, From: 10}, []string{"10"}},
				"an age":               {client.Range{Age: time.Hour, From: 10}, []string{"10"}},
				"nothing so young":     {client.Range{Age: time.Nanosecond}, nil},
			} {
				if got := said(t, reader, "t.x", test.part); !slices.Equal(got, test.want) {
					t.Errorf("node %d, %s: got %v, want %v", node, name, got, test.want)
				}
			}
			if got := said(t, reader, "t.nothing", client.Range{}); got != nil {
				t.Errorf("node %d: a topic that nothing was published to holds %v", node, got)
			}
		}
	})
}

// Pages follow each other without gap or repeat, while the node that gives them
// crashes, and a reader may stop in the middle.
func TestReadingARangeOutlivesTheNode(t *testing.T) {
	const artifacts, size = 400, 10_000 // many pages
	c := cluster.Start(t, 3, keepHistory)
	addrs := c.Node(0).Client() + "," + c.Node(1).Client() + "," + c.Node(2).Client()
	reader, err := client.Connect(patient(t), addrs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = reader.Close() })
	pub := connect(t, c.Node(1), "pub")
	var last client.Ack
	for range artifacts {
		if last, err = pub.PublishAsync(patient(t), "t.x", &wire.Artifact{Payload: make([]byte, size)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := last.Wait(patient(t)); err != nil {
		t.Fatal(err)
	}
	next := wire.Sequence(1)
	for a, err := range reader.History(patient(t), "t.x", client.Range{}) {
		if err != nil {
			t.Fatal(err)
		}
		if a.Sequence != next || len(a.Payload) != size {
			t.Fatalf("got sequence %d with %d bytes, want %d", a.Sequence, len(a.Payload), next)
		}
		if next++; a.Sequence == artifacts/4 {
			c.Kill(0)
		}
	}
	if next != artifacts+1 {
		t.Errorf("read up to %d, want %d", next-1, artifacts)
	}
	for a, err := range reader.History(patient(t), "t.x", client.Range{From: 7}) {
		if err != nil || a.Sequence != 7 {
			t.Errorf("got %v, %v", a, err)
		}
		break
	}
}

func TestATopicWithoutHistoryHasNoneToRead(t *testing.T) {
	c := cluster.Start(t, 1, nil)
	for _, err := range connect(t, c.Node(0), "reader").History(patient(t), "live", client.Range{}) {
		var coded *client.Error
		if !errors.As(err, &coded) || coded.Code != wire.CodeInvalidRequest {
			t.Errorf("History of a live topic: %v", err)
		}
	}
}
