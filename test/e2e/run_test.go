//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// pollEvery is how often eventually looks again.
const pollEvery = 200 * time.Millisecond

// run runs a program with input and returns what it printed. Its error holds
// what the program said about it.
func (s *suite) run(program, input string, args ...string) (string, error) {
	cmd := exec.CommandContext(s.ctx, program, args...)
	cmd.Stdin = strings.NewReader(input)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(errOut.String()))
	}
	return out.String(), nil
}

// mustRun is run for what has to succeed.
func (s *suite) mustRun(t *testing.T, program, input string, args ...string) string {
	t.Helper()
	out, err := s.run(program, input, args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// eventually tries check until it returns nil, and fails the test with the last
// error when that takes too long. The context of check ends with the deadline.
func (s *suite) eventually(t *testing.T, within time.Duration, what string, check func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, within)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	last := check(ctx)
	for last != nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.missed = fmt.Sprintf("%s: not within %v: %v", what, within, last)
			t.Fatal(s.missed)
		}
		if err := check(ctx); err == nil || ctx.Err() == nil {
			last = err // an error of the deadline itself says less than the one before
		}
	}
}
