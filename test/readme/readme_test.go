//go:build readme

// Package readme runs the README's loopback chapter as a newcomer would: its
// first command, then every line of every block, in order. It uses the ports
// that the README names, so it is not part of the ordinary tests:
//
//	go test -tags readme ./test/readme
package readme

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is for what a slow machine takes, building the first command from nothing included.
const patience = 5 * time.Minute

// terminal is a command that goes on in a terminal of its own.
type terminal struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when its output has ended

	mu    sync.Mutex // guards lines
	lines []string
}

// open starts a command line in a process group of its own and collects what it
// prints.
func open(t *testing.T, root, line string) *terminal {
	t.Helper()
	term := &terminal{cmd: exec.Command("bash", "-c", "exec "+line), done: make(chan struct{})}
	term.cmd.Dir = root
	term.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r, w := io.Pipe()
	term.cmd.Stdout, term.cmd.Stderr = w, w
	if err := term.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ended by the command's end
		_ = term.cmd.Wait()
		_ = w.Close()
	}()
	go func() { // ended by the line above
		defer close(term.done)
		for s := bufio.NewScanner(r); s.Scan(); {
			term.mu.Lock()
			term.lines = append(term.lines, s.Text())
			term.mu.Unlock()
		}
	}()
	t.Cleanup(func() { term.interrupt(t) })
	return term
}

func (term *terminal) output() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return strings.Join(term.lines, "\n")
}

// interrupt is Ctrl-C; the command has to end by it.
func (term *terminal) interrupt(t *testing.T) {
	t.Helper()
	_ = syscall.Kill(-term.cmd.Process.Pid, syscall.SIGINT)
	select {
	case <-term.done:
	case <-time.After(patience):
		t.Errorf("%v does not end by Ctrl-C; it printed:\n%s", term.cmd.Args, term.output())
		_ = syscall.Kill(-term.cmd.Process.Pid, syscall.SIGKILL)
	}
}

// waitFor returns once a command's output matches.
func (term *terminal) waitFor(t *testing.T, pattern string) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	var found []string
	eventually(t, "a line that matches "+pattern, func() bool {
		found = re.FindStringSubmatch(term.output())
		return found != nil
	}, term.output)
	return found
}

func eventually(t *testing.T, what string, holds func() bool, detail func() string) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("no %s within %s; there is:\n%s", what, patience, detail())
		}
	}
}

func run(t *testing.T, root, line string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", line)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// blocks returns the shell blocks of the chapters with these titles.
func blocks(t *testing.T, readme string, titles ...string) []string {
	t.Helper()
	var found []string
	for _, title := range titles {
		_, chapter, ok := strings.Cut(readme, "\n## "+title+"\n")
		if !ok {
			t.Fatalf("the README has no chapter %q", title)
		}
		chapter, _, _ = strings.Cut(chapter, "\n## ")
		for _, m := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(chapter, -1) {
			found = append(found, strings.ReplaceAll(m[1], "\\\n", ""))
		}
	}
	return found
}

func TestLoopbackChapter(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	first := blocks(t, string(text), "Start here")[0]
	dev := open(t, root, strings.TrimSpace(first))
	pid := dev.waitFor(t, `dev-1 .*127\.0\.0\.1:7410.*pid (\d+)`)[1]
	dev.waitFor(t, `Ctrl-C`)

	for _, block := range blocks(t, string(text), "Five minutes on loopback") {
		if rest, ok := strings.CutPrefix(block, "# terminal 2\n"); ok {
			open(t, root, strings.TrimSpace(rest)).waitFor(t, "listening")
			continue
		}
		for line := range strings.SplitSeq(strings.TrimSpace(block), "\n") {
			out, err := run(t, root, line)
			t.Logf("$ %s\n%s", line, out)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
		}
	}

	// "Kill the second node …: b reconnects and is reachable again, and dev
	// starts the node anew."
	if out, err := run(t, root, "kill -9 "+pid); err != nil {
		t.Fatalf("kill: %v\n%s", err, out)
	}
	var out string
	eventually(t, "send to b after its node's death", func() bool {
		out, err = run(t, root, `bin/hubctl send b "again" --id a`)
		return err == nil
	}, func() string { return out })
	eventually(t, "new dev-1", func() bool {
		out, err = run(t, root, "bin/hubctl nodes")
		return err == nil && regexp.MustCompile(`dev-1 .*active +yes`).MatchString(out)
	}, func() string { return out })
}
