package strangers

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/seldom"
)

// When no connection can be taken, as when the process has no file left for one, the next
// try is after the least pause, and each pause is twice the one before, up to the most.
const (
	pauseLeast = 5 * time.Millisecond
	pauseMost  = time.Second
)

// Entrance is where the connections of a port come in. It waits for one goroutine at a time.
type Entrance struct {
	Listener net.Listener
	// Failed is told why no connection could be taken, once a minute, with how many times
	// since it was told last it was not.
	Failed func(err error, silent int)

	failures seldom.Log
}

// Accept returns the next connection. While none can be taken it tries again, after a pause.
// It returns an error when the listener is closed ([net.ErrClosed]), and when ctx has ended,
// which by itself does not wake a listener that waits.
func (e *Entrance) Accept(ctx context.Context) (net.Conn, error) {
	for pause := pauseLeast; ; pause = min(2*pause, pauseMost) {
		conn, err := e.Listener.Accept()
		if err == nil || errors.Is(err, net.ErrClosed) {
			return conn, err
		}
		if ctx.Err() == nil {
			if due, silent := e.failures.Due("", time.Now()); due {
				e.Failed(err, silent)
			}
		}
		if !Rest(ctx, pause) {
			return nil, ctx.Err()
		}
	}
}

// Rest waits, and reports false when ctx ends first.
func Rest(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
