package v1alpha1

// AuthenticationSpec is how clients prove who they are. Several ways may be given: a
// client is who the first of them finds it to be. Nodes take over changes without a
// restart, but for which Secrets and ConfigMaps they read.
//
// +kubebuilder:validation:XValidation:rule="has(self.serviceAccount) || has(self.mutualTLS) || has(self.static) || (has(self.oidc) && size(self.oidc) > 0)",message="must have at least one of serviceAccount, oidc, mutualTLS and static"
type AuthenticationSpec struct {
	// serviceAccount takes tokens of this cluster's ServiceAccounts, which pods get
	// from a projected volume. The operator gives nodes the cluster's public keys.
	// +optional
	ServiceAccount *ServiceAccountAuthentication `json:"serviceAccount,omitempty"`

	// oidc takes tokens of other issuers, whose keys nodes fetch as OpenID Connect
	// Discovery says.
	// +kubebuilder:validation:MaxItems=8
	// +listType=map
	// +listMapKey=issuer
	// +optional
	OIDC []OIDCAuthentication `json:"oidc,omitempty"`

	// mutualTLS takes certificates of clients. It needs spec.tls.clients.
	// +optional
	MutualTLS *MutualTLSAuthentication `json:"mutualTLS,omitempty"`

	// static takes the tokens of a list.
	// +optional
	Static *StaticAuthentication `json:"static,omitempty"`
}

// ServiceAccountAuthentication says for whom tokens of ServiceAccounts have to be made.
type ServiceAccountAuthentication struct {
	// audience that a token has to be for. Absent: NAME.NAMESPACE.switchboard.dev, with
	// the Hub's name and namespace; status.audience says it. One that several hubs
	// share lets each of them use its clients' tokens on the others.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule=`!self.matches(r'[\p{Z}\p{Cc}]')`,message="must be without white space and control characters"
	// +optional
	Audience string `json:"audience,omitempty"`

	// tokenReview is when nodes ask the API server whose a token is. Never, as where it is
	// absent: they have no access to it. Fallback: when the cluster's keys are missing, or
	// lack the one that a token names; nodes' pods then have a token for the API server.
	// An administrator has to let them ask: kubectl create clusterrolebinding NAME
	// --clusterrole=system:auth-delegator --serviceaccount=NAMESPACE:HUB-node. The
	// operator, which may not, does not. A change replaces the nodes one by one.
	// +optional
	TokenReview TokenReview `json:"tokenReview,omitempty"`
}

// TokenReview is when nodes ask the API server whose a token is.
//
// +kubebuilder:validation:Enum=Never;Fallback
type TokenReview string

// When nodes ask.
const (
	TokenReviewNever    TokenReview = "Never"
	TokenReviewFallback TokenReview = "Fallback"
)

// OIDCAuthentication is an issuer of tokens.
//
// +kubebuilder:validation:XValidation:rule="!has(self.caSecretName) || !has(self.caConfigMapName)",message="must not be given together with caConfigMapName",fieldPath=".caSecretName"
type OIDCAuthentication struct {
	// issuer is the URL of who makes the tokens, as in their claim iss.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="isURL(self) && url(self).getScheme() == 'https' && !self.contains('@') && !self.contains('?') && !self.contains('#')",message="must be an https URL without user, query and fragment, such as https://login.example.com"
	// +required
	Issuer string `json:"issuer"`

	// audiences of which a token has to be for one.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +listType=set
	// +required
	Audiences []string `json:"audiences"`

	// nameClaim is the claim that is the client's name.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="size(bytes(self)) <= 128",message="must have at most 128 bytes"
	// +kubebuilder:default=sub
	// +optional
	NameClaim string `json:"nameClaim,omitempty"`

	// groupsClaim is the claim that lists the client's groups.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="size(bytes(self)) <= 128",message="must have at most 128 bytes"
	// +kubebuilder:default=groups
	// +optional
	GroupsClaim string `json:"groupsClaim,omitempty"`

	// caSecretName is a Secret in the Hub's namespace that has, in ca.crt, the
	// certificates of the authorities by which nodes know the issuer. Absent, and
	// without caConfigMapName: those of the system.
	// +optional
	CASecretName ObjectName `json:"caSecretName,omitempty"`

	// caConfigMapName is a ConfigMap in place of that Secret.
	// +optional
	CAConfigMapName ObjectName `json:"caConfigMapName,omitempty"`
}

// MutualTLSAuthentication says whose certificates are taken.
//
// +kubebuilder:validation:XValidation:rule="has(self.secretName) != has(self.configMapName)",message="must have one of secretName and configMapName"
type MutualTLSAuthentication struct {
	// secretName is a Secret in the Hub's namespace that has, in ca.crt, the certificates
	// of the authorities that sign those of clients.
	// +optional
	SecretName ObjectName `json:"secretName,omitempty"`

	// configMapName is a ConfigMap in place of that Secret.
	// +optional
	ConfigMapName ObjectName `json:"configMapName,omitempty"`
}

// StaticAuthentication says where the list of tokens is.
type StaticAuthentication struct {
	// secretName is a Secret in the Hub's namespace with the list: a line for each token,
	// NAME:HASH as htpasswd -nB writes it, or NAME:HASH:GROUP,GROUP. A client's token is
	// NAME:SECRET.
	// +required
	SecretName ObjectName `json:"secretName"`

	// key of the Secret that has the list.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[-._a-zA-Z0-9]+$') && !self.startsWith('..') && self != '.'",message="must be the key of a Secret: letters, digits, dashes, dots and underscores"
	// +kubebuilder:default=tokens
	// +optional
	Key string `json:"key,omitempty"`
}

// ObjectName is the name of a Secret or a ConfigMap.
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=253
// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",message="must be the name of a Secret or ConfigMap: lower case letters, digits, dashes and dots"
type ObjectName string

// AuthorizationSpec is what clients may do that have proved who they are: what a rule
// allows, of these or of a Grant, and nothing else.
type AuthorizationSpec struct {
	// rules that allow something.
	// +kubebuilder:validation:MaxItems=64
	// +listType=map
	// +listMapKey=name
	// +optional
	Rules []HubRule `json:"rules,omitempty"`

	// delegations say what Grants of other namespaces may allow.
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	// +optional
	Delegations []Delegation `json:"delegations,omitempty"`
}

// HubRule is a rule of a Hub.
type HubRule struct {
	Rule `json:",inline"`

	// admin is what the client may ask of the hub itself. View: the lists of clients,
	// topics and nodes, and who comes and goes. Manage: that, and purging, restoring and
	// deleting durable subscriptions. Absent: nothing.
	// +optional
	Admin AdminAccess `json:"admin,omitempty"`
}

// AdminAccess is what a client may ask of the hub itself.
// +kubebuilder:validation:Enum=View;Manage
type AdminAccess string

// What a client may ask of the hub.
const (
	AdminView   AdminAccess = "View"
	AdminManage AdminAccess = "Manage"
)

// Rule allows the clients that it is for what its lists say. In these {namespace},
// {serviceAccount}, {name}, {id} and {claims.NAME} stand for the client's own; an element
// whose value a client lacks, or whose value has a wildcard in it, allows it nothing.
//
// +kubebuilder:validation:XValidation:rule="!has(self.connectAs) || self.connectAs.all(c, !c.contains('{id}'))",message="must not have {id}, which would allow any: use {name}, or * if that is meant",fieldPath=".connectAs"
type Rule struct {
	// name by which people know the rule.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="must be lower case letters, digits and dashes, such as team-a-workers"
	// +required
	Name string `json:"name"`

	// when is a CEL expression over the variable identity, with the fields method, name,
	// namespace, serviceAccount, groups and claims: the rule is for those of whom it is
	// true. Absent: for everybody who has proved who they are. One that does not compile
	// reaches no node, and the resource's conditions say why.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	// +optional
	When string `json:"when,omitempty"`

	// connectAs are the client ids that it may have; * stands for any characters.
	// +kubebuilder:validation:MaxItems=32
	// +listType=atomic
	// +optional
	ConnectAs []ClientTemplate `json:"connectAs,omitempty"`

	// sendTo are the client ids that it may send to; * stands for any characters.
	// +kubebuilder:validation:MaxItems=32
	// +listType=atomic
	// +optional
	SendTo []ClientTemplate `json:"sendTo,omitempty"`

	// publish are patterns of the topics that it may publish on.
	// +kubebuilder:validation:MaxItems=32
	// +listType=atomic
	// +optional
	Publish []TopicTemplate `json:"publish,omitempty"`

	// subscribe are patterns of the topics that it may subscribe to. Everybody who may
	// connect may subscribe to broadcast.
	// +kubebuilder:validation:MaxItems=32
	// +listType=atomic
	// +optional
	Subscribe []TopicTemplate `json:"subscribe,omitempty"`

	// history are patterns of the topics whose history it may read.
	// +kubebuilder:validation:MaxItems=32
	// +listType=atomic
	// +optional
	History []TopicTemplate `json:"history,omitempty"`
}

// TopicTemplate is a pattern of topics with placeholders.
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=255
// +kubebuilder:validation:XValidation:rule=`self.matches(r'^([^{}]|[{](namespace|serviceAccount|name|id|claims[.][^{}\p{Z}\p{Cc}]+)[}])*$')`,message="has a brace without its other, or a placeholder that there is not; there are {namespace}, {serviceAccount}, {name}, {id} and {claims.NAME}"
// +kubebuilder:validation:XValidation:rule=`self.matches(r'^(([*]|([^.*>{}\p{Z}\p{Cc}\x{FFFD}]|[{][^{}]*[}])+)[.])*([*>]|([^.*>{}\p{Z}\p{Cc}\x{FFFD}]|[{][^{}]*[}])+)$')`,message="must be tokens joined by dots, such as orders.new, orders.*.eu or {namespace}.>; * stands for one whole token, > for the rest and only at the end"
// +kubebuilder:validation:XValidation:rule="!self.startsWith('$')",message="must not begin with $: what is the hub's own is allowed by admin"
// +kubebuilder:validation:XValidation:rule="size(bytes(self)) <= 255 && self.split('.').size() <= 32",message="must have at most 32 tokens and 255 bytes"
type TopicTemplate string

// ClientTemplate is a client id with placeholders, in which * stands for any characters.
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=128
// +kubebuilder:validation:XValidation:rule=`self.matches(r'^([^{}]|[{](namespace|serviceAccount|name|id|claims[.][^{}\p{Z}\p{Cc}]+)[}])*$')`,message="has a brace without its other, or a placeholder that there is not; there are {namespace}, {serviceAccount}, {name}, {id} and {claims.NAME}"
// +kubebuilder:validation:XValidation:rule=`!self.matches(r'[\p{Z}\p{Cc}\x{FFFD}]') && !self.startsWith('$')`,message="must be without white space and control characters, and not begin with $"
// +kubebuilder:validation:XValidation:rule="size(bytes(self)) <= 128",message="must have at most 128 bytes"
type ClientTemplate string

// Delegation lets namespaces decide on some topics and clients by Grants. {namespace}
// in it is the Grant's own namespace.
type Delegation struct {
	// namespaces whose Grants this is for; "*" is every namespace.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=63
	// +kubebuilder:validation:items:XValidation:rule="self == '*' || self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="must be the name of a namespace, or * for every namespace"
	// +listType=set
	// +required
	Namespaces []string `json:"namespaces"`

	// topics are patterns that have to cover whatever such a Grant says of topics.
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:XValidation:rule="self.all(t, !t.matches('[{](serviceAccount|name|id|claims[.][^}]*)[}]'))",message="may have no placeholder but {namespace}, which is the Grant's"
	// +listType=atomic
	// +optional
	Topics []TopicTemplate `json:"topics,omitempty"`

	// clients are client ids, with * for any characters, that have to cover whatever such
	// a Grant says of clients, in connectAs and sendTo.
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:XValidation:rule="self.all(c, !c.matches('[{](serviceAccount|name|id|claims[.][^}]*)[}]'))",message="may have no placeholder but {namespace}, which is the Grant's"
	// +listType=atomic
	// +optional
	Clients []ClientTemplate `json:"clients,omitempty"`
}

// TenancyPolicy says who has names of their own.
type TenancyPolicy string

// The policies.
const (
	TenancyNone      TenancyPolicy = "None"      // nobody
	TenancyNamespace TenancyPolicy = "Namespace" // the pods of each namespace
)
