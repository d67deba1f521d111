package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// system is a message hub that scenarios run against: its servers as processes,
// and connections to them.
type system interface {
	name() string
	// start runs n servers that form one hub and returns when they are ready.
	start(ctx context.Context, n int) error
	// connect opens a connection to a server, 0 to n-1.
	connect(ctx context.Context, server int, id string, h handler) (conn, error)
	// processes are the servers' ids.
	processes() []int
	stop()
	// lastWords stops the servers and returns the end of what each has written.
	lastWords() string
}

// keeper is a system with topics that keep history.
type keeper interface {
	system
	// storing says how the servers that start next keep history.
	storing(how storage)
	// fill publishes n messages that are kept.
	fill(ctx context.Context, topic string, payload []byte, n int) error
	// replay reads all that is kept: h gets each message.
	replay(ctx context.Context, topic string, h handler) (stop func(), err error)
}

// storage is how history is kept: the zero value in memory, on one server.
type storage struct {
	everywhere bool // on every server, and acknowledged by a majority
	disk       bool
	synced     bool // to disk before it is acknowledged; peers only with peersSync
	peersSync  bool
}

const startTime = 30 * time.Second

// errCannot is returned by start for what a system does not do.
var errCannot = errors.New("this system does not do that")

// lastWordsMax bounds how much of a server's output an error repeats.
const lastWordsMax = 1000

// fleet is the processes of a system and the addresses that clients connect to.
type fleet struct {
	servers []*server
	clients []string
}

func (f *fleet) add(client, binary string, args ...string) error {
	p, err := run(binary, args...)
	if err != nil {
		return err
	}
	f.servers, f.clients = append(f.servers, p), append(f.clients, client)
	return nil
}

func (f *fleet) processes() []int {
	var all []int
	for _, p := range f.servers {
		all = append(all, p.cmd.Process.Pid)
	}
	return all
}

// lastWords stops the processes and returns the end of what each has written.
func (f *fleet) lastWords() string {
	servers := f.servers
	f.stop()
	var text strings.Builder
	for i, p := range servers {
		said := bytes.TrimSpace(p.out.Bytes())
		fmt.Fprintf(&text, "\nserver %d: %s", i, said[max(0, len(said)-lastWordsMax):])
	}
	return text.String()
}

func (f *fleet) stop() {
	for _, p := range f.servers {
		p.stop()
	}
	f.servers, f.clients = nil, nil
}

// answering waits until a client can connect to every server.
func answering(ctx context.Context, s system, n int) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for i := range n {
		err := poll(ctx, func() error {
			c, err := s.connect(ctx, i, "probe", nobody{})
			if err == nil {
				c.close()
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
