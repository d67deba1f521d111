package hub

import (
	"errors"
	"fmt"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/hubnode/topic"
	"github.com/switchboardhub/switchboard/wire"
)

// Broadcast is the topic that every client hears unless it opts out.
const Broadcast = "broadcast"

// Filter reports whether an artifact may pass. It must be safe for concurrent
// use and quick: it runs on the path of messages.
type Filter func(*wire.Artifact) bool

// Policy says what happens to a client whose queue is full. On a topic with
// history a client falls back to reading from history instead.
type Policy string

// The policies.
const (
	Disconnect Policy = "Disconnect" // it is removed with a SlowClientError
	DropOldest Policy = "DropOldest" // what waits longest is dropped, and the client told
	DropNewest Policy = "DropNewest" // what comes is dropped, and the client told
	// Conflate drops what waits and has been followed by an artifact with the
	// same value of a key attribute, from the same topic or, sent directly,
	// the same sender. Where that is not enough, and for artifacts without
	// that attribute, it is DropOldest.
	Conflate Policy = "Conflate"
)

// Settings are what may change while a hub runs.
type Settings struct {
	// MaxClients bounds the registered clients. 0: 100,000.
	MaxClients int
	// MaxArtifact bounds content type, attributes and payload of one
	// artifact, in bytes. 0: wire.DefaultMaxArtifact.
	MaxArtifact int
	// PendingBytes bounds what waits for one client. 0: 16 MiB.
	PendingBytes int
	// SlowClient applies when PendingBytes are reached. Empty: Disconnect.
	SlowClient Policy
	// ConflateKey is the attribute that Conflate goes by. Empty: "key".
	ConflateKey string
	// HealthCheck is off while its Interval is 0.
	HealthCheck HealthCheck
	// ResumeWindow is how long the session of a client that asks for it waits
	// when its connection is lost. 0: sessions end with their connections.
	ResumeWindow time.Duration
	// PerIdentity bounds what the clients of one identity have together.
	PerIdentity Quota
	// History is what topics keep that no element of Topics matches.
	History history.Limits
	// Topics have rules of their own; the first whose pattern matches wins.
	Topics []Topic

	byPattern *topic.Index[int] // places in Topics; made by withDefaults
}

// HealthCheck says when a silent client is asked for a sign of life, and when
// it is given up: Interval + Timeout × Failures without one are never exceeded.
// It is asked somewhat before the Interval is over.
type HealthCheck struct {
	Interval time.Duration
	Timeout  time.Duration // for each ping; 0: half of Interval
	Failures int           // unanswered pings; 0: 3
}

// Topic is what holds for the topics that match Pattern.
type Topic struct {
	Pattern string
	History history.Limits
	Filter  Filter // nil: everything may be published

	only part
}

// part says what a Topic speaks of.
type part uint8

const (
	wholeTopic  part = iota
	historyOnly      // its filter is that of the next match
	filterOnly       // its history is that of the next match
)

func (s Settings) withDefaults() Settings {
	if s.MaxClients == 0 {
		s.MaxClients = 100_000
	}
	if s.MaxArtifact == 0 {
		s.MaxArtifact = wire.DefaultMaxArtifact
	}
	if s.PendingBytes == 0 {
		s.PendingBytes = 16 << 20
	}
	if s.SlowClient == "" {
		s.SlowClient = Disconnect
	}
	if s.ConflateKey == "" {
		s.ConflateKey = "key"
	}
	if s.HealthCheck.Timeout == 0 {
		s.HealthCheck.Timeout = s.HealthCheck.Interval / 2
	}
	if s.HealthCheck.Failures == 0 {
		s.HealthCheck.Failures = 3
	}
	s.byPattern = topic.NewIndex[int]()
	for i := range s.Topics {
		s.byPattern.Add(s.Topics[i].Pattern, i)
	}
	return s
}

func (s Settings) validate() error {
	var errs []error
	for name, n := range map[string]int{"MaxClients": s.MaxClients, "MaxArtifact": s.MaxArtifact, "PendingBytes": s.PendingBytes, "HealthCheck.Failures": s.HealthCheck.Failures} {
		if n < 0 {
			errs = append(errs, fmt.Errorf("%s is negative: %d", name, n))
		}
	}
	if s.HealthCheck.Interval < 0 || s.HealthCheck.Timeout < 0 {
		errs = append(errs, errors.New("HealthCheck has a negative duration"))
	}
	switch s.SlowClient {
	case Disconnect, DropOldest, DropNewest, Conflate, "":
	default:
		errs = append(errs, fmt.Errorf("SlowClient is %q: use Disconnect, DropOldest, DropNewest or Conflate", s.SlowClient))
	}
	if len(s.ConflateKey) > wire.MaxAttributeKey {
		errs = append(errs, fmt.Errorf("ConflateKey has %d bytes, no attribute's name has more than %d", len(s.ConflateKey), wire.MaxAttributeKey))
	}
	errs = append(errs, s.PerIdentity.validate())
	for _, t := range s.Topics {
		errs = append(errs, topic.CheckPattern(t.Pattern))
	}
	return errors.Join(errs...)
}

// rule returns what holds for a topic.
func (s Settings) rule(name string) (history.Limits, Filter) {
	limitsAt, filterAt := len(s.Topics), len(s.Topics)
	s.byPattern.Match(name, func(i int) {
		if s.Topics[i].only != filterOnly {
			limitsAt = min(limitsAt, i)
		}
		if s.Topics[i].only != historyOnly {
			filterAt = min(filterAt, i)
		}
	})
	limits := s.History
	if limitsAt < len(s.Topics) {
		limits = s.Topics[limitsAt].History
	}
	var filter Filter
	if filterAt < len(s.Topics) {
		filter = s.Topics[filterAt].Filter
	}
	return limits, filter
}

// mayKeep reports whether a pattern can match a topic that keeps history.
func (s Settings) mayKeep(pattern string) bool {
	keeps := s.History.MaxArtifacts > 0
	s.byPattern.Overlap(pattern, func(i int) { keeps = keeps || s.Topics[i].History.MaxArtifacts > 0 })
	return keeps
}
