package hubnode

import (
	"errors"
	"fmt"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/hubnode/server"
	"github.com/switchboardhub/switchboard/hubnode/strangers"
	"github.com/switchboardhub/switchboard/wire"
)

// settingsOf returns the hub's part of a config. The error names every filter
// that can't be compiled.
func settingsOf(cfg config.Config, compile func(string) (hub.Filter, error)) (hub.Settings, error) {
	s := hub.Settings{
		MaxClients:   cfg.Limits.MaxClients,
		MaxArtifact:  int(cfg.Limits.MaxArtifactSize),
		PendingBytes: pendingBytes(cfg.Limits),
		SlowClient:   hub.Policy(cfg.Limits.SlowClientPolicy),
		ConflateKey:  cfg.Limits.ConflateKey,
		HealthCheck: hub.HealthCheck{
			Interval: time.Duration(cfg.HealthCheck.Interval),
			Timeout:  time.Duration(cfg.HealthCheck.Timeout),
			Failures: cfg.HealthCheck.FailureThreshold,
		},
		ResumeWindow: time.Duration(cfg.Sessions.ResumeWindow),
		PerIdentity: hub.Quota{
			Clients: cfg.Limits.PerIdentity.Clients, Subscriptions: cfg.Limits.PerIdentity.Subscriptions,
			ArtifactsPerSecond: cfg.Limits.PerIdentity.ArtifactsPerSecond, BytesPerSecond: int(cfg.Limits.PerIdentity.BytesPerSecond),
		},
		History: limitsOf(cfg.History),
	}
	var errs []error
	for i, t := range cfg.Topics {
		topic := hub.Topic{Pattern: t.Pattern, History: limitsOf(cfg.History.With(t.History))}
		if t.Filter != "" {
			f, err := compile(t.Filter)
			if err != nil {
				errs = append(errs, fmt.Errorf("topics[%d].filter: %w", i, err))
			}
			topic.Filter = f
		}
		s.Topics = append(s.Topics, topic)
	}
	return s, errors.Join(errs...)
}

// pendingBytes is how much may wait for a client. One frame always has to fit, whatever else
// waits.
func pendingBytes(limits config.Limits) int {
	return max(int(limits.MaxPendingBytes), wire.MaxFrame(int(limits.MaxArtifactSize)))
}

func limitsOf(h config.History) history.Limits {
	return history.Limits{MaxArtifacts: h.MaxArtifacts, MaxBytes: int64(h.MaxBytes), MaxAge: time.Duration(h.MaxAge)}
}

// limits are what the node announces to a client that connects now.
func (n *Node) limits() server.Limits {
	cfg := n.Config()
	check := cfg.HealthCheck
	return server.Limits{
		MaxArtifact:  int(cfg.Limits.MaxArtifactSize),
		MaxSubscribe: min(wire.MaxSubscribe, pendingBytes(cfg.Limits)), // its Ack names as much
		PingInterval: time.Duration(check.Interval),
		PingTimeout:  time.Duration(check.Interval) + time.Duration(check.Timeout)*time.Duration(check.FailureThreshold),
	}
}

// perSecond is how many connections are taken in a second now.
func (n *Node) perSecond() int { return n.Config().Limits.ConnectionsPerSecond }

// perAddress is what is taken from one address now.
func (n *Node) perAddress() strangers.PerAddress {
	q := n.Config().Limits.PerAddress
	return strangers.PerAddress{Connections: q.Connections, ConnectionsPerSecond: q.ConnectionsPerSecond}
}
