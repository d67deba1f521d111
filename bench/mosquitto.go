package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"

	"github.com/switchboardhub/switchboard/bench/port"
)

// mosquitto runs a mosquitto, from Debian's package.
type mosquitto struct {
	binary, dir string
	fleet
}

func (s *mosquitto) name() string { return "mosquitto" }

func (s *mosquitto) start(ctx context.Context, n int) error {
	if n > 1 {
		return errCannot
	}
	addr, number, err := port.Free()
	if err != nil {
		return err
	}
	path := filepath.Join(s.dir, "mosquitto-"+number+".conf")
	text := "listener " + number + " 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest none\nmax_queued_messages 0\nset_tcp_nodelay true\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	if err := s.add(addr, s.binary, "-c", path); err != nil {
		return err
	}
	return answering(ctx, s, n)
}

func (s *mosquitto) connect(ctx context.Context, server int, id string, h handler) (conn, error) {
	return opened(dialMQTT(ctx, s.clients[server], id, h))
}

// The packets of MQTT 3.1.1 that are used, with the flags they have to have.
const (
	mqttConnect   = 0x10
	mqttConnAck   = 0x20
	mqttPublish   = 0x30 // of quality of service 0
	mqttSubscribe = 0x82
	mqttSubAck    = 0x90
	mqttPing      = 0xc0
	mqttPong      = 0xd0
)

// mqttConn speaks MQTT 3.1.1.
type mqttConn struct {
	*socket
	id string
}

func dialMQTT(ctx context.Context, addr, id string, h handler) (*mqttConn, error) {
	s, err := dialSocket(ctx, addr)
	if err != nil {
		return nil, err
	}
	c := &mqttConn{socket: s, id: id}
	go s.read(h, func(b []byte) (int, error) { return c.take(b, h) })
	const cleanSession = 2
	head := append(mqttText(nil, "MQTT"), 4, cleanSession, 0, 0) // version 3.1.1, no keep-alive
	c.packet(mqttConnect, mqttText(head, id))
	if err := c.ask(ctx); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func mqttText(b []byte, text string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(text)))
	return append(b, text...)
}

func (c *mqttConn) packet(kind byte, parts ...[]byte) {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	c.out = binary.AppendUvarint(append(c.out, kind), uint64(size))
	for _, p := range parts {
		c.out = append(c.out, p...)
	}
}

// take handles the whole packets in b.
func (c *mqttConn) take(b []byte, h handler) (int, error) {
	used := 0
	for len(b)-used >= 2 {
		rest := b[used:]
		size, n := binary.Uvarint(rest[1:])
		if n <= 0 || uint64(len(rest)) < uint64(1+n)+size {
			return used, nil
		}
		body := rest[1+n : 1+n+int(size)]
		switch rest[0] {
		case mqttPublish:
			topic := int(binary.BigEndian.Uint16(body))
			h.message(message{payload: body[2+topic:], reply: answers})
		case mqttConnAck:
			if body[1] != 0 {
				return used, fmt.Errorf("mqtt: refused with code %d", body[1])
			}
			c.said()
		case mqttSubAck, mqttPong:
			c.said()
		}
		used += 1 + n + int(size)
	}
	return used, nil
}

func (c *mqttConn) subscribe(ctx context.Context, topic string) error {
	const number, quality = 1, 0
	c.packet(mqttSubscribe, []byte{0, number}, append(mqttText(nil, topic), quality))
	return c.ask(ctx)
}

func (c *mqttConn) listen(ctx context.Context) error { return c.subscribe(ctx, "client."+c.id) }

func (c *mqttConn) publish(topic string, payload []byte, n int) {
	start := len(c.out)
	c.packet(mqttPublish, mqttText(nil, topic), payload)
	one := c.out[start:]
	for range n - 1 {
		c.out = append(c.out, one...)
	}
}

func (c *mqttConn) send(id string, payload []byte, n int) { c.publish("client."+id, payload, n) }
func (c *mqttConn) request(id string, payload []byte)     { c.publish("client."+id, payload, 1) }
func (c *mqttConn) reply(to message, payload []byte)      { c.publish(string(to.reply), payload, 1) }

func (c *mqttConn) sync(ctx context.Context) error {
	c.packet(mqttPing)
	return c.ask(ctx)
}
