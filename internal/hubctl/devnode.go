package hubctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"time"
)

// devNode is one node of "dev": a process that is started again when it dies.
type devNode struct {
	name       string
	configFile string
	client     string // addresses, host:port
	cluster    string
	gossip     string
	http       string
	started    <-chan struct{} // closed once all nodes were ready for the first time
	pid        atomic.Int64
}

type devNodeJSON struct {
	Node   string `json:"node"`
	Client string `json:"client"`
	HTTP   string `json:"http"`
	PID    int64  `json:"pid"`
	CAFile string `json:"caFile,omitempty"` // with --tls
}

func (n *devNode) json(caFile string) devNodeJSON {
	return devNodeJSON{Node: n.name, Client: n.client, HTTP: "http://" + n.http, PID: n.pid.Load(), CAFile: caFile}
}

// keepRunning runs the node's process until ctx ends, again after each death.
// One that dies before the hub was ready once is an error: it would only die
// again.
func (a *App) keepRunning(ctx context.Context, n *devNode) error {
	for {
		err := a.runNode(ctx, n)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was told to end
		}
		select {
		case <-n.started:
		default:
			return fmt.Errorf("%s ended before it was ready: %w", n.name, errOrEnd(err))
		}
		a.Tellf("%s (pid %d) ended: %v; it is started again", n.name, n.pid.Load(), errOrEnd(err))
		if !pause(ctx, devRestartWait) {
			return nil
		}
	}
}

func errOrEnd(err error) error {
	if err == nil {
		return errors.New("without an error")
	}
	return err
}

// runNode runs the node's process once.
func (a *App) runNode(ctx context.Context, n *devNode) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.CommandContext(ctx, program, "node", "--attached", "--config", n.configFile) //nolint:gosec // this very program
	cmd.Args[0] = os.Args[0]
	cmd.Stdout, cmd.Stderr = a.ErrOut, a.ErrOut
	cmd.Cancel = func() error { return terminate(cmd.Process) }
	cmd.WaitDelay = devStopTimeout
	cmd.SysProcAttr = ownGroup() // an interrupt at the terminal is for this process, which ends the nodes in order
	alive, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("make a pipe for %s: %w", n.name, err)
	}
	defer func() { _ = alive.Close() }() // the node has ended
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", n.name, err)
	}
	n.pid.Store(int64(cmd.Process.Pid))
	select {
	case <-n.started:
		a.Tellf("%s runs again at %s, pid %d", n.name, n.client, n.pid.Load())
	default:
	}
	return cmd.Wait()
}

// awaitReady waits until the node says that it is ready, or ctx ends.
func (n *devNode) awaitReady(ctx context.Context) {
	const between = 50 * time.Millisecond
	for !n.ready(ctx) {
		if !pause(ctx, between) {
			return
		}
	}
}

func (n *devNode) ready(ctx context.Context) bool {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.http+"/readyz", http.NoBody)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return false
	}
	_, _ = io.Copy(io.Discard, resp.Body) // the status is all that counts
	_ = resp.Body.Close()                 // nothing was written
	return resp.StatusCode == http.StatusOK
}

// pause waits and reports whether ctx is still alive.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// portPicker finds ports on loopback and holds them until all are found.
type portPicker struct {
	held []io.Closer
}

func (p *portPicker) release() {
	for _, c := range p.held {
		_ = c.Close() // nothing was written
	}
}

// pick returns a loopback address with the port base+offset, or any free port
// when that is taken or base is 0. With udp set the port is free for UDP too.
func (p *portPicker) pick(ctx context.Context, base, offset int, udp bool) (string, error) {
	const tries = 20
	port := 0
	if base > 0 && base+offset <= 65535 {
		port = base + offset
	}
	var err error
	for range tries {
		var address string
		if address, err = p.hold(ctx, port, udp); err == nil {
			return address, nil
		}
		port = 0
	}
	return "", err
}

func (p *portPicker) hold(ctx context.Context, port int, udp bool) (string, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return "", err
	}
	address := ln.Addr().String()
	if udp {
		packets, err := lc.ListenPacket(ctx, "udp", address)
		if err != nil {
			return "", errors.Join(err, ln.Close())
		}
		p.held = append(p.held, packets)
	}
	p.held = append(p.held, ln)
	return address, nil
}
