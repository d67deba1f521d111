package manifests

import (
	"fmt"
	"path"

	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/pki"
	"github.com/switchboardhub/switchboard/hubnode/config"
)

// authVolume is the name of the volume with what nodes know clients by.
const authVolume = "node-auth"

// Files and keys by which nodes know clients.
const (
	authDir = "/etc/switchboard/auth"
	// ClusterKeysKey is the key of the ConfigMap, beside ConfigKey, that holds the
	// cluster's public keys for tokens of ServiceAccounts.
	ClusterKeysKey = "cluster-keys.json"

	defaultTokensKey = "tokens"

	// Of nodes that may ask the API server: where it is, and two files of authDir. Every
	// namespace has the ConfigMap, which Kubernetes makes.
	apiServer          = "https://kubernetes.default.svc"
	apiServerTokenFile = "apiserver-token"
	apiServerCAFile    = "apiserver-ca.crt"
	apiServerCAName    = "kube-root-ca.crt"
	apiServerTokenLife = 3600 // seconds; the kubelet renews it long before
)

// AuthSource is an object of the Hub's namespace, not of the operator's, that nodes know
// clients by.
type AuthSource struct {
	Field  string // of the Hub's spec that names it
	Secret bool   // else it is a ConfigMap
	Name   string
	Key    string
	Tokens bool // a list of tokens; else certificates
	file   string
}

// Kind is the object's.
func (s AuthSource) Kind() string {
	if s.Secret {
		return "Secret"
	}
	return "ConfigMap"
}

// AuthSources are all that the Hub names.
func AuthSources(hub *switchboardv1alpha1.Hub) []AuthSource {
	a := hub.Spec.Authentication
	if a == nil {
		return nil
	}
	var all []AuthSource
	authorities := func(field, file string, secret, configMap switchboardv1alpha1.ObjectName) {
		switch {
		case secret != "":
			all = append(all, AuthSource{Field: field, Secret: true, Name: string(secret), Key: pki.AuthoritiesKey, file: file})
		case configMap != "":
			all = append(all, AuthSource{Field: field, Name: string(configMap), Key: pki.AuthoritiesKey, file: file})
		}
	}
	if m := a.MutualTLS; m != nil {
		authorities("spec.authentication.mutualTLS", "clients-ca.crt", m.SecretName, m.ConfigMapName)
	}
	if s := a.Static; s != nil {
		key := s.Key
		if key == "" {
			key = defaultTokensKey
		}
		all = append(all, AuthSource{Field: "spec.authentication.static", Secret: true, Name: string(s.SecretName), Key: key, Tokens: true, file: "tokens"})
	}
	for i := range a.OIDC {
		o := &a.OIDC[i]
		authorities(fmt.Sprintf("spec.authentication.oidc[%d]", i), issuerFile(i), o.CASecretName, o.CAConfigMapName)
	}
	return all
}

func issuerFile(i int) string { return fmt.Sprintf("issuer-%d-ca.crt", i) }

// Audience is what clients' tokens of ServiceAccounts have to be for; empty where these
// are not taken.
func Audience(hub *switchboardv1alpha1.Hub) string {
	a := hub.Spec.Authentication
	switch {
	case a == nil || a.ServiceAccount == nil:
		return ""
	case a.ServiceAccount.Audience != "":
		return a.ServiceAccount.Audience
	}
	return fmt.Sprintf("%s.%s.switchboard.dev", hub.Name, hub.Namespace)
}

// TakesServiceAccounts reports whether nodes need the cluster's issuer and keys.
func TakesServiceAccounts(hub *switchboardv1alpha1.Hub) bool { return Audience(hub) != "" }

// ReviewsTokens reports whether nodes ask the API server about tokens that the cluster's
// keys can't judge.
func ReviewsTokens(hub *switchboardv1alpha1.Hub) bool {
	return TakesServiceAccounts(hub) && hub.Spec.Authentication.ServiceAccount.TokenReview == switchboardv1alpha1.TokenReviewFallback
}

// authentication is what nodes' settings say of it. Who issues the cluster's tokens is
// not known here.
func authentication(hub *switchboardv1alpha1.Hub) config.Authentication {
	a := hub.Spec.Authentication
	if a == nil {
		return config.Authentication{}
	}
	files := make(map[string]string) // by field
	for _, s := range AuthSources(hub) {
		files[s.Field] = path.Join(authDir, s.file)
	}
	var c config.Authentication
	if a.ServiceAccount != nil {
		c.ServiceAccount = &config.TokenIssuer{Audiences: []string{Audience(hub)}, KeysFile: path.Join(configDir, ClusterKeysKey)}
	}
	if ReviewsTokens(hub) {
		c.ServiceAccount.TokenReview = &config.TokenReview{
			Server: apiServer, CAFile: path.Join(authDir, apiServerCAFile), TokenFile: path.Join(authDir, apiServerTokenFile),
		}
	}
	for i := range a.OIDC {
		o := &a.OIDC[i]
		c.OIDC = append(c.OIDC, config.TokenIssuer{
			Issuer: o.Issuer, Audiences: o.Audiences, NameClaim: o.NameClaim, GroupsClaim: o.GroupsClaim,
			CAFile: files[fmt.Sprintf("spec.authentication.oidc[%d]", i)],
		})
	}
	if a.MutualTLS != nil {
		c.MutualTLS = &config.MutualTLS{CAFile: files["spec.authentication.mutualTLS"]}
	}
	if a.Static != nil {
		c.Static = &config.Static{File: files["spec.authentication.static"]}
	}
	return c
}

// authorization is what nodes' settings say of it, without Grants.
func authorization(hub *switchboardv1alpha1.Hub) config.Authorization {
	var c config.Authorization
	if hub.Spec.Authorization == nil {
		return c
	}
	for i := range hub.Spec.Authorization.Rules {
		r := &hub.Spec.Authorization.Rules[i]
		rule := RuleConfig(r.Name, &r.Rule)
		rule.Admin = config.AdminAccess(r.Admin)
		c.Rules = append(c.Rules, rule)
	}
	return c
}

// RuleConfig is what nodes' settings say of a rule, under a name of its own.
func RuleConfig(name string, r *switchboardv1alpha1.Rule) config.Rule {
	return config.Rule{
		Name: name, When: r.When,
		ConnectAs: texts(r.ConnectAs), SendTo: texts(r.SendTo),
		Publish: texts(r.Publish), Subscribe: texts(r.Subscribe), History: texts(r.History),
	}
}

func texts[T ~string](from []T) []string {
	var all []string
	for _, t := range from {
		all = append(all, string(t))
	}
	return all
}

// needsAuthVolume reports whether nodes need files to know clients by, beside their settings.
func needsAuthVolume(hub *switchboardv1alpha1.Hub) bool {
	return len(AuthSources(hub)) > 0 || ReviewsTokens(hub)
}

// authVolumeOf mounts what the Hub names, and what nodes that ask the API server need. What
// is not there yet does not keep nodes from starting: they let nobody in by it until it is.
func authVolumeOf(hub *switchboardv1alpha1.Hub) *corev1ac.VolumeApplyConfiguration {
	all := corev1ac.ProjectedVolumeSource().WithDefaultMode(0o440)
	object := func(secret bool, name, key, file string) {
		item := corev1ac.KeyToPath().WithKey(key).WithPath(file)
		if secret {
			all.WithSources(corev1ac.VolumeProjection().WithSecret(corev1ac.SecretProjection().WithName(name).WithItems(item).WithOptional(true)))
		} else {
			all.WithSources(corev1ac.VolumeProjection().WithConfigMap(corev1ac.ConfigMapProjection().WithName(name).WithItems(item).WithOptional(true)))
		}
	}
	for _, s := range AuthSources(hub) {
		object(s.Secret, s.Name, s.Key, s.file)
	}
	if ReviewsTokens(hub) {
		object(false, apiServerCAName, pki.AuthoritiesKey, apiServerCAFile)
		all.WithSources(corev1ac.VolumeProjection().WithServiceAccountToken(
			corev1ac.ServiceAccountTokenProjection().WithPath(apiServerTokenFile).WithExpirationSeconds(apiServerTokenLife)))
	}
	return corev1ac.Volume().WithName(authVolume).WithProjected(all)
}
