package config

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
	// Issuer is who makes the tokens: their claim "iss". Required.
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
}

// MutualTLS says whose certificates are taken.
type MutualTLS struct {
	// CAFile holds the CA certificates, in PEM, that sign them. It is followed.
	CAFile string `yaml:"caFile"`
}

// Static says which tokens are taken.
type Static struct {
	// File lists them, a line each: a name, the bcrypt hash of the token, and the
	// groups, if any, joined by commas; separated by white space. It is followed.
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
