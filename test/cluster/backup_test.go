package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/test/cluster"
	"github.com/switchboardhub/switchboard/wire"
)

// kept returns everything that a hub keeps of some topics.
func kept(t *testing.T, cl *client.Client, topics ...string) (all []wire.Artifact) {
	t.Helper()
	for _, topic := range topics {
		for a, err := range cl.History(patient(t), topic, client.Range{}) {
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, *a)
		}
	}
	return all
}

// A hub is restored from a backup of another one, that went on working meanwhile:
// sequences, ids, times and senders are the same, and a durable subscription goes on.
func TestBackupAndRestore(t *testing.T) {
	from := cluster.Start(t, 3, keepHistory)
	pub := join(t, allNodes(from), "pub")
	topics := []string{"a", "b.c", "jobs", "purged"}
	for _, topic := range topics {
		publish(t, pub, topic, 300)
	}
	publish(t, pub, "a", 900) // its first ones have gone
	if _, err := pub.Publish(patient(t), "b.c", &wire.Artifact{ContentType: "text/plain", Attributes: map[string]string{"k": "v"}, Payload: bytes.Repeat([]byte("x"), 1<<20-100)}); err != nil {
		t.Fatal(err)
	}
	if _, err := pub.Request(patient(t), "$hub.topics.purge", &wire.Artifact{Payload: []byte(`{"topic":"purged"}`)}); err != nil {
		t.Fatal(err)
	}
	done := newTally()
	sub, err := pub.Subscribe(patient(t), "jobs", done.handle, client.Durable("w"), client.MaxDeliveries(3, "a"))
	if err != nil {
		t.Fatal(err)
	}
	from.WaitFor("all jobs", func() bool { return done.count() == 300 })
	if err := sub.Unsubscribe(patient(t)); err != nil {
		t.Fatal(err)
	}
	want := kept(t, pub, topics...)
	var file bytes.Buffer
	made, err := pub.Backup(patient(t), &file, nil)
	if err != nil || made.Topics != 4 || int(made.Artifacts) != len(want) || made.Durables != 1 {
		t.Fatalf("Backup = %+v, %v; want 4 topics, %d artifacts, 1 durable", made, err, len(want))
	}

	to := cluster.Start(t, 3, keepHistory)
	cl := join(t, allNodes(to), "cl")
	for name, damaged := range map[string][]byte{
		"cut off":     file.Bytes()[:file.Len()-1],
		"empty":       nil,
		"flipped bit": append(append(append([]byte(nil), file.Bytes()[:9999]...), file.Bytes()[9999]^1), file.Bytes()[10000:]...),
	} {
		if _, err := cl.Restore(patient(t), bytes.NewReader(damaged), nil); !errors.Is(err, client.ErrBadBackup) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	told := make(map[string]uint64)
	got, err := cl.Restore(patient(t), bytes.NewReader(file.Bytes()), func(topic string, n uint64) { told[topic] = n })
	if err != nil || got != made || told["a"] != 1000 || len(told) != 4 {
		t.Fatalf("Restore = %+v, %v, %v", got, err, told)
	}
	if have := kept(t, cl, topics...); !reflect.DeepEqual(have, want) {
		t.Errorf("restored %d artifacts, want %d: %v", len(have), len(want), difference(have, want))
	}
	for topic, next := range map[string]wire.Sequence{"a": 1201, "b.c": 302, "purged": 301} {
		if seq, err := cl.Publish(patient(t), topic, &wire.Artifact{}); seq != next || err != nil {
			t.Errorf("the next artifact of %s is %d, %v, want %d", topic, seq, err, next)
		}
	}
	if d := durables(t, cl, "jobs"); len(d) != 1 || d[0].Position != 301 || d[0].Policy.DeadLetter != "a" {
		t.Errorf("durable subscriptions: %+v", d)
	}
	want = kept(t, cl, topics...)
	if again, err := cl.Restore(patient(t), bytes.NewReader(file.Bytes()), nil); err != nil || again != made {
		t.Errorf("restored over itself: %+v, %v", again, err)
	}
	if have := kept(t, cl, topics...); !reflect.DeepEqual(have, want) {
		t.Errorf("restored over itself there are %d artifacts, want %d: %v", len(have), len(want), difference(have, want))
	}
}

// A later backup goes on where an earlier one ended, also in the middle of a frame and
// where the hub has less than it had.
// A backup of what can be listed while nobody leads some topics would be one without them.
func TestBackupWantsAllTopics(t *testing.T) {
	root := t.TempDir()
	c := cluster.Start(t, 3, func(c *config.Config) {
		keepHistory(c)
		c.Storage.Dir = root + "/" + c.Node
	})
	cl := join(t, c.Node(0).Client(), "cl")
	topics := []string{"a", "b", "c", "d", "e", "f"}
	for _, topic := range topics {
		publish(t, cl, topic, 3)
	}
	c.Kill(1)
	c.Kill(2)
	soon, cancel := context.WithTimeout(patient(t), 3*time.Second)
	defer cancel()
	var file bytes.Buffer
	if made, err := cl.Backup(soon, &file, nil); err == nil || !strings.Contains(err.Error(), "can be listed") {
		t.Errorf("Backup of a hub without a majority = %+v, %v", made, err)
	}
	for _, list := range []string{"$hub.topics", "$hub.durables"} {
		answer, err := cl.Request(patient(t), list, &wire.Artifact{})
		if err != nil || !strings.Contains(string(answer.Payload), `"incomplete":true`) {
			t.Errorf("%s = %s, %v", list, answer.Payload, err)
		}
	}
	c.Revive(1)
	file.Reset()
	made, err := cl.Backup(patient(t), &file, nil)
	if err != nil || made.Topics != len(topics) || made.Artifacts != uint64(3*len(topics)) {
		t.Errorf("Backup once there is a majority = %+v, %v", made, err)
	}
}

func TestRestoreTakesWhatIsMissing(t *testing.T) {
	from, to := cluster.Start(t, 1, keepHistory), cluster.Start(t, 1, keepHistory)
	pub, cl := join(t, from.Node(0).Client(), "pub"), join(t, to.Node(0).Client(), "cl")
	back := func() *bytes.Reader {
		var file bytes.Buffer
		if _, err := pub.Backup(patient(t), &file, nil); err != nil {
			t.Fatal(err)
		}
		return bytes.NewReader(file.Bytes())
	}
	publish(t, pub, "a", 500)
	if _, err := cl.Restore(patient(t), back(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := cl.Request(patient(t), "$hub.topics.purge", &wire.Artifact{Payload: []byte(`{"topic":"a","before":321}`)}); err != nil {
		t.Fatal(err)
	}
	publish(t, pub, "a", 300)
	publish(t, pub, "b", 10)
	if _, err := cl.Restore(patient(t), back(), nil); err != nil {
		t.Fatal(err)
	}
	want := kept(t, pub, "a", "b")
	if have := kept(t, cl, "a", "b"); !reflect.DeepEqual(have, want[320:]) {
		t.Errorf("there are %d artifacts, want %d: %v", len(have), len(want)-320, difference(have, want[320:]))
	}
}

// A backup of something else changes nothing, and the error says where it differs.
func TestRestoreRefusesWhatDiffers(t *testing.T) {
	from, to := cluster.Start(t, 1, keepHistory), cluster.Start(t, 3, keepHistory)
	pub, cl := join(t, from.Node(0).Client(), "pub"), join(t, allNodes(to), "pub")
	for _, topic := range []string{"a", "b"} {
		publish(t, pub, topic, 100)
	}
	var file bytes.Buffer
	if _, err := pub.Backup(patient(t), &file, nil); err != nil {
		t.Fatal(err)
	}
	publish(t, cl, "b", 1)
	want := kept(t, cl, "b")
	var differs *client.ArtifactDiffersError
	_, err := cl.Restore(patient(t), bytes.NewReader(file.Bytes()), nil)
	if !errors.As(err, &differs) || differs.Topic != "b" || differs.Sequence != 1 || !strings.Contains(err.Error(), "nothing was restored") {
		t.Errorf("got %v", err)
	}
	if have := kept(t, cl, "a", "b"); !reflect.DeepEqual(have, want) {
		t.Errorf("there are %d artifacts, want those that were there: %v", len(have), difference(have, want))
	}
}

// A hub that takes smaller artifacts than the backup has gets none of it, and the error
// says what to change.
func TestRestoreSaysWhatIsTooLarge(t *testing.T) {
	from := cluster.Start(t, 1, keepHistory)
	pub := join(t, from.Node(0).Client(), "pub")
	publish(t, pub, "a", 10)
	for _, size := range []int{30 << 10, 1 << 20} { // a frame of the first one is not too large
		if _, err := pub.Publish(patient(t), "b", &wire.Artifact{Payload: make([]byte, size-len("text/plain")-1), ContentType: "text/plain"}); err != nil {
			t.Fatal(err)
		}
		var file bytes.Buffer
		if _, err := pub.Backup(patient(t), &file, nil); err != nil {
			t.Fatal(err)
		}
		to := cluster.Start(t, 1, func(c *config.Config) {
			keepHistory(c)
			c.Limits.MaxArtifactSize = 16 << 10
		})
		lost := make(chan error, 10)
		cl := connect(t, to.Node(0), "cl", client.OnDisconnect(func(err error) { lost <- err }))
		_, err := cl.Restore(patient(t), bytes.NewReader(file.Bytes()), nil)
		var large *client.ArtifactTooLargeError
		if !errors.As(err, &large) || large.Size != size || large.Limit != 16<<10 {
			t.Errorf("got %v, want an ArtifactTooLargeError of %d bytes", err, size)
		}
		for _, want := range []string{"nothing was restored", `"b"`, "limits.maxArtifactSize"} {
			if err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q in it", err, want)
			}
		}
		if have := kept(t, cl, "a", "b"); len(have) > 0 {
			t.Errorf("%d artifacts were restored", len(have))
		}
		select {
		case err := <-lost:
			t.Errorf("the connection was lost: %v", err)
		default:
		}
	}
}

// A restore whose client is killed, and with it a node, goes on when it is begun again:
// everything is there once, the positions of durable subscriptions too.
func TestRestoreGoesOnAfterAnInterruption(t *testing.T) {
	storages(t, func(t *testing.T, settings func(*config.Config)) {
		t.Helper()
		from := cluster.Start(t, 1, settings)
		pub := join(t, from.Node(0).Client(), "pub")
		var topics []string
		for i := range 40 {
			topics = append(topics, fmt.Sprintf("t.%d", i))
			publish(t, pub, topics[i], 300)
		}
		done := newTally()
		for _, topic := range topics[:20] {
			if _, err := pub.Subscribe(patient(t), topic, done.handle, client.Durable("w"), client.Shared()); err != nil {
				t.Fatal(err)
			}
		}
		settled := func(all []wire.DurableInfo) (n int) {
			for _, d := range all {
				if d.Position == 301 && d.Name == "w" && d.Policy.Shared {
					n++
				}
			}
			return n
		}
		from.WaitFor("all work settled", func() bool { return settled(durables(t, pub, "")) == 20 })
		want := kept(t, pub, topics...)
		var file bytes.Buffer
		made, err := pub.Backup(patient(t), &file, nil)
		if err != nil {
			t.Fatal(err)
		}

		to := cluster.Start(t, 3, func(c *config.Config) {
			settings(c)
			if c.Storage.Dir != "" {
				c.Storage.Dir += "-restored"
			}
		})
		first := join(t, allNodes(to), "first")
		ctx, interrupt := context.WithCancel(patient(t))
		n := 0
		_, err = first.Restore(ctx, bytes.NewReader(file.Bytes()), func(string, uint64) {
			if n++; n == 5 {
				to.Kill(0)
				interrupt()
			}
		})
		if !errors.Is(err, context.Canceled) || n >= len(topics) {
			t.Fatalf("interrupted after %d topics: %v", n, err)
		}
		second := join(t, to.Node(1).Client()+","+to.Node(2).Client(), "second")
		got, err := second.Restore(patient(t), bytes.NewReader(file.Bytes()), nil)
		if err != nil || got != made {
			t.Fatalf("the second time: %+v, %v; want %+v", got, err, made)
		}
		if have := kept(t, second, topics...); !reflect.DeepEqual(have, want) {
			t.Errorf("restored %d artifacts, want %d: %v", len(have), len(want), difference(have, want))
		}
		if all := durables(t, second, ""); len(all) != 20 || settled(all) != 20 {
			t.Errorf("durable subscriptions: %+v", all)
		}
		to.Revive(0)
	})
}

// A restore goes on when the node that it talks to is killed, and stores nothing twice.
func TestRestoreSurvivesACrash(t *testing.T) {
	from := cluster.Start(t, 1, keepHistory)
	pub := join(t, from.Node(0).Client(), "pub")
	var topics []string
	for i := range 40 {
		topics = append(topics, fmt.Sprintf("t.%d", i))
		publish(t, pub, topics[i], 500)
	}
	want := kept(t, pub, topics...)
	var file bytes.Buffer
	if _, err := pub.Backup(patient(t), &file, nil); err != nil {
		t.Fatal(err)
	}
	to := cluster.Start(t, 3, keepHistory)
	cl := join(t, allNodes(to), "cl")
	n := 0
	_, err := cl.Restore(patient(t), bytes.NewReader(file.Bytes()), func(string, uint64) {
		if n++; n == 5 {
			to.Kill(0)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if have := kept(t, cl, topics...); !reflect.DeepEqual(have, want) {
		t.Errorf("restored %d artifacts, want %d: %v", len(have), len(want), difference(have, want))
	}
}

// difference says where two lists begin to differ.
func difference(have, want []wire.Artifact) string {
	for i := range min(len(have), len(want)) {
		if !reflect.DeepEqual(have[i], want[i]) {
			h, w := have[i], want[i]
			h.Payload, w.Payload = h.Payload[:min(len(h.Payload), 20)], w.Payload[:min(len(w.Payload), 20)]
			return strings.TrimSpace(fmt.Sprintf("the %dth is %+v, want %+v", i+1, h, w))
		}
	}
	return "one is longer"
}
