package config

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
)

// What authentication may have at most.
const (
	MaxIssuers   = 16
	MaxAudiences = 16
	MaxURL       = 512 // bytes, of issuers and audiences
	MaxClaim     = 128 // bytes
)

// Authentication is how clients prove who they are. A client is who the first of
// these finds it to be. Empty: nobody is asked, and everybody may do everything.
type Authentication struct {
	// ServiceAccount takes the tokens that Kubernetes gives to pods.
	ServiceAccount *TokenIssuer `yaml:"serviceAccount,omitempty"`
	// OIDC takes the tokens of other issuers.
	OIDC []TokenIssuer `yaml:"oidc,omitempty"`
	// MutualTLS takes the certificates that clients show.
	MutualTLS *MutualTLS `yaml:"mutualTLS,omitempty"`
	// Static takes the tokens of a list.
	Static *Static `yaml:"static,omitempty"`
}

// IsZero reports whether nobody is asked who they are.
func (a Authentication) IsZero() bool {
	return a.ServiceAccount == nil && len(a.OIDC) == 0 && a.MutualTLS == nil && a.Static == nil
}

// TokenIssuer is whose tokens are taken.
type TokenIssuer struct {
	// Issuer is who makes the tokens: their claim "iss". Required, but for those of
	// ServiceAccounts where TokenReview is set: then all that no other issuer made are
	// shown to the API server.
	Issuer string `yaml:"issuer"`
	// Audiences are whom a token may be meant for; it names one of them. Required.
	Audiences []string `yaml:"audiences"`
	// KeysFile holds the issuer's public keys as a JSON Web Key Set. It is followed.
	// Empty: they are fetched from the issuer, as OpenID Connect Discovery says.
	KeysFile string `yaml:"keysFile,omitempty"`
	// CAFile holds the CA certificates, in PEM, by which the issuer is known when
	// keys are fetched. Empty: those of the system.
	CAFile string `yaml:"caFile,omitempty"`
	// NameClaim is the claim that is the client's name. Not for ServiceAccounts.
	NameClaim string `yaml:"nameClaim,omitempty"`
	// GroupsClaim is the claim that lists the client's groups. Likewise.
	GroupsClaim string `yaml:"groupsClaim,omitempty"`
	// TokenReview is whom to ask about tokens that the keys at hand can't judge. For
	// ServiceAccounts only. Nil: they are refused.
	TokenReview *TokenReview `yaml:"tokenReview,omitempty"`
}

// TokenReview is an API server of Kubernetes, and how to ask it whose a token is.
type TokenReview struct {
	// Server is its https address, without a path. Required.
	Server string `yaml:"server"`
	// CAFile holds the CA certificates, in PEM, by which it is known. It is read for
	// each question. Empty: those of the system.
	CAFile string `yaml:"caFile,omitempty"`
	// TokenFile holds the token that the node shows it. Likewise. Required.
	TokenFile string `yaml:"tokenFile"`
}

// MutualTLS says whose certificates are taken.
type MutualTLS struct {
	// CAFile holds the CA certificates, in PEM, that sign them. It is followed.
	CAFile string `yaml:"caFile"`
}

// Static says which tokens are taken.
type Static struct {
	// File lists them, a line each as htpasswd -nB writes it: NAME:HASH, or
	// NAME:HASH:GROUP,GROUP. A client's token is NAME:SECRET. The file is followed.
	File string `yaml:"file"`
}

// Authorization is what clients may do once they have proved who they are:
// what a rule allows, and nothing else.
type Authorization struct {
	Rules []Rule `yaml:"rules,omitempty"`
}

// IsZero reports whether there are no rules.
func (a Authorization) IsZero() bool { return len(a.Rules) == 0 }

// Rule allows the clients that it is for what its lists say. In these "{namespace}",
// "{serviceAccount}", "{name}" and "{id}" stand for the client's own; an element
// whose value the client lacks, or whose value would widen it, allows it nothing.
type Rule struct {
	// Name is what people know the rule by. Required.
	Name string `yaml:"name"`
	// When is a CEL expression over identity (method, name, namespace,
	// serviceAccount, groups, claims). Empty: the rule is for everybody who has
	// proved who they are.
	When string `yaml:"when,omitempty"`
	// Namespace is whose clients the rule is for. Empty: those of all, and of none.
	Namespace string `yaml:"namespace,omitempty"`
	// ConnectAs and SendTo are client ids, in which * stands for any characters.
	ConnectAs []string `yaml:"connectAs,omitempty"`
	SendTo    []string `yaml:"sendTo,omitempty"`
	// Publish, Subscribe and History are patterns of topics.
	Publish   []string `yaml:"publish,omitempty"`
	Subscribe []string `yaml:"subscribe,omitempty"`
	History   []string `yaml:"history,omitempty"`
	// Admin is what the client may ask of the hub itself. Empty: nothing.
	Admin AdminAccess `yaml:"admin,omitempty"`
}

// AdminAccess is what a client may ask of the hub itself.
type AdminAccess string

// What there is.
const (
	AdminView   AdminAccess = "View"   // lists of clients, topics and nodes, and who comes and goes
	AdminManage AdminAccess = "Manage" // that, and purging, restoring, deleting durable subscriptions
)

func (a Authentication) check(f *faults) {
	if a.ServiceAccount != nil {
		a.ServiceAccount.check(f, "authentication.serviceAccount")
		if a.ServiceAccount.NameClaim != "" || a.ServiceAccount.GroupsClaim != "" {
			f.add("authentication.serviceAccount", "must not name claims: a ServiceAccount's are known")
		}
	}
	if len(a.OIDC) > MaxIssuers {
		f.add("authentication.oidc", "must not have more than %d elements, has %d", MaxIssuers, len(a.OIDC))
		return
	}
	first := make(map[string]string) // path of each issuer
	if a.ServiceAccount != nil {
		first[a.ServiceAccount.Issuer] = "authentication.serviceAccount"
	}
	for i, t := range a.OIDC {
		path := fmt.Sprintf("authentication.oidc[%d]", i)
		if t.TokenReview != nil {
			f.add(path+".tokenReview", "must not be set: an API server knows the tokens of ServiceAccounts")
			t.TokenReview = nil // or it would be said to be wrong in more ways
		}
		t.check(f, path)
		if at, ok := first[t.Issuer]; ok {
			f.add(path+".issuer", "is the same as %s.issuer, which wins", at)
		} else {
			first[t.Issuer] = path
		}
	}
	if a.MutualTLS != nil {
		checkFile(f, "authentication.mutualTLS.caFile", a.MutualTLS.CAFile)
	}
	if a.Static != nil {
		checkFile(f, "authentication.static.file", a.Static.File)
	}
}

func (t TokenIssuer) check(f *faults, path string) {
	if t.TokenReview != nil {
		t.TokenReview.check(f, path+".tokenReview")
	}
	if t.Issuer == "" && t.TokenReview != nil {
		if t.KeysFile == "" {
			f.add(path+".keysFile", "is required without an issuer: there is nobody to fetch keys from")
		}
	} else if t.Issuer == "" || len(t.Issuer) > MaxURL {
		f.add(path+".issuer", "is required: who makes the tokens, such as https://accounts.example.com, in up to %d bytes", MaxURL)
	} else if u, err := url.Parse(t.Issuer); strings.Contains(t.Issuer, "@") && (err != nil || u.User != nil) {
		f.add(path+".issuer", "must not have a user or a password in it: what issuers are called is no secret, and is told")
	} else if t.KeysFile == "" && (err != nil || u.Scheme != "https" || u.Host == "") {
		f.add(path+".issuer", "must be an https address unless keysFile is set, is %.80q", t.Issuer)
	}
	if len(t.Audiences) == 0 || len(t.Audiences) > MaxAudiences {
		f.add(path+".audiences", "must have from 1 to %d elements, has %d", MaxAudiences, len(t.Audiences))
	} else {
		for i, a := range t.Audiences {
			if a == "" || len(a) > MaxURL {
				f.add(fmt.Sprintf("%s.audiences[%d]", path, i), "must have from 1 to %d bytes, has %d", MaxURL, len(a))
			}
		}
	}
	if t.KeysFile != "" {
		checkFile(f, path+".keysFile", t.KeysFile)
	}
	if t.CAFile != "" {
		checkFile(f, path+".caFile", t.CAFile)
		if t.KeysFile != "" {
			f.add(path+".caFile", "must not be set with keysFile: nothing is fetched")
		}
	}
	for _, claim := range []struct{ path, name string }{{".nameClaim", t.NameClaim}, {".groupsClaim", t.GroupsClaim}} {
		if len(claim.name) > MaxClaim {
			f.add(path+claim.path, "must not be longer than %d bytes, has %d", MaxClaim, len(claim.name))
		}
	}
}

func (t TokenReview) check(f *faults, path string) {
	u, err := url.Parse(t.Server)
	switch {
	case strings.Contains(t.Server, "@"):
		f.add(path+".server", "must not have a user or a password in it: tokenFile is by whom the node is known")
	case err != nil || len(t.Server) > MaxURL || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		f.add(path+".server", "must be an https address without a path, such as https://kubernetes.default.svc, is %.80q", t.Server)
	}
	if t.CAFile != "" {
		checkFile(f, path+".caFile", t.CAFile)
	}
	checkFile(f, path+".tokenFile", t.TokenFile)
}

func checkFile(f *faults, path, name string) {
	if !filepath.IsAbs(name) {
		f.add(path, "must be an absolute path, is %.80q", name)
	}
}
