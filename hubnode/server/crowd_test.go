package server_test

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/auth"
	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/hubnode/server"
	"github.com/switchboardhub/switchboard/hubnode/tenancy"
	"github.com/switchboardhub/switchboard/wire"
)

// Whoever opens connections and says nothing loses the oldest of them to those who come, and
// keeps nobody out.
func TestHalfOpenConnectionsKeepNobodyOut(t *testing.T) {
	const bound = 20
	_, s, addr := serveWith(t, hub.Settings{}, func(cfg *server.Config) { cfg.Newcomers = bound })
	member := join(t, addr, "member")
	var silent []net.Conn
	for range 3 * bound {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		silent = append(silent, conn)
		t.Cleanup(func() { _ = conn.Close() })
	}
	for range 3 {
		join(t, addr, "late")
	}
	_ = silent[0].SetReadDeadline(time.Now().Add(patience / 2)) // below the time of a handshake
	if _, err := silent[0].Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the oldest silent connection reads %v, want its end", err)
	}
	if n := s.Crowded(); n < 2*bound {
		t.Errorf("%d connections were ended, want %d at least", n, 2*bound)
	}
	member.send(wire.AppendFrame(nil, wire.Header{Kind: wire.KindPing, Ref: 7}, "", "", nil))
	if f := member.next(); f.Kind() != wire.KindPong || f.Ref() != 7 {
		t.Errorf("a client that was there gets a frame of kind %d", f.Kind())
	}
}

// A node survives any sequence of frames, answers or ends each connection, and goes on to
// serve the others.
func FuzzConversation(f *testing.F) {
	for _, seed := range [][]byte{
		{0}, {0, 5, 5, 6, 7, 8, 9}, {1, 5, 2, 2, 5}, {3}, {4, 4}, {0, 10, 11, 12, 13, 14}, {0, 0}, {0, 15, 5}, {2, 5, 6, 16, 5, 17}, {0, 18, 18, 19}, {20, 5, 6, 8, 9, 10, 11, 12, 14, 15, 18, 17},
	} {
		f.Add(seed, []byte("orders.new"))
	}
	f.Add([]byte{0, 6, 7, 21}, []byte{0, 0, 0, 20, 5, 1})
	_, _, addr := serveWith(f, hub.Settings{ResumeWindow: time.Minute, Topics: []hub.Topic{{Pattern: "orders.>", History: history.Limits{MaxArtifacts: 10}}}}, func(cfg *server.Config) { cfg.Door = door{} })
	witness := join(f, addr, "witness")
	f.Fuzz(func(t *testing.T, script, text []byte) {
		witness.t = t
		text = text[:min(len(text), wire.MaxTopic)]
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		go func() { // ends with the connection
			for i, step := range script {
				if _, err := conn.Write(say(step, uint32(i)+1, text)); err != nil {
					break
				}
			}
			_ = conn.(*net.TCPConn).CloseWrite() // the node may have ended it
		}()
		r := wire.NewReader(conn, 1<<20)
		for {
			if _, err = r.Next(); err != nil {
				break
			}
		}
		if errors.Is(err, wire.ErrMalformed) || errors.Is(err, wire.ErrFrameTooLarge) || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the node's side of it ended with %v", err)
		}
		r.Close()
		_ = conn.Close()
		_ = witness.conn.SetDeadline(time.Now().Add(patience))
		witness.send(wire.AppendFrame(nil, wire.Header{Kind: wire.KindPing, Ref: 1}, "", "", nil))
		for {
			got, err := witness.r.Next()
			if err != nil {
				t.Fatalf("another client's connection ended: %v", err)
			}
			if got.Kind() == wire.KindPong {
				break
			}
		}
	})
}

// door lets everybody in, who shows the token "tenant" as one of a namespace, and lets nobody
// publish on what begins with "secret".
type door struct{}

func (door) Admit(_ context.Context, id wire.ClientID, shown auth.Credentials) (server.Admitted, error) {
	var tenant tenancy.Tenant
	switch shown.Token {
	case "bad":
		return server.Admitted{}, &wire.Error{Code: wire.CodeUnauthenticated, Detail: "no"}
	case "tenant":
		tenant = "shop"
	case "other tenant":
		tenant = "bank"
	}
	return server.Admitted{Tenant: tenant, Permit: &hub.Permit{Identity: id, Expires: time.Now().Add(time.Hour), Allows: func(action wire.Action, target string) bool {
		return action != wire.ActionPublish || !strings.HasPrefix(tenant.OwnTopic(target), "secret")
	}}}, nil
}

func (d door) Renew(ctx context.Context, c *hub.Client, token string) (*hub.Permit, error) {
	admitted, err := d.Admit(ctx, c.ID(), auth.Credentials{Token: token})
	return admitted.Permit, err
}

func (door) Recheck(*hub.Client) {}

// say returns one step of a conversation, which may be out of place.
func say(step byte, ref uint32, text []byte) []byte {
	greet := func(h wire.Hello) []byte {
		h.MinVersion, h.MaxVersion = wire.Version, wire.Version
		return wire.AppendControl(nil, wire.Header{Kind: wire.KindHello}, "", h)
	}
	control := func(kind wire.Kind, body any) []byte {
		return wire.AppendControl(nil, wire.Header{Kind: kind, Ref: ref}, string(text), body)
	}
	artifact := func(h wire.Header, target, from string) []byte {
		var run wire.Run
		if err := run.Append(&wire.Artifact{ID: wire.ID{1}, Payload: text}, 1<<10); err != nil {
			return nil
		}
		h.Count, h.Ref = 1, ref
		return wire.AppendFrame(nil, h, target, from, run.Body())
	}
	switch step % 22 {
	case 0:
		return greet(wire.Hello{ID: "fuzz"})
	case 1:
		return greet(wire.Hello{ID: "fuzz", Resumable: true, Publisher: 7, Attempt: 1})
	case 2:
		return greet(wire.Hello{ID: "fuzz", Resumable: true, Session: string(text), Received: uint64(len(text)), Attempt: 2})
	case 3:
		return greet(wire.Hello{ID: "fuzz", Token: "bad"})
	case 4:
		return greet(wire.Hello{ID: string(text)})
	case 5:
		return control(wire.KindSubscribe, wire.Subscription{Since: wire.SinceAll})
	case 6:
		return control(wire.KindSubscribe, wire.Subscription{Again: true, Positions: map[string]wire.Sequence{string(text): 3}})
	case 7:
		return control(wire.KindUnsubscribe, nil)
	case 8:
		return artifact(wire.Header{Kind: wire.KindPublish, Flags: wire.FlagAck}, string(text), "fuzz")
	case 9:
		return artifact(wire.Header{Kind: wire.KindPublish, Flags: wire.FlagAck, Sequence: 9}, "orders.new", "fuzz")
	case 10:
		return artifact(wire.Header{Kind: wire.KindSend, Flags: wire.FlagRequest}, "$hub."+string(text), "fuzz")
	case 11:
		return artifact(wire.Header{Kind: wire.KindSend, Flags: wire.FlagAck}, string(text), "fuzz")
	case 12:
		return artifact(wire.Header{Kind: wire.KindReply}, "fuzz", "fuzz")
	case 13:
		return artifact(wire.Header{Kind: wire.KindSend}, "fuzz", "somebody else")
	case 14:
		return control(wire.KindRead, wire.Read{From: 1, Last: len(text)})
	case 15:
		return control(wire.KindFetch, wire.Fetch{})
	case 16:
		return control(wire.KindRenew, wire.Renew{Token: string(text)})
	case 17:
		return control(wire.KindReceived, nil)
	case 18:
		return wire.AppendFrame(nil, wire.Header{Kind: wire.KindRestore, Ref: ref, Sequence: 1}, text, nil, text)
	case 19:
		return control(wire.KindGoodbye, nil)
	case 20:
		return greet(wire.Hello{ID: "fuzz", Token: "tenant", Resumable: true, Attempt: 1})
	default:
		return text
	}
}
