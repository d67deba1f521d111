package mesh

import (
	"fmt"
	"net"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

// The versions of the protocol between nodes. This node speaks those from
// wire.Version to VersionBundles; a link has the highest that both its ends speak.
const (
	// VersionBundles is the first whose nodes take wire.KindBundle.
	VersionBundles = wire.Version + 1

	versionMin, versionMax = wire.Version, VersionBundles
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
		MinVersion: versionMin, MaxVersion: versionMax,
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
	switch {
	case got.MinVersion > versionMax || got.MaxVersion < max(got.MinVersion, versionMin):
		return hello{}, &wire.Error{Code: wire.CodeUnsupportedVersion, Detail: fmt.Sprintf("the other node speaks versions %d to %d of the protocol between nodes, this one %d to %d", got.MinVersion, got.MaxVersion, versionMin, versionMax)}
	case got.Hub != m.cfg.Hub:
		return hello{}, &wire.Error{Code: wire.CodeInvalidRequest, Detail: "a node of another hub"}
	case got.Node == "" || got.Node == m.cfg.Self.Name:
		return hello{}, &wire.Error{Code: wire.CodeInvalidRequest, Detail: fmt.Sprintf("node name %.64q is not another node's", got.Node)}
	}
	return got, nil
}

// version returns the highest one that both speak, of a hello that was accepted.
func (h hello) version() int { return min(h.MaxVersion, versionMax) }
