package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/hubnode/placement"
	"github.com/switchboardhub/switchboard/wire"
)

const (
	artifactBytes = 128
	largeBytes    = 16 << 10 // of the artifacts that fill a disk
	fillTopics    = 16
)

// keeping lets the topics below kept keep as much as is published, on disk or in memory.
func (b *bench) keeping(disk bool) func(*config.Config) {
	return func(cfg *config.Config) {
		artifacts, bytes := 1_000_000_000, config.Bytes(1<<40)
		cfg.Topics = []config.Topic{{Pattern: "kept.>", History: &config.TopicHistory{MaxArtifacts: &artifacts, MaxBytes: &bytes}}}
		if disk {
			cfg.Storage.Dir = filepath.Join(b.dir, "history", cfg.Node)
		}
	}
}

// forget removes what the nodes of a step have kept.
func (b *bench) forget() { _ = os.RemoveAll(filepath.Join(b.dir, "history")) } // the next step fails over it

// metrics returns what a node says of itself.
func (n *node) metrics(ctx context.Context) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.http+"/metrics", http.NoBody)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(resp.Body)
	return string(text), errors.Join(err, resp.Body.Close())
}

// topicLedBy returns a topic whose shard a node leads.
func topicLedBy(ctx context.Context, n *node) (topic string, err error) {
	err = await(ctx, n.name+" to lead a shard", func() bool {
		var text string
		if text, err = n.metrics(ctx); err != nil {
			return true
		}
		for i := range 1000 {
			topic = fmt.Sprintf("kept.%d", i)
			led := fmt.Sprintf("raft_leader{shard=%q} 1\n", fmt.Sprint(placement.ShardOf(topic, n.cfg.Storage.Shards)))
			if strings.Contains(text, led) {
				return true
			}
		}
		return false
	})
	return topic, err
}

// publisher publishes as fast as it can. What it has published is acknowledged, but
// for the few that may be in flight.
type publisher struct {
	published atomic.Int64
	stop      chan struct{}
	done      sync.WaitGroup
	err       error // once done
}

func publish(ctx context.Context, c *client.Client, topic string) *publisher {
	p := &publisher{stop: make(chan struct{})}
	p.done.Go(func() {
		payload := make([]byte, artifactBytes)
		var last client.Ack
		for {
			select {
			case <-p.stop:
				var at wire.Sequence
				if at, p.err = last.Wait(ctx); p.err == nil && int64(at) != p.published.Load() {
					p.err = fmt.Errorf("the last of %d artifacts is at %d", p.published.Load(), at)
				}
				return
			default:
			}
			if last, p.err = c.PublishAsync(ctx, topic, &wire.Artifact{Payload: payload}); p.err != nil {
				return
			}
			p.published.Add(1)
		}
	})
	return p
}

// rate is how many were published in a second until something returned.
func (p *publisher) rate(until func() error) (perSecond float64, took time.Duration, err error) {
	before, begun := p.published.Load(), time.Now()
	err = until()
	took = time.Since(begun)
	return float64(p.published.Load()-before) / took.Seconds(), took, err
}

func (p *publisher) end() error {
	close(p.stop)
	p.done.Wait()
	return p.err
}

// replica measures publishing to a topic of three replicas while one of them, which
// does not lead it, is gone, and while it comes back.
func replica(ctx context.Context, b *bench) error {
	h, err := b.start(ctx, 3, b.keeping(true))
	if err != nil {
		return err
	}
	defer b.forget()
	defer h.stop()
	topic, err := topicLedBy(ctx, h.nodes[0])
	if err != nil {
		return err
	}
	c, err := client.Connect(ctx, h.nodes[0].client)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // the nodes are gone before
	span := func() error { return pause(ctx, b.span/3) }
	p := publish(ctx, c, topic)
	var before, down, back, after float64
	var took time.Duration
	err = func() (err error) {
		if _, _, err = p.rate(span); err != nil { // warm
			return err
		}
		if before, _, err = p.rate(span); err != nil {
			return err
		}
		h.nodes[2].kill()
		if down, _, err = p.rate(span); err != nil {
			return err
		}
		if err = h.restart(h.nodes[2]); err != nil {
			return err
		}
		if back, took, err = p.rate(func() error { return h.nodes[2].awaitReady(ctx) }); err != nil {
			return err
		}
		after, _, err = p.rate(span)
		return err
	}()
	if err := errors.Join(err, p.end()); err != nil {
		return err
	}
	undisturbed := (before + after) / 2
	b.report("replica", "publish to three replicas on disk, before and after", undisturbed, fmt.Sprintf("artifacts/s (%.0f, %.0f)", before, after), "")
	b.report("replica", "… while one of them is down", down/undisturbed, "of that", "≥ 0.8")
	b.report("replica", "… while it catches up", back/undisturbed, "of that", "≥ 0.8")
	b.report("replica", "… which takes it", took.Seconds(), "s", "")
	return nil
}

// restart measures how soon a node is ready again that has much history on disk, after
// its process was killed.
func restart(ctx context.Context, b *bench) error {
	h, err := b.start(ctx, b.replicas, b.keeping(true))
	if err != nil {
		return err
	}
	defer b.forget()
	defer h.stop()
	c, err := client.Connect(ctx, h.addresses())
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // the nodes are gone before
	payload := make([]byte, largeBytes)
	for i := range int(b.history / largeBytes) {
		if _, err := c.PublishAsync(ctx, fmt.Sprintf("kept.%d", i%fillTopics), &wire.Artifact{Payload: payload}); err != nil {
			return err
		}
	}
	if err := c.Flush(ctx); err != nil {
		return err
	}
	last := h.nodes[len(h.nodes)-1]
	last.kill()
	<-last.ended
	begun := time.Now()
	if err := h.restart(last); err != nil {
		return err
	}
	if err := last.awaitReady(ctx); err != nil {
		return err
	}
	what := fmt.Sprintf("a killed node of %d with %.3g GiB of history is ready after", b.replicas, float64(b.history)/(1<<30))
	b.report("restart", what, time.Since(begun).Seconds(), "s", "≤ 10")
	return nil
}

// memory measures what a process takes for a history in memory.
func memory(ctx context.Context, b *bench) error {
	h, err := b.start(ctx, 1, b.keeping(false))
	if err != nil {
		return err
	}
	defer h.stop()
	c, err := client.Connect(ctx, h.addresses())
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // the node is gone before
	fill := func(topic string, n int) error {
		payload := make([]byte, artifactBytes)
		for range n {
			if _, err := c.PublishAsync(ctx, topic, &wire.Artifact{Payload: payload}); err != nil {
				return err
			}
		}
		return c.Flush(ctx)
	}
	if err := fill("live", b.artifacts); err != nil { // what publishing takes by itself
		return err
	}
	before, err := h.cost()
	if err != nil {
		return err
	}
	if err := fill("kept.all", b.artifacts); err != nil {
		return err
	}
	text, err := h.nodes[0].metrics(ctx)
	if err != nil {
		return err
	}
	kept, err := metric(text, "history_bytes")
	if err != nil {
		return err
	}
	report := func(when string) error {
		after, err := h.cost()
		if err == nil {
			b.report("memory", fmt.Sprintf("%d artifacts of %d B in memory: resident, %s", b.artifacts, artifactBytes, when), float64(after.memory-before.memory)/kept, "of their bytes on the wire", "≤ 1.3")
		}
		return err
	}
	if err := report("at once"); err != nil {
		return err
	}
	if err := pause(ctx, b.span); err != nil {
		return err
	}
	return report("later")
}

// metric returns the value of a metric without labels.
func metric(text, name string) (value float64, err error) {
	for line := range strings.Lines(text) {
		if what, v, ok := strings.Cut(line, " "); ok && !strings.HasPrefix(line, "#") && strings.HasSuffix(what, name) {
			_, err = fmt.Sscan(v, &value)
			return value, err
		}
	}
	return 0, fmt.Errorf("there is no metric %s", name)
}

// shards measures what the replicas of three nodes do when nothing is published.
func shards(ctx context.Context, b *bench) error {
	h, err := b.start(ctx, 3, func(cfg *config.Config) {
		quiet(cfg)
		b.keeping(true)(cfg)
	})
	if err != nil {
		return err
	}
	defer b.forget()
	defer h.stop()
	return b.idleCost(ctx, h, "shards", fmt.Sprintf("an idle hub of %d nodes that keeps history in %d shards: ", len(h.nodes), h.nodes[0].cfg.Storage.Shards), "")
}
