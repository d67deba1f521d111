package cluster_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"

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
