package config

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/switchboardhub/switchboard/hubnode/filter"
	"github.com/switchboardhub/switchboard/hubnode/placement"
	"github.com/switchboardhub/switchboard/hubnode/topic"
)

// What a configuration may say at most. The Hub and Topic resources have the same
// bounds, so that the API server and not a node refuses what is beyond them; the
// operator sees to it that a Hub and its Topics have no more than MaxTopics.
const (
	MaxHub              = 255 // bytes; what a gossip label can hold
	MaxNode             = 253 // bytes
	MaxReplicas         = 99
	MaxTopics           = 8192
	MaxPeers            = 256
	MaxFilter           = 4096 // bytes
	MaxConflateKey      = 255  // bytes; what an attribute's name can have
	MaxArtifacts        = 1_000_000_000
	MaxClients          = 10_000_000
	MaxFailureThreshold = 100
	MaxShardReplicas    = 7
	MaxShards           = 256
	MaxRate             = 1_000_000_000

	MinArtifactSize Bytes = 1 << 10
	MaxArtifactSize Bytes = 16 << 20
	MaxPendingBytes Bytes = 64 << 30

	MaxBytesPerSecond Bytes = 1 << 40

	MinHistoryBytes Bytes = 1 << 10
	MaxHistoryBytes Bytes = 1 << 50

	MinMemory Bytes = 32 << 20
	MaxMemory Bytes = 1 << 50
)

// FieldError is one fault of a configuration.
type FieldError struct {
	Path   string // such as topics[0].history.maxAge
	Line   int    // in the file, of the field or what it is missing from; zero: not known
	Reason string
}

func (e *FieldError) Error() string {
	path := cmp.Or(e.Path, "the file")
	if e.Line > 0 {
		return fmt.Sprintf("line %d: %s: %s", e.Line, path, e.Reason)
	}
	return path + ": " + e.Reason
}

// Validate returns nil, or an error that joins a [*FieldError] for each rule
// that c violates. An empty Node is no violation: see [Config].
func (c Config) Validate() error { return joinFaults(c.check()) }

func joinFaults(faults []*FieldError) error {
	errs := make([]error, len(faults))
	for i, fault := range faults {
		errs[i] = fault
	}
	return errors.Join(errs...) // nil for none
}

// faults collects violations.
type faults []*FieldError

func (f *faults) add(path, format string, args ...any) {
	*f = append(*f, &FieldError{Path: path, Reason: fmt.Sprintf(format, args...)})
}

func (f *faults) notNegative(path string, d Duration) {
	if d < 0 {
		f.add(path, "must not be negative, is %v", d)
	}
}

func (f *faults) between(path string, n, low, high int) {
	if n < low || n > high {
		f.add(path, "must be from %d to %d, is %d", low, high, n)
	}
}

func (f *faults) sizeBetween(path string, n, low, high Bytes) {
	if n < low || n > high {
		f.add(path, "must be from %v to %v, is %v", low, high, n)
	}
}

func (f *faults) oneOf(path, s string, allowed ...string) {
	if !slices.Contains(allowed, s) {
		f.add(path, "must be one of %s, is %.40q", strings.Join(allowed, ", "), s)
	}
}

func (c Config) check() []*FieldError {
	var f faults
	c.checkIdentity(&f)
	c.Listen.check(&f)
	c.checkPeers(&f)
	c.TLS.check(&f)
	c.Authentication.check(&f)
	c.Authorization.check(&f)
	c.checkTenancy(&f)
	c.HealthCheck.check(&f)
	checkHistory(&f, "history", &c.History.MaxArtifacts, &c.History.MaxBytes, &c.History.MaxAge)
	c.checkTopics(&f)
	c.Storage.check(&f)
	f.notNegative("sessions.resumeWindow", c.Sessions.ResumeWindow)
	c.Limits.check(&f)
	f.notNegative("drain.timeout", c.Drain.Timeout)
	f.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	f.oneOf("log.format", c.Log.Format, "json", "text")
	return f
}

func (c Config) checkTenancy(f *faults) {
	f.oneOf("tenancy", string(c.Tenancy), string(TenancyNone), string(TenancyNamespace))
	if c.Tenancy == TenancyNamespace && c.Authentication.ServiceAccount == nil {
		f.add("tenancy", "must not be Namespace without authentication.serviceAccount: nobody would prove to be of one")
	}
	if c.Limits.PerNamespace.HistoryBytes != 0 && c.Tenancy != TenancyNamespace {
		f.add("limits.perNamespace", "must not be set without tenancy Namespace: topics are of no namespace then, and history.maxBytes bounds each")
	}
}

func (c Config) checkIdentity(f *faults) {
	if c.Hub == "" {
		f.add("hub", "is required: the identity of the hub, such as namespace/name/UID")
	} else if reason := wordFault(c.Hub, MaxHub); reason != "" {
		f.add("hub", "%s", reason)
	}
	if c.Node != "" {
		if reason := wordFault(c.Node, MaxNode); reason != "" {
			f.add("node", "%s", reason)
		} else if _, err := placement.Ordinal(c.Node); err != nil {
			f.add("node", "%v", err)
		}
	}
	f.between("replicas", c.Replicas, 0, MaxReplicas)
}

func (l *Listen) check(f *faults) {
	used := make(map[string]string) // address to path
	for _, a := range []struct{ path, address string }{
		{"listen.client", l.Client},
		{"listen.cluster", l.Cluster},
		{"listen.gossip", l.Gossip},
		{"listen.http", l.HTTP},
	} {
		_, port, reason := splitAddress(a.address)
		switch {
		case reason != "":
			f.add(a.path, "%s", reason)
		case port == 0: // any that is free: never the same twice
		case used[a.address] != "":
			f.add(a.path, "is %q, as %s", a.address, used[a.address])
		default:
			used[a.address] = a.path
		}
	}
}

func (c Config) checkPeers(f *faults) {
	if c.Advertise != "" {
		if reason := hostFault(c.Advertise); reason != "" {
			f.add("advertise", "%s", reason)
		}
	}
	if len(c.Peers) > MaxPeers {
		f.add("peers", "must not have more than %d elements, has %d", MaxPeers, len(c.Peers))
		return
	}
	for i, peer := range c.Peers {
		path := fmt.Sprintf("peers[%d]", i)
		host, port, reason := splitAddress(peer)
		switch {
		case reason != "":
			f.add(path, "%s", reason)
		case port == 0:
			f.add(path, "must have a port above 0, is %.80q", peer)
		default:
			if reason := hostFault(host); reason != "" {
				f.add(path, "%s", reason)
			}
		}
	}
}

func (t TLS) check(f *faults) {
	f.oneOf("tls.clients", string(t.Clients), string(TLSDisabled), string(TLSOptional), string(TLSRequired))
	if !filepath.IsAbs(t.Directory) {
		f.add("tls.directory", "must be an absolute path, is %.80q", t.Directory)
	}
	f.oneOf("tls.cluster", string(t.Cluster), string(TLSDisabled), string(TLSOptional), string(TLSRequired))
	if !filepath.IsAbs(t.ClusterDirectory) {
		f.add("tls.clusterDirectory", "must be an absolute path, is %.80q", t.ClusterDirectory)
	}
}

func (h *HealthCheck) check(f *faults) {
	f.notNegative("healthCheck.interval", h.Interval)
	switch {
	case h.Interval <= 0: // off, or a fault already
	case h.Timeout <= 0:
		f.add("healthCheck.timeout", "must be above zero, is %v", h.Timeout)
	case h.Timeout > h.Interval:
		f.add("healthCheck.timeout", "must not be longer than healthCheck.interval, which is %v, is %v", h.Interval, h.Timeout)
	}
	f.between("healthCheck.failureThreshold", h.FailureThreshold, 1, MaxFailureThreshold)
}

func (c Config) checkTopics(f *faults) {
	if len(c.Topics) > MaxTopics {
		f.add("topics", "must not have more than %d elements, has %d", MaxTopics, len(c.Topics))
		return
	}
	first := make(map[string]int) // place of each pattern
	for i, t := range c.Topics {
		path := fmt.Sprintf("topics[%d]", i)
		if t.Pattern == "" {
			f.add(path+".pattern", "is required")
		} else if err := topic.CheckPattern(t.Pattern); err != nil {
			f.add(path+".pattern", "%v", err)
		} else if at, ok := first[t.Pattern]; ok {
			f.add(path+".pattern", "is %q, as topics[%d], which wins", t.Pattern, at)
		} else {
			first[t.Pattern] = i
		}
		t.check(f, path)
	}
}

// Validate returns nil, or an error that joins a [*FieldError] for each rule that
// t violates, with a path below t: what a configuration that has t would say.
func (t Topic) Validate() error {
	var f faults
	if err := topic.CheckPattern(t.Pattern); err != nil {
		f.add("pattern", "%v", err)
	}
	t.check(&f, "")
	return joinFaults(f)
}

// check checks all but the pattern.
func (t Topic) check(f *faults, path string) {
	if h := t.History; h != nil {
		checkHistory(f, join(path, "history"), h.MaxArtifacts, h.MaxBytes, h.MaxAge)
	}
	if len(t.Filter) > MaxFilter {
		f.add(join(path, "filter"), "must not be longer than %d bytes, has %d", MaxFilter, len(t.Filter))
	} else if t.Filter != "" {
		// Compiled here and not first by a node, so that the operator
		// refuses what would keep nodes from starting.
		if _, err := filter.Compile(t.Filter); err != nil {
			f.add(join(path, "filter"), "%v", err)
		}
	}
}

func (s Storage) check(f *faults) {
	if s.Dir != "" && !filepath.IsAbs(s.Dir) {
		f.add("storage.dir", "must be an absolute path, is %.80q", s.Dir)
	}
	f.oneOf("storage.sync", string(s.Sync), string(SyncAlways), string(SyncInterval))
	if s.SyncInterval <= 0 {
		f.add("storage.syncInterval", "must be above zero, is %v", s.SyncInterval)
	}
	f.between("storage.replicas", s.Replicas, 1, MaxShardReplicas)
	f.between("storage.shards", s.Shards, 1, MaxShards)
}

// checkHistory checks the fields that are there.
func checkHistory(f *faults, path string, artifacts *int, bytes *Bytes, age *Duration) {
	if artifacts != nil {
		f.between(path+".maxArtifacts", *artifacts, 0, MaxArtifacts)
	}
	if bytes != nil && *bytes < 0 {
		f.add(path+".maxBytes", "must not be negative, is %v", *bytes)
	}
	if age != nil {
		f.notNegative(path+".maxAge", *age)
	}
}

func (l *Limits) check(f *faults) {
	f.between("limits.maxClients", l.MaxClients, 1, MaxClients)
	f.sizeBetween("limits.maxArtifactSize", l.MaxArtifactSize, MinArtifactSize, MaxArtifactSize)
	f.sizeBetween("limits.maxPendingBytes", l.MaxPendingBytes, MinArtifactSize, MaxPendingBytes)
	if l.MaxPendingBytes >= MinArtifactSize && l.MaxPendingBytes < l.MaxArtifactSize {
		f.add("limits.maxPendingBytes", "must not be below limits.maxArtifactSize, which is %v, is %v: one artifact has to fit", l.MaxArtifactSize, l.MaxPendingBytes)
	}
	f.oneOf("limits.slowClientPolicy", string(l.SlowClientPolicy), string(Disconnect), string(DropOldest), string(DropNewest), string(Conflate))
	if l.MaxMemory != 0 {
		f.sizeBetween("limits.maxMemory", l.MaxMemory, MinMemory, MaxMemory)
	}
	f.between("limits.connectionsPerSecond", l.ConnectionsPerSecond, 0, MaxRate)
	f.between("limits.perIdentity.clients", l.PerIdentity.Clients, 0, MaxRate)
	f.between("limits.perIdentity.subscriptions", l.PerIdentity.Subscriptions, 0, MaxRate)
	f.between("limits.perIdentity.artifactsPerSecond", l.PerIdentity.ArtifactsPerSecond, 0, MaxRate)
	f.between("limits.perAddress.connections", l.PerAddress.Connections, 0, MaxRate)
	f.between("limits.perAddress.connectionsPerSecond", l.PerAddress.ConnectionsPerSecond, 0, MaxRate)
	f.sizeBetween("limits.perIdentity.bytesPerSecond", l.PerIdentity.BytesPerSecond, 0, MaxBytesPerSecond)
	if l.PerNamespace.HistoryBytes != 0 {
		f.sizeBetween("limits.perNamespace.historyBytes", l.PerNamespace.HistoryBytes, MinHistoryBytes, MaxHistoryBytes)
	}
	if n := len(l.ConflateKey); n < 1 || n > MaxConflateKey {
		f.add("limits.conflateKey", "must have from 1 to %d bytes, has %d", MaxConflateKey, n)
	}
}

// wordFault returns what is wrong with an identity; empty when it is right.
func wordFault(s string, limit int) string {
	switch {
	case len(s) > limit:
		return fmt.Sprintf("must not be longer than %d bytes, has %d", limit, len(s))
	case !utf8.ValidString(s):
		return fmt.Sprintf("must be UTF-8, is %.80q", s)
	case strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
		return fmt.Sprintf("must be without white space and control characters, is %.80q", s)
	}
	return ""
}

// splitAddress splits host:port and returns what is wrong with it, if
// anything.
func splitAddress(address string) (host string, port uint64, reason string) {
	host, digits, err := net.SplitHostPort(address)
	if err == nil {
		port, err = strconv.ParseUint(digits, 10, 16)
	}
	if err == nil && host != "" && hostFault(host) != "" && !isUnspecified(host) {
		err = errors.New("no host")
	}
	if err != nil {
		return "", 0, fmt.Sprintf("must be host:port with a port up to 65535, is %.80q", address)
	}
	return host, port, ""
}

// hostFault returns what is wrong with a host that somebody has to reach.
func hostFault(host string) string {
	if isUnspecified(host) {
		return fmt.Sprintf("must be an address that others can reach, is %q", host)
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return ""
	}
	if host == "" || len(host) > 253 || strings.Trim(host, "-.") == "" || strings.ContainsFunc(host, func(r rune) bool {
		return r != '-' && r != '.' && r != '_' && (r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r))
	}) {
		return fmt.Sprintf("must be an IP address or a DNS name without a port, is %.80q", host)
	}
	return ""
}

func isUnspecified(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsUnspecified()
}
