package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
)

// natsConn speaks the protocol of nats-server.
type natsConn struct {
	*socket
	id   string
	sids int
}

func dialNats(ctx context.Context, addr, id string, h handler) (*natsConn, error) {
	s, err := dialSocket(ctx, addr)
	if err != nil {
		return nil, err
	}
	c := &natsConn{socket: s, id: id}
	go s.read(h, func(b []byte) (int, error) { return c.take(b, h) })
	c.out = append(c.out, `CONNECT {"verbose":false,"pedantic":false,"lang":"go","version":"0","protocol":1,"headers":true}`+"\r\n"...)
	if err := c.sync(ctx); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// take handles the whole protocol lines and messages in b.
func (c *natsConn) take(b []byte, h handler) (int, error) {
	used := 0
	for {
		rest := b[used:]
		line := bytes.IndexByte(rest, '\n')
		if line < 0 {
			return used, nil
		}
		if len(rest) < 4 {
			return used, errors.New("nats: a line without a verb")
		}
		switch rest[0] {
		case 'M': // MSG subject sid [reply] size
			reply, size, err := natsMessage(rest[4 : line-1])
			if err != nil {
				return used, err
			}
			if len(rest) < line+1+size+2 {
				return used, nil
			}
			h.message(message{payload: rest[line+1 : line+1+size], reply: reply})
			used += size + 2
		case 'P':
			if rest[1] == 'O' {
				c.said()
			} else if _, err := c.Write([]byte("PONG\r\n")); err != nil {
				return used, err
			}
		case '-':
			return used, fmt.Errorf("nats: %s", rest[:line])
		}
		used += line + 1
	}
}

// natsMessage reads what follows MSG.
func natsMessage(line []byte) (reply []byte, size int, err error) {
	at := bytes.LastIndexByte(line, ' ')
	for _, d := range line[at+1:] {
		size = size*10 + int(d-'0')
	}
	subject := bytes.IndexByte(line, ' ')
	if subject < 0 || subject == at {
		return nil, 0, fmt.Errorf("nats: MSG %q", line)
	}
	if sid := bytes.IndexByte(line[subject+1:at], ' '); sid >= 0 {
		reply = line[subject+1+sid+1 : at]
	}
	return reply, size, nil
}

func (c *natsConn) subscribe(ctx context.Context, topic string) error {
	c.sids++
	c.out = fmt.Appendf(c.out, "SUB %s %d\r\n", topic, c.sids)
	return c.sync(ctx)
}

func (c *natsConn) listen(ctx context.Context) error { return c.subscribe(ctx, "client."+c.id) }

func (c *natsConn) publish(topic string, payload []byte, n int) {
	start := len(c.out)
	c.put(topic, "", payload)
	one := c.out[start:]
	for range n - 1 {
		c.out = append(c.out, one...)
	}
}

func (c *natsConn) put(topic, reply string, payload []byte) {
	c.out = append(append(append(c.out, "PUB "...), topic...), ' ')
	if reply != "" {
		c.out = append(append(c.out, reply...), ' ')
	}
	c.out = strconv.AppendInt(c.out, int64(len(payload)), 10)
	c.out = append(append(append(c.out, "\r\n"...), payload...), "\r\n"...)
}

func (c *natsConn) send(id string, payload []byte, n int) { c.publish("client."+id, payload, n) }
func (c *natsConn) request(id string, payload []byte)     { c.put("client."+id, "client."+c.id, payload) }
func (c *natsConn) reply(to message, payload []byte)      { c.put(string(to.reply), "", payload) }

func (c *natsConn) sync(ctx context.Context) error {
	c.out = append(c.out, "PING\r\n"...)
	return c.ask(ctx)
}
