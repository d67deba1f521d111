package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/switchboardhub/switchboard/bench/port"
)

// redisServer runs a redis-server, from Debian's package.
type redisServer struct {
	binary, dir string
	how         storage
	fleet
}

func (s *redisServer) storing(how storage) { s.how = how }

func (s *redisServer) name() string { return "redis" }

func (s *redisServer) start(ctx context.Context, n int) error {
	if n > 1 {
		return errCannot
	}
	addr, number, err := port.Free()
	if err != nil {
		return err
	}
	args := []string{"--bind", "127.0.0.1", "--port", number, "--save", "", "--maxclients", "20000"}
	if s.how.disk {
		dir, err := os.MkdirTemp(s.dir, "redis-")
		if err != nil {
			return err
		}
		args = append(args, "--appendonly", "yes", "--appendfsync", "everysec", "--dir", dir)
	}
	if err := s.add(addr, s.binary, args...); err != nil {
		return err
	}
	return answering(ctx, s, n)
}

func (s *redisServer) connect(ctx context.Context, server int, id string, h handler) (conn, error) {
	return opened(dialRedis(ctx, s.clients[server], id, h))
}

// streamPage is how many entries of a stream are asked for at once.
const streamPage = 10_000

func (s *redisServer) fill(ctx context.Context, topic string, payload []byte, n int) error {
	c, err := dialRedis(ctx, s.clients[0], "filler", nobody{})
	if err != nil {
		return err
	}
	defer c.close()
	for range n {
		c.command("XADD", topic, "*", "d", string(payload))
		if len(c.out) > largeBuffer {
			if err := c.write(); err != nil {
				return err
			}
		}
	}
	return c.sync(ctx)
}

func (s *redisServer) replay(ctx context.Context, topic string, h handler) (func(), error) {
	r := &streamReader{topic: topic, handler: h}
	c, err := dialRedis(ctx, s.clients[0], "reader", r)
	if err != nil {
		return nil, err
	}
	r.conn = c
	return c.close, r.next("-")
}

// streamReader asks for the next page of a stream when it has one.
type streamReader struct {
	handler
	conn  *redisConn
	topic string
	seen  int
	last  []byte
}

func (r *streamReader) next(from string) error {
	r.conn.command("XRANGE", r.topic, from, "+", "COUNT", strconv.Itoa(streamPage))
	return r.conn.write()
}

func (r *streamReader) message(m message) {
	r.last = append(r.last[:0], m.reply...)
	r.handler.message(m)
	if r.seen++; r.seen%streamPage == 0 {
		_ = r.next("(" + string(r.last)) // a connection that broke shows as messages missing
	}
}

// redisConn speaks RESP3.
type redisConn struct {
	*socket
	id string
}

func dialRedis(ctx context.Context, addr, id string, h handler) (*redisConn, error) {
	s, err := dialSocket(ctx, addr)
	if err != nil {
		return nil, err
	}
	c := &redisConn{socket: s, id: id}
	go s.read(h, func(b []byte) (int, error) { return c.take(b, h) })
	c.command("HELLO", "3")
	if err := c.sync(ctx); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *redisConn) command(words ...string) {
	c.out = fmt.Appendf(c.out, "*%d\r\n", len(words))
	for _, w := range words {
		c.out = strconv.AppendInt(append(c.out, '$'), int64(len(w)), 10)
		c.out = append(append(append(c.out, "\r\n"...), w...), "\r\n"...)
	}
}

// take handles the whole values in b. What was pushed to a channel is
// >3 "message" channel payload; an entry of a stream is *2 id *2 "d" payload.
func (c *redisConn) take(b []byte, h handler) (int, error) {
	used := 0
	for used < len(b) {
		kind, n, rest, ok := respHead(b[used:])
		if !ok {
			return used, nil
		}
		whole := len(b) - len(rest) // where rest starts
		switch kind {
		case '+':
			if bytes.HasPrefix(b[used:], []byte("+PONG")) {
				c.said()
			}
		case '-':
			return used, fmt.Errorf("redis: %s", b[used:whole])
		case '>':
			parts, after, ok := respTexts(rest, n)
			if !ok {
				return used, nil
			}
			if string(parts[0]) == "message" {
				h.message(message{payload: parts[2], reply: answers})
			}
			whole = len(b) - len(after)
		case '*':
			if len(rest) == 0 {
				return used, nil
			}
			if n == 2 && rest[0] == '$' { // else an array of entries, which follow
				id, after, ok := respTexts(rest, 1)
				if !ok {
					return used, nil
				}
				_, _, after, ok = respHead(after)
				if !ok {
					return used, nil
				}
				parts, after, ok := respTexts(after, 2)
				if !ok {
					return used, nil
				}
				h.message(message{payload: parts[1], reply: id[0]})
				whole = len(b) - len(after)
			}
		case '%', ':': // a map's elements follow; a number is all of it
		case '$':
			if len(rest) < n+2 {
				return used, nil
			}
			whole += n + 2
		default:
			return used, errors.New("redis: unknown type " + strconv.Quote(string(kind)))
		}
		used = whole
	}
	return used, nil
}

// respHead reads a value's first line: its type and its number, when it has
// one.
func respHead(b []byte) (kind byte, n int, rest []byte, ok bool) {
	line := bytes.IndexByte(b, '\n')
	if line < 2 {
		return 0, 0, nil, false
	}
	for _, d := range b[1 : line-1] {
		if d < '0' || d > '9' {
			break
		}
		n = n*10 + int(d-'0')
	}
	return b[0], n, b[line+1:], true
}

// respTexts reads n texts, at most three; a number among them is skipped.
func respTexts(b []byte, n int) (parts [3][]byte, rest []byte, ok bool) {
	for i := range n {
		kind, size, after, ok := respHead(b)
		if !ok {
			return parts, nil, false
		}
		if kind == ':' {
			b = after
			continue
		}
		if len(after) < size+2 {
			return parts, nil, false
		}
		parts[i], b = after[:size], after[size+2:]
	}
	return parts, b, true
}

// answers is where answers are published where a message does not say it.
var answers = []byte("client.asker")

func (c *redisConn) subscribe(ctx context.Context, topic string) error {
	c.command("SUBSCRIBE", topic)
	return c.sync(ctx)
}

func (c *redisConn) listen(ctx context.Context) error { return c.subscribe(ctx, "client."+c.id) }

func (c *redisConn) publish(topic string, payload []byte, n int) {
	start := len(c.out)
	c.command("PUBLISH", topic, string(payload))
	one := c.out[start:]
	for range n - 1 {
		c.out = append(c.out, one...)
	}
}

func (c *redisConn) send(id string, payload []byte, n int) { c.publish("client."+id, payload, n) }
func (c *redisConn) request(id string, payload []byte)     { c.publish("client."+id, payload, 1) }
func (c *redisConn) reply(to message, payload []byte)      { c.publish(string(to.reply), payload, 1) }

func (c *redisConn) sync(ctx context.Context) error {
	c.command("PING")
	return c.ask(ctx)
}
