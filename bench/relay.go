package main

import (
	"context"
	"errors"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/switchboardhub/switchboard/wire"

	"github.com/switchboardhub/switchboard/bench/port"
)

// relay is the physical reference: the barest program that moves Switchboard's
// frames from socket to socket. It checks nothing, queues nothing, and a slow
// receiver stops everybody. What it reaches is what the machine gives.
type relay struct{ fleet }

func (s *relay) name() string { return reference }

func (s *relay) start(ctx context.Context, n int) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var addrs []string
	for range n {
		addr, _, err := port.Free()
		if err != nil {
			return err
		}
		addrs = append(addrs, addr)
	}
	for i, addr := range addrs {
		others := slices.Delete(slices.Clone(addrs), i, i+1)
		if err := s.add(addr, self, append([]string{relayArg, addr}, others...)...); err != nil {
			return err
		}
	}
	return answering(ctx, s, n)
}

func (s *relay) connect(ctx context.Context, server int, id string, h handler) (conn, error) {
	return opened(dialSwitchboard(ctx, s.clients[server], id, h))
}

// relayArg makes this program a relay: relayArg, its address, the others'.
const relayArg = "relay"

// runRelay serves until its process is killed.
func runRelay(addr string, others []string) error {
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return err
	}
	r := &relayServer{others: others, links: make(map[string]net.Conn)}
	r.routes.Store(&map[string][]*outlet{})
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		go r.serveFrames(c, &outlet{c: c})
	}
}

// outlet is where a topic's frames go.
type outlet struct {
	c    net.Conn
	peer bool // another relay
}

type relayServer struct {
	others []string
	routes atomic.Pointer[map[string][]*outlet]

	mu    sync.Mutex // guards links, and writes to routes
	links map[string]net.Conn
}

// peerID starts the id of another relay's connection.
const peerID = "$relay "

// serveFrames forwards what a client or another relay sends.
func (r *relayServer) serveFrames(c net.Conn, me *outlet) {
	in := wire.NewReader(c, 1<<30)
	var stretch []byte // consecutive frames of one target that are still to be written
	var to []*outlet
	var target string
	put := func() {
		for _, o := range to {
			_, _ = o.c.Write(stretch) // who is gone gets nothing
		}
		stretch = stretch[:0]
	}
	for {
		f, err := in.Next()
		if err != nil {
			return
		}
		switch f.Kind() {
		case wire.KindPublish, wire.KindSend, wire.KindReply:
			if string(f.Target()) != target {
				put()
				target = string(f.Target())
				to = r.outlets(target, me.peer)
			}
			stretch = append(stretch, f...)
		default:
			r.control(f, me)
			target = ""
		}
		if !in.Buffered() {
			put()
			target = ""
		}
	}
}

// outlets returns who gets a target's frames: what came from another relay goes
// to clients only.
func (r *relayServer) outlets(target string, fromPeer bool) []*outlet {
	all := (*r.routes.Load())[target]
	if !fromPeer {
		return all
	}
	var own []*outlet
	for _, o := range all {
		if !o.peer {
			own = append(own, o)
		}
	}
	return own
}

func (r *relayServer) control(f wire.Frame, me *outlet) {
	answer := wire.Header{Kind: wire.KindAck, Ref: f.Ref()}
	switch f.Kind() {
	case wire.KindHello:
		var hello wire.Hello
		_ = wire.DecodeControl(f, &hello) // this program's own
		if me.peer = strings.HasPrefix(hello.ID, peerID); !me.peer {
			r.route(hello.ID, me)
		}
		answer.Kind = wire.KindWelcome
	case wire.KindSubscribe:
		r.route(string(f.Target()), me)
	case wire.KindPing:
		answer.Kind = wire.KindPong
	default:
		return
	}
	_, _ = me.c.Write(wire.AppendFrame(nil, answer, "", "", nil)) // who is gone needs none
}

// route adds an outlet, here and, when it is a client, at the other relays.
func (r *relayServer) route(target string, o *outlet) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := maps.Clone(*r.routes.Load())
	next[target] = append(slices.Clone(next[target]), o)
	r.routes.Store(&next)
	if o.peer {
		return
	}
	for _, addr := range r.others {
		if err := r.tell(addr, target); err != nil {
			os.Stderr.WriteString("relay: " + err.Error() + "\n") //nolint:errcheck,gosec // nobody else to tell
		}
	}
}

// tell asks another relay for a target's frames, over a link of its own.
func (r *relayServer) tell(addr, target string) error {
	c := r.links[addr]
	if c == nil {
		var err error
		if c, err = net.Dial("tcp", addr); err != nil { //nolint:noctx // a peer on loopback
			return err
		}
		r.links[addr] = c
		if _, err := c.Write(wire.AppendControl(nil, wire.Header{Kind: wire.KindHello}, "", wire.Hello{ID: peerID})); err != nil {
			return err
		}
		go r.serveFrames(c, &outlet{c: c, peer: true})
	}
	_, err := c.Write(wire.AppendControl(nil, wire.Header{Kind: wire.KindSubscribe}, target, wire.Subscription{}))
	return errors.Join(err)
}
