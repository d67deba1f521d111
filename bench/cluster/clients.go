package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/wire"
	"golang.org/x/sync/errgroup"
)

// connectMax bounds the handshakes at a time.
const connectMax = 64

// crowd is many clients of the library.
type crowd struct {
	clients  []*client.Client
	connects atomic.Int64
}

func id(i int) string { return fmt.Sprintf("client-%06d", i) }

// gather connects n clients; opts may differ for each.
func gather(ctx context.Context, addresses string, n int, opts func(i int) []client.Option) (*crowd, error) {
	c := &crowd{clients: make([]*client.Client, n)}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(connectMax)
	for i := range n {
		g.Go(func() error {
			all := []client.Option{client.WithID(id(i)), client.OnConnect(func(client.Server) { c.connects.Add(1) })}
			if opts != nil {
				all = append(all, opts(i)...)
			}
			var err error
			c.clients[i], err = client.Connect(ctx, addresses, all...)
			return err
		})
	}
	return c, g.Wait()
}

// close ends all clients, without waiting for each other.
func (c *crowd) close() {
	var closing sync.WaitGroup
	for _, one := range c.clients {
		if one != nil {
			closing.Go(func() { _ = one.Close() }) // the nodes may be gone
		}
	}
	closing.Wait()
}

// reachAll sends to clients 0 to n-1 until each send has succeeded.
func reachAll(ctx context.Context, from *client.Client, n int) error {
	waiting := make([]int, n)
	for i := range waiting {
		waiting[i] = i
	}
	for len(waiting) > 0 {
		acks := make([]client.Ack, len(waiting))
		for k, i := range waiting {
			var err error
			if acks[k], err = from.SendAsync(ctx, id(i), &wire.Artifact{}); err != nil {
				return err
			}
		}
		var left []int
		for k, i := range waiting {
			if _, err := acks[k].Wait(ctx); err != nil {
				left = append(left, i)
			}
		}
		if waiting = left; ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// holdMax is how many idle connections one process holds: more than that many
// files may often not be open.
const holdMax = 10_000

// idlers are processes of this program whose connections have shaken hands and say
// nothing more.
type idlers struct {
	cmds []*exec.Cmd
	open []io.Closer
}

// connect returns when n clients are connected, spread over the hub's nodes.
func (c *idlers) connect(ctx context.Context, h *hub, n int) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	to := h.addresses()
	for from := 0; from < n; from += holdMax {
		cmd := exec.CommandContext(ctx, self, "hold", strconv.Itoa(from), strconv.Itoa(min(holdMax, n-from)), to) //nolint:gosec // itself
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe() // open until this process ends
		if err != nil {
			return err
		}
		c.open = append(c.open, in)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		c.cmds = append(c.cmds, cmd)
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			return fmt.Errorf("idle clients from %d on: %w", from, err)
		}
	}
	return nil
}

func (c *idlers) close() {
	for _, cmd := range c.cmds {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}
}

// hold is what such a process does: it connects the clients from one number on,
// says so, and waits to be killed. It returns only when it can't.
func hold(args []string) error {
	if len(args) != 3 {
		return errors.New("hold FROM N ADDRESSES")
	}
	from, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	if err := raiseFileLimit(n); err != nil {
		return err
	}
	nodes := strings.Split(args[2], ",")
	conns := make([]net.Conn, n)
	var g errgroup.Group
	g.SetLimit(connectMax)
	for i := range n {
		g.Go(func() (err error) {
			conns[i], err = greet(nodes[i%len(nodes)], id(from+i))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if _, err := os.Stdout.WriteString("connected\n"); err != nil {
		return err
	}
	_, err = os.Stdin.Read(make([]byte, 1)) // which never has anything
	return err
}

// greet connects and shakes hands.
func greet(address, id string) (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", address, 10*time.Second) //nolint:gosec,noctx // the parent process names it, and ends this one
	if err != nil {
		return nil, err
	}
	hello := wire.AppendControl(nil, wire.Header{Kind: wire.KindHello}, "", wire.Hello{MinVersion: wire.Version, MaxVersion: wire.Version, ID: id})
	if _, err := conn.Write(hello); err != nil {
		return nil, err
	}
	r := wire.NewReader(conn, wire.MaxHandshakeFrame)
	defer r.Close()
	f, err := r.Next()
	if err == nil && f.Kind() != wire.KindWelcome {
		err = fmt.Errorf("answered with kind %d: %s", f.Kind(), f.Body())
	}
	return conn, err
}
