package mesh

import (
	"fmt"
	"net"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

// hello is both halves of the handshake between nodes.
type hello struct {
	MinVersion  int    `json:"minVersion"`
	MaxVersion  int    `json:"maxVersion"`
	Hub         string `json:"hub"`
	Node        string `json:"node"`
	Incarnation uint64 `json:"incarnation"`
}

func (m *Mesh) hello() []byte {
	return wire.AppendControl(nil, wire.Header{Kind: wire.KindMesh}, "", hello{
		MinVersion: wire.Version, MaxVersion: wire.Version,
		Hub: m.cfg.Hub, Node: m.cfg.Self.Name, Incarnation: m.cfg.Self.Incarnation,
	})
}

// greet is the dialer's half.
func (m *Mesh) greet(conn net.Conn, r *wire.Reader, peer string) (hello, error) {
	_ = conn.SetDeadline(time.Now().Add(handshakeTime)) // a connection without deadlines fails at the next line
	if _, err := conn.Write(m.hello()); err != nil {
		return hello{}, err
	}
	got, err := m.receive(r)
	if err != nil {
		return hello{}, fmt.Errorf("greet node %q: %w", peer, err)
	}
	return got, conn.SetDeadline(time.Time{})
}

// answer is the accepter's half.
func (m *Mesh) answer(conn net.Conn, r *wire.Reader) (hello, error) {
	_ = conn.SetDeadline(time.Now().Add(handshakeTime)) // a connection without deadlines fails at the next line
	got, err := m.receive(r)
	if err != nil {
		fault := wire.FaultOf(err, wire.CodeMalformed)
		_, _ = conn.Write(wire.AppendControl(nil, wire.Header{Kind: wire.KindError}, "", fault)) // says why; the error is returned
		return hello{}, err
	}
	if _, err := conn.Write(m.hello()); err != nil {
		return hello{}, err
	}
	return got, conn.SetDeadline(time.Time{})
}

// receive reads the other side's hello and checks that it belongs here.
func (m *Mesh) receive(r *wire.Reader) (hello, error) {
	f, err := r.Next()
	if err != nil {
		return hello{}, err
	}
	var got hello
	switch f.Kind() {
	case wire.KindMesh:
	case wire.KindError:
		return hello{}, wire.ParseFault(f.Body()).Err()
	default:
		return hello{}, &wire.Error{Code: wire.CodeUnknownKind, Detail: "this port is for the hub's nodes: clients connect to the client port"}
	}
	if err := wire.DecodeControl(f, &got); err != nil {
		return hello{}, err
	}
	if _, err := wire.NegotiateVersion(got.MinVersion, got.MaxVersion); err != nil {
		return hello{}, err
	}
	switch {
	case got.Hub != m.cfg.Hub:
		return hello{}, &wire.Error{Code: wire.CodeInvalidRequest, Detail: "a node of another hub"}
	case got.Node == "" || got.Node == m.cfg.Self.Name:
		return hello{}, &wire.Error{Code: wire.CodeInvalidRequest, Detail: fmt.Sprintf("node name %.64q is not another node's", got.Node)}
	}
	return got, nil
}
