package hubctl_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/internal/hubctl"
	"github.com/switchboardhub/switchboard/wire"
)

// patience is how long a test waits for what has to happen.
const patience = 30 * time.Second

// checked runs the tests and then looks for goroutines that they left behind.
type checked struct{ m *testing.M }

func (c checked) Run() int {
	status := c.m.Run()
	if err := goleak.Find(); status == 0 && err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return status
}

// TestMain makes the test binary be hubctl when it is called by its name.
func TestMain(m *testing.M) {
	testscript.Main(checked{m}, map[string]func(){
		"hubctl": func() { os.Exit(hubctl.Main("v0.0.0-test")) },
	})
}

// devHub is "hubctl dev", run as a process.
type devHub struct {
	cmd   *exec.Cmd
	nodes []devNode
	dir   string // its temporary files

	mu     sync.Mutex // guards notes
	notes  strings.Builder
	copied chan struct{} // closed when the standard error has ended
}

type devNode struct {
	Node   string `json:"node"`
	Client string `json:"client"`
	HTTP   string `json:"http"`
	PID    int    `json:"pid"`
	CAFile string `json:"caFile"`
}

// startDev starts a hub and waits until it says that its nodes are ready.
func startDev(t *testing.T, nodes int, flags ...string) *devHub {
	t.Helper()
	h := &devHub{dir: t.TempDir(), copied: make(chan struct{})}
	h.cmd = exec.Command("hubctl", append([]string{"dev", "--nodes", strconv.Itoa(nodes), "--port", "0", "-o", "json"}, flags...)...)
	h.cmd.Env = append(os.Environ(), "TMPDIR="+h.dir)
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	notes, err := h.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(h.copied)
		for s := bufio.NewScanner(notes); s.Scan(); {
			h.mu.Lock()
			h.notes.WriteString(s.Text() + "\n")
			h.mu.Unlock()
		}
	}()
	t.Cleanup(func() { h.stop(t, out) })
	for s := bufio.NewScanner(out); len(h.nodes) < nodes && s.Scan(); {
		var n devNode
		if err := json.Unmarshal(s.Bytes(), &n); err != nil {
			t.Fatalf("hubctl dev printed %q: %v", s.Text(), err)
		}
		h.nodes = append(h.nodes, n)
	}
	if len(h.nodes) != nodes {
		t.Fatalf("hubctl dev introduced %d nodes, want %d; it says:\n%s", len(h.nodes), nodes, h.said())
	}
	return h
}

func (h *devHub) said() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.notes.String()
}

// stop interrupts the hub, which has to end in order and clean up.
func (h *devHub) stop(t *testing.T, out io.Reader) {
	t.Helper()
	before := len(h.said())
	if err := h.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	kill := time.AfterFunc(patience, func() { _ = h.cmd.Process.Kill() })
	defer kill.Stop()
	_, _ = io.Copy(io.Discard, out)
	<-h.copied
	if err := h.cmd.Wait(); err != nil {
		t.Errorf("hubctl dev ended with %v; it says:\n%s", err, h.said())
	}
	if last := h.said()[before:]; strings.Contains(last, "started again") {
		t.Errorf("hubctl dev was told to end and says:\n%s", last)
	}
	if left, err := os.ReadDir(h.dir); err != nil || len(left) > 0 {
		t.Errorf("hubctl dev left %v behind (%v)", left, err)
	}
}

func TestScripts(t *testing.T) {
	hub, other, secure := startDev(t, 3), startDev(t, 1), startDev(t, 1, "--tls")
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			for i, n := range hub.nodes {
				env.Setenv("SERVER"+strconv.Itoa(i), n.Client)
			}
			env.Setenv("OTHER", other.nodes[0].Client)
			env.Setenv("SECURE", secure.nodes[0].Client)
			env.Setenv("SECURE_CA", secure.nodes[0].CAFile)
			env.Setenv("SWITCHBOARD_SERVER", hub.nodes[0].Client)
			env.Setenv("GORACE", "atexit_sleep_ms=0") // the scripts start some hundred processes
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status":    status,
			"await":     await,
			"interrupt": interrupt,
		},
	})
}

// status runs a program that has to exit with a status: status 3 hubctl …
func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N program args…")
	}
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		code = exit.ExitCode()
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("%s exited with %d, want %s", args[1], code, args[0])
	}
}

// await waits until a client is in the hub, or a topic has a subscriber:
// await client b, await subscriber 'orders.>'
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await client|subscriber NAME")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := client.Connect(ctx, ts.Getenv("SERVER1"), client.WithoutBroadcast())
	ts.Check(err)
	defer func() { ts.Check(c.Close()) }()
	for {
		answer, err := c.Request(ctx, map[string]string{"client": "$hub.clients", "subscriber": "$hub.topics"}[args[0]], &wire.Artifact{})
		ts.Check(err)
		var list struct {
			Clients []struct {
				ID string `json:"id"`
			} `json:"clients"`
			Topics []struct {
				Topic       string `json:"topic"`
				Subscribers int    `json:"subscribers"`
			} `json:"topics"`
		}
		ts.Check(json.Unmarshal(answer.Payload, &list))
		for _, one := range list.Clients {
			if one.ID == args[1] {
				return
			}
		}
		for _, one := range list.Topics {
			if one.Topic == args[1] && one.Subscribers > 0 {
				return
			}
		}
	}
}

// interrupt is Ctrl-C for the last command in the background.
func interrupt(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: interrupt")
	}
	running := ts.BackgroundCmds()
	ts.Check(running[len(running)-1].Process.Signal(os.Interrupt))
}

func TestDevStartsANodeAgainThatDied(t *testing.T) {
	hub := startDev(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	connected := make(chan client.Server, 10)
	got := make(chan string, 10)
	listener, err := client.Connect(ctx, hub.nodes[1].Client, client.WithID("b"),
		client.OnConnect(func(s client.Server) { connected <- s }),
		client.WithHandler(func(_ context.Context, a *wire.Artifact) (*wire.Artifact, error) {
			got <- string(a.Payload)
			return nil, nil
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	if s := <-connected; s.Node != "dev-1" {
		t.Fatalf("connected to %+v, want dev-1", s)
	}

	if err := syscall.Kill(hub.nodes[1].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case <-connected:
	case <-ctx.Done():
		t.Fatalf("the client did not come back; the hub says:\n%s", hub.said())
	}
	sender, err := client.Connect(ctx, hub.nodes[0].Client)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sender.Close() }()
	for { // until the other node knows where it is now
		if err := sender.Send(ctx, "b", &wire.Artifact{Payload: []byte("again")}); err == nil {
			break
		} else if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	if text := <-got; text != "again" {
		t.Errorf("b got %q", text)
	}

	back, err := client.Connect(ctx, hub.nodes[1].Client, client.WithRetryFirstConnect())
	if err != nil {
		t.Fatalf("dev-1 did not come back: %v; the hub says:\n%s", err, hub.said())
	}
	defer func() { _ = back.Close() }()
	for _, want := range []string{"dev-1 (pid " + strconv.Itoa(hub.nodes[1].PID) + ") ended: signal: killed; it is started again", "dev-1 runs again at " + hub.nodes[1].Client} {
		if !strings.Contains(hub.said(), want) {
			t.Errorf("hubctl dev does not say %q:\n%s", want, hub.said())
		}
	}
}

func TestDevNodesEndWithTheirParent(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command("hubctl", "dev", "--nodes", "1", "--port", "0", "-o", "json")
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var n devNode
	err = json.NewDecoder(out).Decode(&n)
	if e := cmd.Process.Kill(); e != nil {
		t.Fatal(e)
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	deadline := time.Now().Add(patience)
	for syscall.Kill(n.PID, 0) == nil && !zombie(n.PID) {
		if time.Now().After(deadline) {
			t.Fatalf("node process %d outlives its parent", n.PID)
		}
	}
}

// zombie reports whether a process has ended and only waits to be collected.
func zombie(pid int) bool {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err == nil && strings.Contains(string(text), ") Z ")
}
