package hubctl

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/switchboardhub/switchboard/wire"
)

// When the right to a subscription is taken away there is nothing to wait for.
func TestSubEndsWithItsSubscription(t *testing.T) {
	near, far := net.Pipe()
	defer func() { _ = far.Close() }()
	go func() {
		r := wire.NewReader(far, 1<<20)
		say := func(kind wire.Kind, ref uint32, what any) {
			_, _ = far.Write(wire.AppendControl(nil, wire.Header{Kind: kind, Ref: ref}, "", what)) // the client sees what is missing
		}
		for {
			f, err := r.Next()
			if err != nil {
				return
			}
			switch ref := f.Ref(); f.Kind() { //nolint:exhaustive // what a client says that subscribes
			case wire.KindHello:
				say(wire.KindWelcome, 0, wire.Welcome{Version: 1, Hub: "h", Node: "n", Epoch: 1})
			case wire.KindSubscribe:
				say(wire.KindAck, ref, wire.Subscribed{})
				say(wire.KindError, ref, wire.FaultOf(&wire.PermissionError{Identity: "x", Action: wire.ActionSubscribe, Target: "t"}, 0))
			case wire.KindPing:
				say(wire.KindPong, ref, nil)
			}
		}
	}()
	dial := func(context.Context, string, string) (net.Conn, error) { return near, nil } //nolint:unparam // a client.Dialer
	a := &App{
		Program: "hubctl", Out: io.Discard, ErrOut: io.Discard, output: "text", id: "me",
		place: &Place{Door: func(context.Context) (Door, error) { return Door{Server: "a:1", Dial: dial}, nil }},
	}
	err := a.sub(t.Context(), []string{"t"}, 0, false, nil)
	if denied, ok := errors.AsType[*wire.PermissionError](err); !ok || denied.Target != "t" {
		t.Errorf("it ended with %v, want that the right is missing", err)
	}
}
