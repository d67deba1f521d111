package strangers_test

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/hubnode/strangers"
	"github.com/switchboardhub/switchboard/test/exhausted"
)

func TestAFailingAcceptIsTriedAgainLaterAndLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := exhausted.New(4, 6)
		var told []error
		entrance := strangers.Entrance{Listener: ln, Failed: func(err error, _ int) { told = append(told, err) }}
		for range 2 {
			if conn, err := entrance.Accept(t.Context()); conn == nil || err != nil {
				t.Fatalf("Accept = %v, %v", conn, err)
			}
		}
		const ms = time.Millisecond
		want := []time.Duration{0, 5 * ms, 15 * ms, 35 * ms, 35 * ms, 40 * ms} // after a success from the beginning
		if diff := cmp.Diff(want, ln.Tried); diff != "" {
			t.Errorf("tried at (-want +got):\n%s", diff)
		}
		if len(told) != 1 || !errors.Is(told[0], syscall.EMFILE) {
			t.Errorf("it told %v, want the failure once", told)
		}
	})
}

func TestFailuresToAcceptAreToldOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := exhausted.New()
		var told, failures int
		entrance := strangers.Entrance{Listener: ln, Failed: func(_ error, silent int) { told, failures = told+1, failures+1+silent }}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute-time.Millisecond)
		defer cancel()
		start := time.Now()
		_, err := entrance.Accept(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 3*time.Minute-time.Millisecond {
			t.Errorf("Accept = %v after %v, want the end of its context then", err, time.Since(start))
		}
		if told != 3 || failures < 100 {
			t.Errorf("%d failures were told in %d lines, want most of them in 3", failures, told)
		}
		if n := len(ln.Tried); n < 3*60 || n > 3*60+10 {
			t.Errorf("it tried %d times in three minutes, want once a second", n)
		}
	})
}

func TestAClosedListenerIsNotTriedAgain(t *testing.T) {
	ln := exhausted.New()
	_ = ln.Close() // what is tested
	entrance := strangers.Entrance{Listener: ln, Failed: func(err error, _ int) { t.Errorf("it told %v", err) }}
	if _, err := entrance.Accept(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept = %v, want %v", err, net.ErrClosed)
	}
}
