package client

import (
	"context"
	"io"
	"net"
	"sync/atomic"
	"testing"

	"github.com/switchboardhub/switchboard/wire"
)

// benchNode is a node on a real socket that says welcome, acknowledges the
// first publish of each topic as live, and then does what a benchmark wants.
func benchNode(b *testing.B, change func(*wire.Welcome), then func(net.Conn, *wire.Reader)) *Client {
	b.Helper()
	ln, err := new(net.ListenConfig).Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		r := wire.NewReader(conn, 1<<22)
		if _, err := r.Next(); err != nil {
			return
		}
		w := wire.Welcome{Version: 1, Node: "bench", MaxArtifact: 1 << 20, MaxFrame: wire.MaxFrame(1 << 20)}
		change(&w)
		_, _ = conn.Write(wire.AppendControl(nil, wire.Header{Kind: wire.KindWelcome}, "", w))
		then(conn, r)
	}()
	c, err := Connect(b.Context(), ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = c.Close()
		_ = ln.Close()
		<-served
	})
	return c
}

// BenchmarkPublishLive measures what one artifact costs a publisher.
func BenchmarkPublishLive(b *testing.B) { benchPublishLive(b, func(*wire.Welcome) {}, "live") }

// BenchmarkPublishLiveInSession is the same where the client may have to send it again.
func BenchmarkPublishLiveInSession(b *testing.B) { benchPublishLive(b, inSession, "live") }

// BenchmarkPublishLiveInTurns is the same where no artifacts share frames.
func BenchmarkPublishLiveInTurns(b *testing.B) { benchPublishLive(b, inSession, "live", "more") }

func benchPublishLive(b *testing.B, change func(*wire.Welcome), topics ...string) {
	b.Helper()
	c := benchNode(b, change, func(conn net.Conn, r *wire.Reader) {
		for {
			f, err := r.Next()
			if err != nil {
				return
			}
			h := wire.Header{Kind: wire.KindAck, Flags: wire.FlagLive, Ref: f.Ref()}
			switch {
			case f.Kind() == wire.KindGoodbye:
				return
			case f.Kind() == wire.KindPing:
				h = wire.Header{Kind: wire.KindPong, Ref: f.Ref()}
			case f.Flags()&wire.FlagAck == 0:
				continue
			}
			_, _ = conn.Write(wire.AppendControl(nil, h, "", nil))
		}
	})
	a := &wire.Artifact{Payload: make([]byte, 128)}
	for _, topic := range topics {
		if _, err := c.Publish(b.Context(), topic, a); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(len(a.Payload)))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := c.PublishAsync(b.Context(), topics[i%len(topics)], a); err != nil {
			b.Fatal(err)
		}
	}
	if err := c.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkDeliver measures what one artifact costs a subscriber, in frames of
// 100.
func BenchmarkDeliver(b *testing.B) {
	const perFrame = 100
	more := make(chan int)
	c := benchNode(b, func(*wire.Welcome) {}, func(conn net.Conn, r *wire.Reader) {
		sub, err := r.Next()
		if err != nil {
			return
		}
		ref := sub.Ref()
		_, _ = conn.Write(wire.AppendControl(nil, wire.Header{Kind: wire.KindAck, Ref: ref}, "", nil))
		var run wire.Run
		var ids wire.IDs
		for range perFrame {
			_ = run.Append(&wire.Artifact{ID: ids.Next(), Payload: make([]byte, 128)}, 1<<20)
		}
		f := wire.AppendFrame(nil, wire.Header{Kind: wire.KindPublish, Count: perFrame, Ref: ref}, "live", "p", run.Body())
		for n := range more {
			for range n {
				if _, err := conn.Write(f); err != nil {
					return
				}
			}
		}
		_, _ = io.Copy(io.Discard, conn)
	})
	var got, want atomic.Int64
	all := make(chan struct{}, 1)
	_, err := c.Subscribe(b.Context(), "live", func(context.Context, *wire.Artifact) error {
		if got.Add(1) == want.Load() {
			all <- struct{}{}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(128)
	b.ReportAllocs()
	frames := (b.N + perFrame - 1) / perFrame
	want.Store(int64(frames * perFrame))
	b.ResetTimer()
	more <- frames
	<-all
	b.StopTimer()
	close(more)
}
