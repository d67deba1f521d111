package hubctl_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"io/fs"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/internal/hubctl"
	"github.com/switchboardhub/switchboard/wire"
)

// start runs a command in this process; the result comes once it has ended.
func start(ctx context.Context, out, errOut io.Writer, args ...string) <-chan int {
	status := make(chan int, 1)
	go func() { status <- hubctl.Run(ctx, "test", args, strings.NewReader(""), out, errOut) }()
	return status
}

func TestNamelessListenerSaysHowToBeAddressed(t *testing.T) {
	hub := startDev(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	server := "--server=" + hub.nodes[0].Client
	var printed bytes.Buffer
	notes, w := io.Pipe()
	listening := start(ctx, &printed, w, server, "listen", "--count", "1")
	s := bufio.NewScanner(notes)
	hint := regexp.MustCompile(`^hubctl: reach it with: hubctl send (hubctl-\S+) hello$`)
	for s.Scan() {
		if m := hint.FindStringSubmatch(s.Text()); m != nil {
			if status := <-start(ctx, io.Discard, io.Discard, server, "--id", "a", "send", m[1], "hello"); status != 0 {
				t.Errorf("send exited with %d", status)
			}
			break
		}
	}
	go func() { _, _ = io.Copy(io.Discard, notes) }() // ends with the pipe, below
	if status := <-listening; status != 0 || printed.String() != "from a: hello\n" {
		t.Errorf("listen exited with %d and printed %q", status, &printed)
	}
	_ = w.Close()
}

// unreadAfter is an output whose reader goes away after so many writes.
type unreadAfter struct{ left int }

func (u *unreadAfter) Write(p []byte) (int, error) {
	if u.left--; u.left < 0 {
		return 0, &fs.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.EPIPE}
	}
	return len(p), nil
}

// Where the output is not all that there is to do, it is a failure that nobody reads it.
func TestCommandsThatAreCutShortFail(t *testing.T) {
	hub := startDev(t, 1)
	server := "--server=" + hub.nodes[0].Client
	for name, args := range map[string][]string{
		"lines are published": {server, "pub", "orders", "-", "--lines"},
		"a backup":            {server, "backup", "-"},
	} {
		t.Run(name, func(t *testing.T) {
			var errOut bytes.Buffer
			lines := strings.NewReader(strings.Repeat("line\n", 100_000))
			if status := hubctl.Run(t.Context(), "test", args, lines, &unreadAfter{}, &errOut); status != 1 || !strings.Contains(errOut.String(), "nobody reads the output any more") {
				t.Errorf("it exited with %d and said %q", status, &errOut)
			}
		})
	}
}

// What is not printed was not received.
func TestListenConfirmsWhatItPrints(t *testing.T) {
	hub := startDev(t, 1)
	server := "--server=" + hub.nodes[0].Client
	c, err := client.Connect(t.Context(), hub.nodes[0].Client)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	var printed bytes.Buffer
	notes, w := io.Pipe()
	listening := start(t.Context(), &printed, w, server, "--id", "listener", "listen", "--count", "1")
	if s := bufio.NewScanner(notes); !s.Scan() {
		t.Fatal("it says nothing")
	}
	go func() { _, _ = io.Copy(io.Discard, notes) }() // ends with the pipe, below
	var (
		sending  sync.WaitGroup
		receipts atomic.Int64
	)
	for range 20 {
		sending.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if c.Send(ctx, "listener", &wire.Artifact{Payload: []byte("x")}, client.WithReceipt()) == nil {
				receipts.Add(1)
			}
		})
	}
	if status := <-listening; status != 0 {
		t.Errorf("listen exited with %d", status)
	}
	_ = w.Close()
	sending.Wait()
	if lines := strings.Count(printed.String(), "\n"); lines != 1 || receipts.Load() > 1 {
		t.Errorf("%d receipts for %d that were printed", receipts.Load(), lines)
	}
}
