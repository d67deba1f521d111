package hubnode

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"slices"

	"github.com/switchboardhub/switchboard/hubnode/admin"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/hubnode/mesh"
	"github.com/switchboardhub/switchboard/hubnode/server"
)

// openCertificate sees to it that there are the certificates that the settings need.
func (n *Node) openCertificate(cfg config.Config) error {
	if cfg.TLS.Clients != config.TLSDisabled {
		if err := n.certs.Open(); err != nil {
			return err
		}
	}
	if cfg.TLS.Cluster != config.TLSDisabled {
		if err := n.links.Open(); err != nil {
			return fmt.Errorf("tls.cluster: %w", err)
		}
	}
	return nil
}

// clusterTLS is how links to other nodes are encrypted now.
func (n *Node) clusterTLS() mesh.TLS {
	policy := n.Config().TLS.Cluster
	if policy == config.TLSDisabled {
		return mesh.TLS{}
	}
	return mesh.TLS{Accept: n.links.Config(), Dial: n.links.Dial(), Required: policy == config.TLSRequired}
}

// clusterRoots are the authorities by which nodes know each other, nil where they speak
// no TLS.
func (n *Node) clusterRoots() *x509.CertPool {
	if !n.speaksClusterTLS() {
		return nil
	}
	return n.links.Roots()
}

// speaksClusterTLS reports whether the cluster port takes TLS.
func (n *Node) speaksClusterTLS() bool { return n.Config().TLS.Cluster != config.TLSDisabled }

// followClusterTLS does what follows from a change of tls.cluster.
func (n *Node) followClusterTLS() {
	select {
	case <-n.running:
	default:
		return // Run begins with the settings that there are
	}
	n.cluster.SpeakTLS(n.speaksClusterTLS())
	if ended := n.mesh.EndPlain(); ended > 0 {
		n.log.Warn("links that are not encrypted are made again: tls.cluster is Required", slog.Int("links", ended))
	}
}

// clientTLS is how connections to the client port are encrypted now.
func (n *Node) clientTLS() server.TLS {
	secure, required := n.publicTLS()
	if secure != nil && n.admission.gate.TakesCertificates() {
		secure = askingForCertificates(secure)
	}
	return server.TLS{Config: secure, Required: required}
}

// webTLS is how connections to the HTTP port may be encrypted now: as those to the client
// port, but that nobody is asked for a certificate.
func (n *Node) webTLS() admin.TLS {
	secure, required := n.publicTLS()
	return admin.TLS{Config: secure, Required: required}
}

// publicTLS is what tls.clients says of both ports: nil where it is Disabled.
func (n *Node) publicTLS() (secure *tls.Config, required bool) {
	policy := n.Config().TLS.Clients
	if policy == config.TLSDisabled {
		return nil, false
	}
	return n.certs.Config(), policy == config.TLSRequired
}

// asked marks sessions of TLS that began when clients were asked for a certificate.
var asked = []byte("switchboard: asked for a certificate")

// askingForCertificates returns what connections are encrypted with whose clients are to
// show a certificate. It is verified behind the handshake, so that the client can be told.
func askingForCertificates(plain *tls.Config) *tls.Config {
	secure := plain.Clone()
	secure.ClientAuth = tls.RequestClientCert
	// A client that goes on with a session of before there was such a question would show
	// none, be refused, and come again with that session for as long as tickets hold.
	secure.WrapSession = func(c tls.ConnectionState, s *tls.SessionState) ([]byte, error) {
		s.Extra = append(s.Extra, asked)
		return plain.EncryptTicket(c, s)
	}
	secure.UnwrapSession = func(ticket []byte, c tls.ConnectionState) (*tls.SessionState, error) {
		s, err := plain.DecryptTicket(ticket, c)
		if s == nil || err != nil || !slices.ContainsFunc(s.Extra, func(e []byte) bool { return bytes.Equal(e, asked) }) {
			return nil, err
		}
		return s, nil
	}
	return secure
}

// endUnencrypted ends the connections that the settings no longer allow. They
// would be refused wherever they went, so there is no moving them.
func (n *Node) endUnencrypted() {
	if n.Config().TLS.Clients != config.TLSRequired {
		return
	}
	ended := 0
	for _, c := range n.hub.Clients() {
		if !c.Info().TLS {
			n.hub.Expel(c, server.ErrTLSRequired)
			ended++
		}
	}
	if ended > 0 {
		n.log.Warn("clients that are not encrypted were disconnected: tls.clients is Required", slog.Int("clients", ended))
	}
}
