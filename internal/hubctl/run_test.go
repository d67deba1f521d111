package hubctl_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/switchboardhub/switchboard/internal/hubctl"
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
