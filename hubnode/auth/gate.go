package auth

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"path/filepath"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/hubnode/follow"
)

// Gate finds out who clients are, by the methods of its settings. Its methods are
// safe for concurrent use, but for Run, which runs once.
type Gate struct {
	log     *slog.Logger
	now     func() time.Time
	changed func() // who was let in may not be let in any more

	operator *operatorTrust // nil: its proofs are no good here
	reviews  *reviews       // for all settings: its limits are the node's

	methods atomic.Pointer[methods]
	renewed chan struct{} // has a value when methods was replaced

	mu   sync.Mutex        // guards told; is held while files are read
	told map[string]string // the last trouble with each file that was logged
}

// methods are the ways to prove who one is.
type methods struct {
	config  config.Authentication
	issuers []*issuer
	certs   *authorities
	static  *staticTokens
	files   []named
}

// file is one that is followed.
type file interface {
	// reread takes over what the file says; the error says why it can't.
	reread() error
}

// named is a file and where it is.
type named struct {
	file
	path string
}

// Credentials are what a client shows. The connection has proved that it has the key
// of the first certificate.
type Credentials struct {
	Token        string
	Certificates []*x509.Certificate
	// From is the address that they come from: who guesses there is not to hold up others.
	From string
}

// New returns a gate that lets everybody in before Configure. changed is called, by
// Configure and Run, when clients that were let in may have to go: look at Holds.
func New(log *slog.Logger, changed func()) *Gate {
	g := &Gate{log: log, now: time.Now, changed: changed, renewed: make(chan struct{}, 1), told: make(map[string]string)}
	g.reviews = newReviews(log, g.now)
	g.methods.Store(&methods{})
	return g
}

// Configure replaces the settings, which must be valid. A file that can't be used is
// logged, and nobody is let in by it until it is mended.
func (g *Gate) Configure(c config.Authentication) {
	if old := g.methods.Load(); reflect.DeepEqual(old.config, c) {
		return
	}
	m := &methods{config: c}
	add := func(method Method, t config.TokenIssuer) {
		i := &issuer{method: method, config: t}
		if t.KeysFile != "" {
			k := &fileKeys{path: t.KeysFile}
			i.keys = k
			m.follow(k, t.KeysFile)
		} else {
			i.keys = &fetchedKeys{issuer: t.Issuer, caFile: t.CAFile, now: g.now}
		}
		if t.TokenReview != nil {
			i.reviews = g.reviews
		}
		m.issuers = append(m.issuers, i)
	}
	if c.ServiceAccount != nil {
		add(ServiceAccount, *c.ServiceAccount)
	}
	for _, t := range c.OIDC {
		add(OIDC, t)
	}
	if c.MutualTLS != nil {
		m.certs = &authorities{path: c.MutualTLS.CAFile}
		m.follow(m.certs, c.MutualTLS.CAFile)
	}
	if c.Static != nil {
		m.static = newStatic(c.Static.File)
		m.follow(m.static, c.Static.File)
	}
	g.reread(m, "")
	g.methods.Store(m)
	select {
	case g.renewed <- struct{}{}:
	default:
	}
	g.changed()
}

// On reports whether clients have to prove who they are.
func (g *Gate) On() bool { return !g.methods.Load().config.IsZero() }

// TakesCertificates reports whether a certificate proves who a client is.
func (g *Gate) TakesCertificates() bool { return g.methods.Load().certs != nil }

// Identify returns who a client is. A token counts before a certificate. The error says
// why it can't be told, without anything secret; it is a *wire.Error when the same token may
// be taken later. ctx bounds the wait for an issuer's keys
// and for others whose tokens are checked.
func (g *Gate) Identify(ctx context.Context, c Credentials) (Identity, error) {
	m := g.methods.Load()
	switch {
	case len(c.Token) > maxToken:
		return Identity{}, errors.New("the token is too long")
	case looksLikeJWT(c.Token):
		s, err := parseToken(c.Token)
		switch {
		case err == nil && s.typ == proofType && g.operator != nil:
			return g.operator.identify(s, g.now())
		case len(m.issuers) > 0 && err != nil:
			return Identity{}, err
		case len(m.issuers) > 0:
			return m.identifyToken(ctx, c.From, s, g.now())
		}
	}
	switch {
	case c.Token != "" && m.static != nil:
		return m.static.identify(ctx, c.From, c.Token)
	case c.Token != "":
		return Identity{}, errors.New("this hub takes no token of this kind")
	case len(c.Certificates) > 0 && m.certs != nil:
		return m.certs.identify(c.Certificates, g.now())
	case m.certs != nil && len(m.issuers) == 0 && m.static == nil:
		return Identity{}, errors.New("a client certificate is needed")
	}
	return Identity{}, errors.New("a token is needed (client.WithTokenFile, hubctl --token-file)")
}

func (m *methods) identifyToken(ctx context.Context, from string, s signed, now time.Time) (Identity, error) {
	i := m.issuerOf(s.iss)
	if i == nil {
		return Identity{}, errors.New("the token is by an issuer that this hub does not know")
	}
	return i.identify(ctx, from, s, now)
}

// issuerOf returns whose tokens name iss: who is called that, and else one that is not
// known by name.
func (m *methods) issuerOf(iss string) *issuer {
	var unnamed *issuer
	for _, i := range m.issuers {
		switch i.config.Issuer {
		case iss:
			return i
		case "":
			unnamed = i
		}
	}
	return unnamed
}

// Holds reports whether an identity would still be let in, as far as the settings and the
// list of static tokens say. What a signature proved holds until it expires, or its issuer
// is not one of the settings' any more.
func (g *Gate) Holds(id *Identity) bool {
	m := g.methods.Load()
	switch id.Method {
	case ServiceAccount, OIDC:
		iss, _ := id.Claims["iss"].(string)
		i := m.issuerOf(iss)
		return i != nil && i.method == id.Method
	case MutualTLS:
		return m.certs != nil
	case Static:
		return m.static != nil && m.static.holds(id)
	case Operator:
		return g.operator != nil
	}
	return false
}

// Run follows the files of the settings until ctx ends.
func (g *Gate) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		m := g.methods.Load()
		following, stop := context.WithCancel(ctx)
		var followers sync.WaitGroup
		for folder := range m.folders() {
			followers.Go(func() {
				follow.Always(following, folder, func() {
					if g.reread(m, folder) {
						g.changed()
					}
				}, func(err error) { g.trouble(folder, err) })
			})
		}
		select {
		case <-g.renewed:
		case <-ctx.Done():
		}
		stop()
		followers.Wait()
	}
	return nil
}

func (m *methods) follow(f file, path string) {
	m.files = append(m.files, named{f, path})
}

func (m *methods) folders() map[string]struct{} {
	all := make(map[string]struct{})
	for _, f := range m.files {
		all[f.folder()] = struct{}{}
	}
	return all
}

func (f named) folder() string { return filepath.Dir(f.path) }

// reread reads the files of a folder, or of all when it is empty. It reports whether one
// of them could be read.
func (g *Gate) reread(m *methods, folder string) (read bool) {
	for _, f := range m.files {
		if folder != "" && f.folder() != folder {
			continue
		}
		if err := f.reread(); err != nil {
			g.trouble(f.path, err)
			continue
		}
		read = true
		g.mu.Lock()
		delete(g.told, f.path)
		g.mu.Unlock()
	}
	return read
}

// trouble logs what is wrong with a file when that is new.
func (g *Gate) trouble(path string, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if text := err.Error(); g.told[path] != text {
		g.told[path] = text
		g.log.Error("a file for authentication can't be used: what it said before stays", slog.String("file", path), slog.Any("error", err))
	}
}
