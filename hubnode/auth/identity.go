package auth

import (
	"fmt"
	"time"
)

// Identity is who a client has proved to be.
type Identity struct {
	Method Method
	// Name is unique for its method: "system:serviceaccount:team-a:worker", the
	// subject of a certificate or of an issuer's token, the name of a static token.
	Name string
	// Namespace and ServiceAccount are empty unless the method is ServiceAccount.
	Namespace, ServiceAccount string
	Groups                    []string
	// Claims are what a token says beyond this, as decoded JSON.
	Claims map[string]any
	// Expires is when the proof does; the zero time: never.
	Expires time.Time
	// Proof is what the operator may do; empty unless the method is Operator.
	Proof OperatorProof

	hash string // of a static token: what the list had when it was looked at
}

// Key tells the identity from all others, also from those of the same name that another
// method, or another issuer, has proved.
func (id *Identity) Key() string {
	return fmt.Sprintf("%s %v %s", id.Method, id.Claims["iss"], id.Name)
}

// Method is how somebody proves who they are.
type Method string

// The methods.
const (
	ServiceAccount Method = "ServiceAccount" // a token of the cluster, for a ServiceAccount
	OIDC           Method = "OIDC"           // a token of another issuer
	MutualTLS      Method = "MutualTLS"      // a certificate
	Static         Method = "Static"         // a token from a list
	Operator       Method = "Operator"       // a proof that it knows the key of the hub's nodes
)
