package hubnode

import (
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
	switch n.Config().TLS.Clients {
	case config.TLSOptional:
		return server.TLS{Config: n.certs.Config()}
	case config.TLSRequired:
		return server.TLS{Config: n.certs.Config(), Required: true}
	default:
		return server.TLS{}
	}
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
