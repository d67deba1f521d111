package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

// switchboardConn speaks the protocol of docs/reference/protocol.md.
type switchboardConn struct {
	*socket
	id   string
	ids  wire.ID
	ref  uint32
	subs uint32

	run    wire.Run
	next   []byte // an artifact behind another one of the same payload,
	nextOf *byte  // which starts here
}

const askTime = 60_000 // milliseconds that an answer may take

func dialSwitchboard(ctx context.Context, addr, id string, h handler) (*switchboardConn, error) {
	s, err := dialSocket(ctx, addr)
	if err != nil {
		return nil, err
	}
	return greetSwitchboard(ctx, s, id, "", h)
}

// greetSwitchboard begins to speak on a connection; token may be empty.
func greetSwitchboard(ctx context.Context, s *socket, id, token string, h handler) (*switchboardConn, error) {
	c := &switchboardConn{socket: s, id: id, ids: wire.ID{1}}
	go s.read(h, func(b []byte) (int, error) { return c.take(b, h) })
	c.out = wire.AppendControl(c.out, wire.Header{Kind: wire.KindHello}, "", wire.Hello{MinVersion: wire.Version, MaxVersion: wire.Version, ID: id, Name: "bench", Token: token})
	if err := c.ask(ctx); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// take handles the whole frames in b.
func (c *switchboardConn) take(b []byte, h handler) (int, error) {
	used := 0
	for len(b)-used >= wire.HeaderSize {
		rest := b[used:]
		size := 4 + int(rest[0])<<24 + int(rest[1])<<16 + int(rest[2])<<8 + int(rest[3])
		if len(rest) < size {
			return used, nil
		}
		f, err := wire.ParseFrame(rest[:size])
		if err != nil {
			return used, err
		}
		if err := c.handle(f, h); err != nil {
			return used, err
		}
		used += size
	}
	return used, nil
}

func (c *switchboardConn) handle(f wire.Frame, h handler) error {
	switch f.Kind() {
	case wire.KindPublish, wire.KindSend, wire.KindReply:
		m := message{ref: f.Ref()}
		if f.Flags()&wire.FlagRequest != 0 {
			m.reply = f.From()
		}
		var a wire.Artifact
		for r := wire.NewRunReader(f.Body()); ; {
			ok, err := r.Next(&a)
			if err != nil {
				return err
			}
			if !ok {
				return nil
			}
			m.payload = a.Payload
			h.message(m)
		}
	case wire.KindPing:
		_, err := c.Write(wire.AppendFrame(nil, wire.Header{Kind: wire.KindPong, Ref: f.Ref()}, "", "", nil))
		return err
	case wire.KindAck:
		if f.Ref() == c.subs && c.subs != 0 {
			c.said()
		}
	case wire.KindWelcome, wire.KindPong:
		c.said()
	case wire.KindError, wire.KindGoodbye, wire.KindLost:
		return fmt.Errorf("switchboard: kind %d: %w", f.Kind(), wire.ParseFault(f.Body()).Err())
	default: // settings, gaps
	}
	return nil
}

func (c *switchboardConn) subscribe(ctx context.Context, topic string) error {
	return c.subscribeSince(ctx, topic, wire.SinceNew)
}

func (c *switchboardConn) subscribeSince(ctx context.Context, topic string, since wire.Since) error {
	c.subs = max(c.subs+1, 1<<31) // never the ref of a sent frame
	c.out = wire.AppendControl(c.out, wire.Header{Kind: wire.KindSubscribe, Ref: c.subs}, topic, wire.Subscription{Since: since})
	return c.ask(ctx)
}

func (c *switchboardConn) listen(context.Context) error { return nil }

func (c *switchboardConn) publish(topic string, payload []byte, n int) {
	c.frames(wire.Header{Kind: wire.KindPublish}, topic, payload, n)
}

func (c *switchboardConn) send(id string, payload []byte, n int) {
	c.frames(wire.Header{Kind: wire.KindSend, Flags: wire.FlagAck}, id, payload, n)
}

// frames queues n artifacts as a client that publishes a lot does: packed into
// frames of up to wire.RunSize.
func (c *switchboardConn) frames(h wire.Header, target string, payload []byte, n int) {
	for n > 0 {
		a := wire.Artifact{ID: c.ids, Time: time.Now(), Payload: payload}
		c.run.Reset()
		_ = c.run.Append(&a, len(payload)) // can't be over its own size
		first := c.run.Body()
		if len(c.next) == 0 || &payload[0] != c.nextOf { // how all that follow are encoded
			var two wire.Run
			_ = two.Append(&a, len(payload)) // as above
			a.ID = a.ID.Next()
			_ = two.Append(&a, len(payload)) // as above
			c.next, c.nextOf = two.Body()[len(first):], &payload[0]
		}
		k := min(n, 1+max(0, wire.RunSize-len(first))/len(c.next))
		c.ref++
		h.Ref, h.Count = c.ref, uint16(k)
		at := len(c.out)
		c.out = wire.AppendFrame(c.out, h, target, c.id, first)
		for range k - 1 {
			c.out = append(c.out, c.next...)
		}
		binary.BigEndian.PutUint32(c.out[at:], uint32(len(c.out)-at-4))
		binary.BigEndian.PutUint64(c.ids[8:], binary.BigEndian.Uint64(c.ids[8:])+uint64(k))
		n -= k
	}
}

// one queues a frame of one artifact.
func (c *switchboardConn) one(h wire.Header, target string, payload []byte) {
	var run wire.Run
	_ = run.Append(&wire.Artifact{ID: c.ids, Time: time.Now(), Payload: payload}, len(payload)) // can't be over its own size
	c.ids = c.ids.Next()
	h.Count = 1
	c.out = wire.AppendFrame(c.out, h, target, c.id, run.Body())
}

func (c *switchboardConn) request(id string, payload []byte) {
	c.ref++
	c.one(wire.Header{Kind: wire.KindSend, Flags: wire.FlagRequest, Sequence: askTime, Ref: c.ref}, id, payload)
}

func (c *switchboardConn) reply(to message, payload []byte) {
	c.one(wire.Header{Kind: wire.KindReply, Ref: to.ref}, string(to.reply), payload)
}

func (c *switchboardConn) sync(ctx context.Context) error {
	c.out = wire.AppendFrame(c.out, wire.Header{Kind: wire.KindPing}, "", "", nil)
	return c.ask(ctx)
}
