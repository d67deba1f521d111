package hubnode

import (
	"crypto/tls"
	"log/slog"

	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/hubnode/server"
)

// openCertificate sees to it that there is a certificate when the settings need
// one.
func (n *Node) openCertificate(cfg config.Config) error {
	if cfg.TLS.Clients == config.TLSDisabled {
		return nil
	}
	return n.certs.Open()
}

// clientTLS is how connections to the client port are encrypted now.
func (n *Node) clientTLS() server.TLS {
	policy := n.Config().TLS.Clients
	if policy == config.TLSDisabled {
		return server.TLS{}
	}
	secure := n.certs.Config()
	if n.admission.gate.TakesCertificates() {
		// It is verified behind the handshake, so that the client can be told.
		secure = secure.Clone()
		secure.ClientAuth = tls.RequestClientCert
	}
	return server.TLS{Config: secure, Required: policy == config.TLSRequired}
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
