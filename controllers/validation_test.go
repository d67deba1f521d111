package controllers_test

import (
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
)

// rawHub is a Hub as a person writes it, so that nothing of it is lost on the
// way through our types.
func rawHub(t *testing.T, namespace, name, spec string) *unstructured.Unstructured {
	t.Helper()
	hub := &unstructured.Unstructured{Object: map[string]any{}}
	var fields map[string]any
	if err := yaml.Unmarshal([]byte(spec), &fields); err != nil {
		t.Fatalf("the test's YAML: %v", err)
	}
	hub.SetGroupVersionKind(switchboardv1alpha1.GroupVersion.WithKind("Hub"))
	hub.SetNamespace(namespace)
	hub.SetName(name)
	if fields != nil {
		hub.Object["spec"] = fields
	}
	return hub
}

func TestAPIServerRefusesInvalidHub(t *testing.T) {
	c := useCluster(t)
	ns := c.namespace(t)
	const duration = "must be a duration above zero such as 500ms, 10s or 1h30m"
	tests := map[string]struct {
		name  string // of the Hub; default "agents"
		spec  string
		field string
		text  string
	}{
		"name too long for its pods":       {name: strings.Repeat("a", 46), field: "metadata.name", text: "at most 45 characters"},
		"name that no Service can have":    {name: "1st", field: "metadata.name", text: "starting with a letter"},
		"name with a dot":                  {name: "a.b", field: "metadata.name", text: "lower case letters, digits and dashes"},
		"fewer than no nodes":              {spec: "replicas: -1", field: "spec.replicas", text: "greater than or equal to 0"},
		"too many nodes":                   {spec: "replicas: 100", field: "spec.replicas", text: "less than or equal to 99"},
		"no unit in an interval":           {spec: `healthCheck: {interval: "10"}`, field: "spec.healthCheck.interval", text: duration},
		"empty interval":                   {spec: `healthCheck: {interval: ""}`, field: "spec.healthCheck.interval", text: duration},
		"interval of zero":                 {spec: "healthCheck: {interval: 0s}", field: "spec.healthCheck.interval", text: duration},
		"negative timeout":                 {spec: "healthCheck: {timeout: -1s}", field: "spec.healthCheck.timeout", text: duration},
		"timeout above the interval":       {spec: "healthCheck: {interval: 1s, timeout: 2s}", field: "spec.healthCheck.timeout", text: "must not be longer than interval"},
		"timeout above the default":        {spec: "healthCheck: {timeout: 11s}", field: "spec.healthCheck.timeout", text: "must not be longer than interval"},
		"no failed ping at all":            {spec: "healthCheck: {failureThreshold: 0}", field: "spec.healthCheck.failureThreshold", text: "greater than or equal to 1"},
		"too many failed pings":            {spec: "healthCheck: {failureThreshold: 101}", field: "spec.healthCheck.failureThreshold", text: "less than or equal to 100"},
		"negative history":                 {spec: "history: {maxArtifacts: -1}", field: "spec.history.maxArtifacts", text: "greater than or equal to 0"},
		"absurd history":                   {spec: "history: {maxArtifacts: 1000000001}", field: "spec.history.maxArtifacts", text: "less than or equal to 1000000000"},
		"history of no bytes":              {spec: "history: {maxBytes: 0}", field: "spec.history.maxBytes", text: "must be a whole number of bytes between 1 and 1Pi"},
		"history of negative bytes":        {spec: "history: {maxBytes: -1Mi}", field: "spec.history.maxBytes", text: "must be a whole number of bytes between 1 and 1Pi"},
		"history of a fraction of a byte":  {spec: "history: {maxBytes: 1500m}", field: "spec.history.maxBytes", text: "must be a whole number of bytes between 1 and 1Pi"},
		"history of unknown size":          {spec: "history: {maxBytes: lots}", field: "spec.history.maxBytes", text: "must be a whole number of bytes between 1 and 1Pi"},
		"history of no time":               {spec: "history: {maxAge: 0s}", field: "spec.history.maxAge", text: duration},
		"age in days":                      {spec: "history: {maxAge: 1d}", field: "spec.history.maxAge", text: duration},
		"age that no clock can count":      {spec: "history: {maxAge: 999999h999999h999999h}", field: "spec.history.maxAge", text: "may not be more than 20"},
		"too many topics":                  {spec: topicList(257), field: "spec.topics", text: "must have at most 256 items"},
		"topic without a pattern":          {spec: "topics: [{filter: 'true'}]", field: "spec.topics[0].pattern", text: "Required"},
		"empty pattern":                    {spec: `topics: [{pattern: ""}]`, field: "spec.topics[0].pattern", text: "should be at least 1 chars long"},
		"pattern too long":                 {spec: "topics: [{pattern: " + strings.Repeat("a", 256) + "}]", field: "spec.topics[0].pattern", text: "may not be more than 255"},
		"pattern with an empty token":      {spec: "topics: [{pattern: ok}, {pattern: a..b}]", field: "spec.topics[1].pattern", text: "tokens joined by dots"},
		"pattern with > in the middle":     {spec: `topics: [{pattern: "a.>.b"}]`, field: "spec.topics[0].pattern", text: "only at the end"},
		"pattern with half a wildcard":     {spec: `topics: [{pattern: "a.b*"}]`, field: "spec.topics[0].pattern", text: "one whole token"},
		"pattern with a space":             {spec: `topics: [{pattern: "a b"}]`, field: "spec.topics[0].pattern", text: "tokens joined by dots"},
		"pattern with a space from afar":   {spec: `topics: [{pattern: "a\u2003b"}]`, field: "spec.topics[0].pattern", text: "tokens joined by dots"},
		"pattern with a control character": {spec: `topics: [{pattern: "a\u0085b"}]`, field: "spec.topics[0].pattern", text: "tokens joined by dots"},
		"pattern with too many tokens":     {spec: "topics: [{pattern: " + strings.Repeat("a.", 32) + "a}]", field: "spec.topics[0].pattern", text: "at most 32 tokens"},
		"pattern with too many bytes":      {spec: "topics: [{pattern: " + strings.Repeat("ä", 128) + "}]", field: "spec.topics[0].pattern", text: "255 bytes"},
		"pattern twice":                    {spec: "topics: [{pattern: a}, {pattern: b}, {pattern: a}]", field: "spec.topics", text: "must not have a pattern twice"},
		"filter with too many bytes":       {spec: "topics: [{pattern: a, filter: '" + strings.Repeat("ä", 2049) + "'}]", field: "spec.topics[0].filter", text: "at most 4096 bytes"},
		"history of more than there is":    {spec: "history: {maxBytes: 2Pi}", field: "spec.history.maxBytes", text: "must be a whole number of bytes between 1 and 1Pi"},
		"topic with negative history":      {spec: "topics: [{pattern: a, history: {maxArtifacts: -1}}]", field: "spec.topics[0].history.maxArtifacts", text: "greater than or equal to 0"},
		"topic with history of no bytes":   {spec: "topics: [{pattern: a, history: {maxBytes: 0}}]", field: "spec.topics[0].history.maxBytes", text: "whole number of bytes"},
		"topic with history of no time":    {spec: "topics: [{pattern: a, history: {maxAge: -1h}}]", field: "spec.topics[0].history.maxAge", text: duration},
		"filter too long":                  {spec: "topics: [{pattern: a, filter: '" + strings.Repeat("x", 4097) + "'}]", field: "spec.topics[0].filter", text: "may not be more than 4096"},
		"a namespace that none can be":     {spec: "allowedTopicNamespaces: [ok, Team_A]", field: "spec.allowedTopicNamespaces[1]", text: "must be the name of a namespace, or * for every namespace"},
		"a namespace by half a wildcard":   {spec: "allowedTopicNamespaces: ['team-*']", field: "spec.allowedTopicNamespaces[0]", text: "or * for every namespace"},
		"an empty namespace":               {spec: "allowedTopicNamespaces: ['']", field: "spec.allowedTopicNamespaces[0]", text: "should be at least 1 chars long"},
		"a namespace twice":                {spec: "allowedTopicNamespaces: [a, a]", field: "spec.allowedTopicNamespaces[1]", text: "Duplicate value"},
		"storage class without a size":     {spec: "storage: {storageClassName: fast}", field: "spec.storage.size", text: "is required with storageClassName"},
		"storage too small":                {spec: "storage: {size: 1Mi}", field: "spec.storage.size", text: "at least 1Gi"},
		"no replica":                       {spec: "storage: {replicas: -1}", field: "spec.storage.replicas", text: "greater than or equal to 1"},
		"too many shards":                  {spec: "storage: {shards: 257}", field: "spec.storage.shards", text: "less than or equal to 256"},
		"a sync that is none":              {spec: "storage: {sync: Never}", field: "spec.storage.sync", text: "Unsupported value"},
		"resume window of zero":            {spec: "sessions: {resumeWindow: 0s}", field: "spec.sessions.resumeWindow", text: duration},
		"no clients":                       {spec: "limits: {maxClients: 0}", field: "spec.limits.maxClients", text: "greater than or equal to 1"},
		"more clients than a node can":     {spec: "limits: {maxClients: 10000001}", field: "spec.limits.maxClients", text: "less than or equal to 10000000"},
		"artifacts too small":              {spec: "limits: {maxArtifactSize: 1023}", field: "spec.limits.maxArtifactSize", text: "between 1Ki and 16Mi"},
		"artifacts too large":              {spec: "limits: {maxArtifactSize: 17Mi, maxPendingBytes: 20Mi}", field: "spec.limits.maxArtifactSize", text: "between 1Ki and 16Mi"},
		"queue of unknown size":            {spec: "limits: {maxPendingBytes: much}", field: "spec.limits.maxPendingBytes", text: "between 1Ki and 64Gi"},
		"queue that holds no artifact":     {spec: "limits: {maxArtifactSize: 2Mi, maxPendingBytes: 1Mi}", field: "spec.limits.maxPendingBytes", text: "must not be below maxArtifactSize"},
		"unknown policy":                   {spec: "limits: {slowClientPolicy: Ignore}", field: "spec.limits.slowClientPolicy", text: `supported values: "Disconnect", "DropOldest", "DropNewest", "Conflate"`},
		"an address of nothing":            {spec: `limits: {perAddress: {connections: 0}}`, field: "spec.limits.perAddress.connections", text: "should be greater than or equal to 1"},
		"a rate of nothing":                {spec: `limits: {perIdentity: {artifactsPerSecond: 0}}`, field: "spec.limits.perIdentity.artifactsPerSecond", text: "should be greater than or equal to 1"},
		"a rate of too few bytes":          {spec: `limits: {perIdentity: {bytesPerSecond: 1}}`, field: "spec.limits.perIdentity.bytesPerSecond", text: "must be a whole number of bytes between 1Ki and 1Ti"},
		"a share of nobody":                {spec: `limits: {perNamespace: {historyBytes: 1Gi}}`, field: "spec.limits.perNamespace", text: "needs spec.tenancy to be Namespace"},
		"a share of nobody, by name":       {spec: `{tenancy: None, limits: {perNamespace: {historyBytes: 1Gi}}}`, field: "spec.limits.perNamespace", text: "needs spec.tenancy to be Namespace"},
		"a share of too few bytes":         {spec: `{tenancy: Namespace, authentication: {serviceAccount: {}}, limits: {perNamespace: {historyBytes: 1}}}`, field: "spec.limits.perNamespace.historyBytes", text: "must be a whole number of bytes between 1Ki and 1Pi"},
		"no conflate key":                  {spec: `limits: {conflateKey: ""}`, field: "spec.limits.conflateKey", text: "should be at least 1 chars long"},
		"conflate key of too many bytes":   {spec: "limits: {conflateKey: " + strings.Repeat("ä", 128) + "}", field: "spec.limits.conflateKey", text: "at most 255 bytes"},
		"drain without time":               {spec: "drain: {timeout: 0s}", field: "spec.drain.timeout", text: duration},
		"an update strategy that is none":  {spec: "updates: {strategy: Sometimes}", field: "spec.updates.strategy", text: "supported values"},
		"a negative delay":                 {spec: "updates: {delay: -1s}", field: "spec.updates.delay", text: "must be a duration such as 0s"},
		"a deletion policy that is none":   {spec: "storage: {deletionPolicy: Perhaps}", field: "spec.storage.deletionPolicy", text: "supported values"},
		"a class of no load balancer":      {spec: "service: {loadBalancerClass: fast}", field: "spec.service.loadBalancerClass", text: "needs the type LoadBalancer"},
		"outside traffic to the inside":    {spec: "service: {externalTrafficPolicy: Local}", field: "spec.service.externalTrafficPolicy", text: "needs the type NodePort or LoadBalancer"},
		"a service of no type":             {spec: "service: {type: ExternalName}", field: "spec.service.type", text: "supported values"},
		"a label that is the operator's":   {spec: "pod: {labels: {app.kubernetes.io/name: mine}}", field: "spec.pod.labels", text: "these are the operator's"},
		"an annotation of the operator":    {spec: "pod: {annotations: {switchboard.dev/config-hash: x}}", field: "spec.pod.annotations", text: "these are the operator's"},
		"a variable of the operator":       {spec: "pod: {env: [{name: SWITCHBOARD_NODE, value: x}]}", field: "spec.pod.env[0].name", text: "which the operator sets"},
		"a variable with a dash":           {spec: "pod: {env: [{name: a-b, value: x}]}", field: "spec.pod.env[0].name", text: "must be letters, digits and underscores"},
		"a variable twice":                 {spec: "pod: {env: [{name: A}, {name: A}]}", field: "spec.pod.env[1]", text: "Duplicate value"},
		"a variable from two places":       {spec: "pod: {env: [{name: A, value: x, secretKeyRef: {name: s, key: k}}]}", field: "spec.pod.env[0]", text: "must have one of value"},
		"a volume of the operator":         {spec: "pod: {volumes: [{name: history, mountPath: /x, secretName: s}]}", field: "spec.pod.volumes[0].name", text: "which the operator uses"},
		"a volume from nowhere":            {spec: "pod: {volumes: [{name: a, mountPath: /x}]}", field: "spec.pod.volumes[0]", text: "must have one of secretName"},
		"a volume over the history":        {spec: "pod: {volumes: [{name: a, mountPath: /var/lib/switchboard/x, secretName: s}]}", field: "spec.pod.volumes[0].mountPath", text: "outside of /etc/switchboard"},
		"a volume at no absolute path":     {spec: "pod: {volumes: [{name: a, mountPath: xyz, secretName: s}]}", field: "spec.pod.volumes[0].mountPath", text: "must be an absolute path"},
		"TLS for some clients":             {spec: "tls: {clients: Some}", field: "spec.tls.clients", text: `supported values: "Disabled", "Optional", "Required"`},
		"two sources of a certificate":     {spec: "tls: {clients: Optional, secretName: mine, issuerRef: {name: a}}", field: "spec.tls.issuerRef", text: "either from an issuer or from your Secret"},
		"names for a given certificate":    {spec: "tls: {clients: Optional, secretName: mine, extraNames: [a.example.com]}", field: "spec.tls.extraNames", text: "its names are those of the certificate in your Secret"},
		"a Secret of no name":              {spec: `tls: {secretName: ""}`, field: "spec.tls.secretName", text: "should be at least 1 chars long"},
		"a Secret that none can be":        {spec: "tls: {secretName: My_Secret}", field: "spec.tls.secretName", text: "must be the name of a Secret"},
		"the operator's authority":         {spec: "tls: {secretName: agents-ca}", field: "spec.tls.secretName", text: "must be a Secret of your own: this one is the operator's"},
		"what the operator gives nodes":    {spec: "tls: {secretName: agents-node-tls}", field: "spec.tls.secretName", text: "must be a Secret of your own"},
		"what cert-manager has issued":     {spec: "tls: {secretName: agents-node-issued}", field: "spec.tls.secretName", text: "must be a Secret of your own"},
		"an issuer without a name":         {spec: "tls: {issuerRef: {kind: Issuer}}", field: "spec.tls.issuerRef.name", text: "Required"},
		"an issuer of no kind that is":     {spec: "tls: {issuerRef: {name: a, kind: Certificate}}", field: "spec.tls.issuerRef.kind", text: "must be Issuer or ClusterIssuer"},
		"a name with a port":               {spec: "tls: {extraNames: ['hub.example.com:7400']}", field: "spec.tls.extraNames[0]", text: "or an IP address, without a port"},
		"a name in upper case":             {spec: "tls: {extraNames: [ok, Hub.example.com]}", field: "spec.tls.extraNames[1]", text: "must be a DNS name in lower case"},
		"a wildcard in the middle":         {spec: "tls: {extraNames: [hub.*.example.com]}", field: "spec.tls.extraNames[0]", text: "such as hub.example.com or *.hub.example.com"},
		"addresses of a network":           {spec: "tls: {extraNames: [192.0.2.0/24]}", field: "spec.tls.extraNames[0]", text: "or an IP address"},
		"a name twice":                     {spec: "tls: {extraNames: [a, a]}", field: "spec.tls.extraNames[1]", text: "Duplicate value"},
		"a volume of the certificate":      {spec: "pod: {volumes: [{name: node-tls, mountPath: /x, secretName: s}]}", field: "spec.pod.volumes[0].name", text: "which the operator uses"},
		"no way to prove who one is":       {spec: "authentication: {}", field: "spec.authentication", text: "must have at least one of serviceAccount, oidc, mutualTLS and static"},
		"no issuer":                        {spec: "authentication: {oidc: []}", field: "spec.authentication", text: "must have at least one of"},
		"an audience with white space":     {spec: "authentication: {serviceAccount: {audience: a b}}", field: "spec.authentication.serviceAccount.audience", text: "must be without white space"},
		"a review of each token":           {spec: "authentication: {serviceAccount: {tokenReview: Always}}", field: "spec.authentication.serviceAccount.tokenReview", text: `supported values: "Never", "Fallback"`},
		"an issuer over plain HTTP":        {spec: "authentication: {oidc: [{issuer: 'http://a.example', audiences: [a]}]}", field: "spec.authentication.oidc[0].issuer", text: "must be an https URL without user, query and fragment, such as https://login.example.com"},
		"an issuer that is no URL":         {spec: "authentication: {oidc: [{issuer: a, audiences: [a]}]}", field: "spec.authentication.oidc[0].issuer", text: "must be an https URL"},
		"an issuer with a password":        {spec: "authentication: {oidc: [{issuer: 'https://me:sesame@a.example', audiences: [a]}]}", field: "spec.authentication.oidc[0].issuer", text: "without user, query and fragment"},
		"an issuer with a query":           {spec: "authentication: {oidc: [{issuer: 'https://a.example?b', audiences: [a]}]}", field: "spec.authentication.oidc[0].issuer", text: "without user, query and fragment"},
		"an issuer for nobody":             {spec: "authentication: {oidc: [{issuer: 'https://a.example', audiences: []}]}", field: "spec.authentication.oidc[0].audiences", text: "should have at least 1 items"},
		"an issuer twice":                  {spec: "authentication: {oidc: [{issuer: 'https://a.example', audiences: [a]}, {issuer: 'https://a.example', audiences: [b]}]}", field: "spec.authentication.oidc[1]", text: "Duplicate value"},
		"an issuer by two authorities":     {spec: "authentication: {oidc: [{issuer: 'https://a.example', audiences: [a], caSecretName: a, caConfigMapName: b}]}", field: "spec.authentication.oidc[0].caSecretName", text: "must not be given together with caConfigMapName"},
		"a claim of too long a name":       {spec: "authentication: {oidc: [{issuer: 'https://a.example', audiences: [a], nameClaim: " + strings.Repeat("x", 129) + "}]}", field: "spec.authentication.oidc[0].nameClaim", text: "may not be more than 128"},
		"a claim of too many bytes":        {spec: "authentication: {oidc: [{issuer: 'https://a.example', audiences: [a], groupsClaim: " + strings.Repeat("ä", 65) + "}]}", field: "spec.authentication.oidc[0].groupsClaim", text: "must have at most 128 bytes"},
		"certificates without TLS":         {spec: "authentication: {mutualTLS: {secretName: a}}", field: "spec.authentication.mutualTLS", text: "needs spec.tls.clients to be Optional or Required"},
		"certificates with TLS disabled":   {spec: "{tls: {clients: Disabled}, authentication: {mutualTLS: {secretName: a}}}", field: "spec.authentication.mutualTLS", text: "only over TLS do clients show certificates"},
		"certificates by nobody":           {spec: "{tls: {clients: Required}, authentication: {mutualTLS: {}}}", field: "spec.authentication.mutualTLS", text: "must have one of secretName and configMapName"},
		"certificates by two":              {spec: "{tls: {clients: Required}, authentication: {mutualTLS: {secretName: a, configMapName: b}}}", field: "spec.authentication.mutualTLS", text: "must have one of secretName and configMapName"},
		"tokens in no Secret":              {spec: "authentication: {static: {}}", field: "spec.authentication.static.secretName", text: "Required"},
		"tokens in a Secret of no name":    {spec: "authentication: {static: {secretName: A_B}}", field: "spec.authentication.static.secretName", text: "must be the name of a Secret or ConfigMap"},
		"tokens under a key that is none":  {spec: "authentication: {static: {secretName: a, key: ../b}}", field: "spec.authentication.static.key", text: "must be the key of a Secret"},
		"tenants by nobody":                {spec: "tenancy: Namespace", field: "spec.tenancy", text: "Namespace needs spec.authentication.serviceAccount: nobody else is known to be of a namespace"},
		"tenants of another proof":         {spec: "{tenancy: Namespace, authentication: {static: {secretName: a}}}", field: "spec.tenancy", text: "needs spec.authentication.serviceAccount"},
		"tenants of another kind":          {spec: "{tenancy: Pod, authentication: {serviceAccount: {}}}", field: "spec.tenancy", text: "supported values"},
		"rules for nobody":                 {spec: "authorization: {rules: [{name: a}]}", field: "spec.authorization", text: "has no effect without spec.authentication"},
		"a rule without a name":            {spec: rules("{publish: [a]}"), field: "spec.authorization.rules[0].name", text: "Required"},
		"a rule with a long name":          {spec: rules("{name: A rule}"), field: "spec.authorization.rules[0].name", text: "must be lower case letters, digits and dashes, such as team-a-workers"},
		"a rule twice":                     {spec: rules("{name: a}, {name: a}"), field: "spec.authorization.rules[1]", text: "Duplicate value"},
		"a condition that is empty":        {spec: rules("{name: a, when: ''}"), field: "spec.authorization.rules[0].when", text: "should be at least 1 chars long"},
		"a right that there is not":        {spec: rules("{name: a, admin: Edit}"), field: "spec.authorization.rules[0].admin", text: `supported values: "View", "Manage"`},
		"any id for anybody":               {spec: rules("{name: a, connectAs: [b, 'c-{id}']}"), field: "spec.authorization.rules[0].connectAs", text: "must not have {id}, which would allow any: use {name}, or * if that is meant"},
		"an id with an unknown value":      {spec: rules("{name: a, sendTo: ['{team}/*']}"), field: "spec.authorization.rules[0].sendTo[0]", text: "there are {namespace}, {serviceAccount}, {name}, {id} and {claims.NAME}"},
		"an id of the hub":                 {spec: rules("{name: a, sendTo: [$hub]}"), field: "spec.authorization.rules[0].sendTo[0]", text: "not begin with $"},
		"an id with a space":               {spec: rules("{name: a, connectAs: [a b]}"), field: "spec.authorization.rules[0].connectAs[0]", text: "must be without white space and control characters"},
		"an id of too many bytes":          {spec: rules("{name: a, connectAs: [" + strings.Repeat("ä", 65) + "]}"), field: "spec.authorization.rules[0].connectAs[0]", text: "must have at most 128 bytes"},
		"a topic with an open brace":       {spec: rules("{name: a, publish: ['a.{id']}"), field: "spec.authorization.rules[0].publish[0]", text: "has a brace without its other"},
		"a topic with a closing brace":     {spec: rules("{name: a, publish: ['a.id}']}"), field: "spec.authorization.rules[0].publish[0]", text: "has a brace without its other"},
		"a topic with an unknown value":    {spec: rules("{name: a, subscribe: ['a.{Id}']}"), field: "spec.authorization.rules[0].subscribe[0]", text: "a placeholder that there is not"},
		"a topic of a claim of no name":    {spec: rules("{name: a, subscribe: ['a.{claims.}']}"), field: "spec.authorization.rules[0].subscribe[0]", text: "a placeholder that there is not"},
		"a topic with half a wildcard":     {spec: rules("{name: a, history: ['a.{id}*']}"), field: "spec.authorization.rules[0].history[0]", text: "* stands for one whole token, > for the rest and only at the end"},
		"a topic with an empty token":      {spec: rules("{name: a, publish: [a..b]}"), field: "spec.authorization.rules[0].publish[0]", text: "must be tokens joined by dots"},
		"a topic of the hub":               {spec: rules("{name: a, subscribe: [$presence]}"), field: "spec.authorization.rules[0].subscribe[0]", text: "must not begin with $: what is the hub's own is allowed by admin"},
		"a topic of too many tokens":       {spec: rules("{name: a, publish: [" + strings.Repeat("a.", 32) + "a]}"), field: "spec.authorization.rules[0].publish[0]", text: "must have at most 32 tokens and 255 bytes"},
		"too many topics of a rule":        {spec: rules("{name: a, publish: [a" + strings.Repeat(",a", 32) + "]}"), field: "spec.authorization.rules[0].publish", text: "must have at most 32 items"},
		"a delegation to nobody":           {spec: delegations("{namespaces: []}"), field: "spec.authorization.delegations[0].namespaces", text: "should have at least 1 items"},
		"a delegation to part of a name":   {spec: delegations("{namespaces: [team-*]}"), field: "spec.authorization.delegations[0].namespaces[0]", text: "must be the name of a namespace, or * for every namespace"},
		"a delegation of a client's topic": {spec: delegations("{namespaces: [a], topics: ['{id}.>']}"), field: "spec.authorization.delegations[0].topics", text: "may have no placeholder but {namespace}, which is the Grant's"},
		"a delegation of a claim's client": {spec: delegations("{namespaces: [a], clients: ['{claims.a}']}"), field: "spec.authorization.delegations[0].clients", text: "may have no placeholder but {namespace}, which is the Grant's"},
		"a volume of authentication":       {spec: "pod: {volumes: [{name: node-auth, mountPath: /x, secretName: s}]}", field: "spec.pod.volumes[0].name", text: "which the operator uses"},
		"unknown pull policy":              {spec: "imagePullPolicy: Sometimes", field: "spec.imagePullPolicy", text: "supported values"},
		"resources that are no quantities": {spec: "resources: {limits: {memory: lots}}", field: "spec.resources.limits.memory", text: "should match"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if tt.name == "" {
				tt.name = "agents"
			}
			err := c.Create(t.Context(), rawHub(t, ns, tt.name, tt.spec), client.DryRunAll)
			if !apierrors.IsInvalid(err) {
				t.Fatalf("create = %v, want it refused as invalid", err)
			}
			if got := err.Error(); !strings.Contains(got, tt.field+":") || !strings.Contains(got, tt.text) {
				t.Errorf("create = %v\nwant the field %s and the text %q", err, tt.field, tt.text)
			}
		})
	}
}

// rules is a spec with rules.
func rules(list string) string {
	return "{authentication: {serviceAccount: {}}, authorization: {rules: [" + list + "]}}"
}

// delegations is a spec with delegations.
func delegations(list string) string {
	return "{authentication: {serviceAccount: {}}, authorization: {delegations: [" + list + "]}}"
}

func topicList(n int) string {
	var b strings.Builder
	b.WriteString("topics:\n")
	for i := range n {
		fmt.Fprintf(&b, "- {pattern: t%d, history: {maxArtifacts: 1, maxBytes: 1Mi, maxAge: 1h}}\n", i)
	}
	return b.String()
}

func TestAPIServerAcceptsHub(t *testing.T) {
	c := useCluster(t)
	ns := c.namespace(t)
	for name, spec := range map[string]string{
		"without a spec":               "",
		"stopped":                      "replicas: 0",
		"with as many topics as fit":   topicList(256),
		"with plain numbers of bytes":  "limits: {maxArtifactSize: 1024, maxPendingBytes: 1048576}",
		"with decimal sizes":           "history: {maxBytes: 1.5G}",
		"with an empty storage":        "storage: {}",
		"with storage":                 "storage: {size: 10Gi, storageClassName: fast}",
		"with durations as Go prints":  "history: {maxAge: 24h0m0s}",
		"with fractions of a second":   "healthCheck: {interval: 1.5s, timeout: 500ms}",
		"with every kind of pattern":   `topics: [{pattern: ">"}, {pattern: "*"}, {pattern: a}, {pattern: a.*.c}, {pattern: "*.>"}, {pattern: ünï.cödé-1_2:3}]`,
		"with TLS":                     "tls: {clients: Optional}",
		"with TLS of an issuer":        "tls: {clients: Required, issuerRef: {name: a}}",
		"with an issuer from outside":  "tls: {clients: Required, issuerRef: {name: a, kind: AWSPCAIssuer, group: awspca.cert-manager.io}}",
		"with TLS of a Secret":         "tls: {clients: Required, secretName: my.secret-1}",
		"with every kind of name":      "tls: {extraNames: [hub, hub.example.com, '*.hub.example.com', 1st.example.com, 192.0.2.7, '2001:db8::1']}",
		"with namespaces of Topics":    "allowedTopicNamespaces: [team-a, 1st, '*']",
		"with every way to prove it":   "{tls: {clients: Optional}, authentication: {serviceAccount: {audience: 'https://a.example'}, oidc: [{issuer: 'https://a.example/b', audiences: [a, b], nameClaim: email, groupsClaim: groups, caConfigMapName: ca}], mutualTLS: {configMapName: a}, static: {secretName: a, key: b.txt}}}",
		"with every kind of rule":      rules("{name: a, when: 'true', connectAs: ['*', '{name}', '{namespace}/{claims.https://a.example/b}'], sendTo: ['{id}-x'], publish: ['>', '*', 'a.*.>', '{namespace}.{serviceAccount}-x.>', 'ünï.{claims.a.b}'], admin: View}"),
		"with delegations":             delegations("{namespaces: ['*', a], topics: ['{namespace}.>', 'a.*'], clients: ['{namespace}/*']}"),
		"with its own image":           "{image: registry.example/switchboard:1, imagePullPolicy: Never, imagePullSecrets: [{name: pull}]}",
		"with its own resources":       "resources: {requests: {cpu: 1, memory: 1Gi}}",
		"with shares of tenants":       "{tenancy: Namespace, authentication: {serviceAccount: {}}, limits: {perNamespace: {historyBytes: 10Gi}}}",
		"with timeout as the interval": "healthCheck: {interval: 5s, timeout: 5s}",
	} {
		t.Run(name, func(t *testing.T) {
			if err := c.Create(t.Context(), rawHub(t, ns, "agents", spec), client.DryRunAll); err != nil {
				t.Errorf("create = %v, want it accepted", err)
			}
		})
	}
}

func TestAPIServerRefusesChangeOfStorage(t *testing.T) {
	c := useCluster(t)
	ns := c.namespace(t)
	const before = "{replicas: 0, storage: {size: 10Gi, storageClassName: fast}}"
	if err := c.Create(t.Context(), rawHub(t, ns, "agents", before)); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ spec, text string }{
		"grown":         {"storage: {size: 11Gi, storageClassName: fast}", ""},
		"no claims yet": {"storage: {size: 9Gi, storageClassName: fast}", ""},
		"to memory":     {"storage: {}", ""},
		"no storage":    {"{}", ""},
		"more shards":   {"storage: {size: 10Gi, storageClassName: fast, shards: 32}", "number of shards is fixed"},
		"another class": {"storage: {size: 10Gi, storageClassName: slow}", "storage class of a Hub can't be changed"},
		"no class":      {"storage: {size: 10Gi}", "storage class of a Hub can't be changed"},
		"more replicas": {"storage: {size: 10Gi, storageClassName: fast, replicas: 5}", ""},
		"another sync":  {"storage: {size: 10240Mi, storageClassName: fast, sync: Interval}", ""},
	} {
		t.Run(name, func(t *testing.T) {
			hub := rawHub(t, ns, "agents", "")
			// The operator writes the Hub's status meanwhile.
			err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
				if err := c.Get(t.Context(), client.ObjectKeyFromObject(hub), hub); err != nil {
					return err
				}
				hub.Object["spec"] = rawHub(t, ns, "agents", tt.spec).Object["spec"]
				return c.Update(t.Context(), hub, client.DryRunAll)
			})
			switch {
			case tt.text == "" && err != nil:
				t.Errorf("update = %v, want it accepted", err)
			case tt.text != "" && (!apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "spec.storage: ") || !strings.Contains(err.Error(), tt.text)):
				t.Errorf("update = %v, want spec.storage refused with %q", err, tt.text)
			}
		})
	}
}

func TestAPIServerRefusesInvalidTopic(t *testing.T) {
	c := useCluster(t)
	ns := c.namespace(t)
	for name, tt := range map[string]struct {
		name  string // of the Topic; default "orders"
		spec  string
		field string // none: it is accepted
		text  string
	}{
		"nothing":                           {spec: "{}", field: "spec.hubRef", text: "Required"},
		"a hub without a name":              {spec: "hubRef: {namespace: a}", field: "spec.hubRef.name", text: "Required"},
		"a hub of an empty name":            {spec: "hubRef: {name: ''}", field: "spec.hubRef.name", text: "should be at least 1 chars long"},
		"an empty pattern":                  {spec: "{hubRef: {name: a}, pattern: ''}", field: "spec.pattern", text: "should be at least 1 chars long"},
		"a pattern with an empty token":     {spec: "{hubRef: {name: a}, pattern: a..b}", field: "spec.pattern", text: "tokens joined by dots"},
		"a pattern with too many tokens":    {spec: "{hubRef: {name: a}, pattern: " + strings.Repeat("a.", 32) + "a}", field: "spec.pattern", text: "at most 32 tokens"},
		"a name with too many tokens":       {name: strings.Repeat("a.", 32) + "a", spec: "hubRef: {name: a}", field: "metadata.name", text: "must have at most 32 parts"},
		"a name that is no pattern, unused": {name: strings.Repeat("a.", 32) + "a", spec: "{hubRef: {name: a}, pattern: a}"},
		"negative history":                  {spec: "{hubRef: {name: a}, history: {maxArtifacts: -1}}", field: "spec.history.maxArtifacts", text: "greater than or equal to 0"},
		"history of no time":                {spec: "{hubRef: {name: a}, history: {maxAge: 0s}}", field: "spec.history.maxAge", text: "must be a duration above zero"},
		"a filter too long":                 {spec: "{hubRef: {name: a}, filter: '" + strings.Repeat("x", 4097) + "'}", field: "spec.filter", text: "may not be more than 4096"},
		"a deletion policy of a Hub":        {spec: "{hubRef: {name: a}, deletionPolicy: Delete}", field: "spec.deletionPolicy", text: `supported values: "Retain", "Purge"`},
		"all there is":                      {spec: "{hubRef: {name: a, namespace: b}, pattern: 'a.*.>', history: {maxArtifacts: 1, maxBytes: 1Mi, maxAge: 1h}, filter: 'true', deletionPolicy: Purge}"},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.name == "" {
				tt.name = "orders"
			}
			err := c.Create(t.Context(), rawTopic(t, ns, tt.name, tt.spec), client.DryRunAll)
			switch {
			case tt.field == "" && err != nil:
				t.Errorf("create = %v, want it accepted", err)
			case tt.field != "" && (!apierrors.IsInvalid(err) || !strings.Contains(err.Error(), tt.field+":") || !strings.Contains(err.Error(), tt.text)):
				t.Errorf("create = %v\nwant the field %s and the text %q", err, tt.field, tt.text)
			}
		})
	}
}

func TestAPIServerRefusesToMoveATopic(t *testing.T) {
	c := useCluster(t)
	ns := c.namespace(t)
	const before = "{hubRef: {name: a}, pattern: orders.>}"
	if err := c.Create(t.Context(), rawTopic(t, ns, "orders", before)); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ spec, field string }{
		"to another hub":       {"{hubRef: {name: b}, pattern: orders.>}", "spec.hubRef"},
		"to another namespace": {"{hubRef: {name: a, namespace: b}, pattern: orders.>}", "spec.hubRef"},
		"to another pattern":   {"{hubRef: {name: a}, pattern: orders.*}", "spec.pattern"},
		"to its name":          {"{hubRef: {name: a}}", "spec.pattern"},
		"nowhere":              {"{hubRef: {name: a}, pattern: orders.>, filter: 'true', history: {maxArtifacts: 1}, deletionPolicy: Purge}", ""},
	} {
		t.Run(name, func(t *testing.T) {
			topic := rawTopic(t, ns, "orders", tt.spec)
			// The operator writes the Topic's status meanwhile.
			err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
				if err := c.Get(t.Context(), client.ObjectKeyFromObject(topic), topic); err != nil {
					return err
				}
				topic.Object["spec"] = rawTopic(t, ns, "orders", tt.spec).Object["spec"]
				return c.Update(t.Context(), topic, client.DryRunAll)
			})
			switch {
			case tt.field == "" && err != nil:
				t.Errorf("update = %v, want it accepted", err)
			case tt.field != "" && (!apierrors.IsInvalid(err) || !strings.Contains(err.Error(), tt.field+": ") || !strings.Contains(err.Error(), "can't be changed: make a new Topic")):
				t.Errorf("update = %v, want %s refused", err, tt.field)
			}
		})
	}
}

func TestAPIServerRefusesAnotherLoadBalancerClass(t *testing.T) {
	c := useCluster(t)
	ns := c.namespace(t)
	const class = "{replicas: 0, service: {type: LoadBalancer, loadBalancerClass: fast}}"
	const none = "{replicas: 0, service: {type: LoadBalancer}}"
	const inside = "replicas: 0"
	for name, tt := range map[string]struct {
		before, after string
		refused       bool
	}{
		"another class":                    {class, "service: {type: LoadBalancer, loadBalancerClass: slow}", true},
		"no class any more":                {class, none, true},
		"a class where there was none":     {none, class, true},
		"the same class":                   {class, "service: {type: LoadBalancer, loadBalancerClass: fast, annotations: {a: b}}", false},
		"none, as before":                  {none, "service: {type: LoadBalancer, externalTrafficPolicy: Local}", false},
		"no load balancer any more":        {class, "service: {type: ClusterIP}", false},
		"no service any more":              {class, inside, false},
		"a load balancer, where none was":  {inside, class, false},
		"a load balancer, of another type": {"{replicas: 0, service: {type: NodePort}}", class, false},
	} {
		t.Run(name, func(t *testing.T) {
			hub := rawHub(t, ns, "agents", tt.before)
			hub.SetName("")
			hub.SetGenerateName("agents-")
			if err := c.Create(t.Context(), hub); err != nil {
				t.Fatal(err)
			}
			err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
				if err := c.Get(t.Context(), client.ObjectKeyFromObject(hub), hub); err != nil {
					return err
				}
				hub.Object["spec"] = rawHub(t, ns, "agents", tt.after).Object["spec"]
				return c.Update(t.Context(), hub, client.DryRunAll)
			})
			switch {
			case !tt.refused && err != nil:
				t.Errorf("update = %v, want it accepted", err)
			case tt.refused && (!apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "spec.service.loadBalancerClass: ") || !strings.Contains(err.Error(), "can't be changed while the type is LoadBalancer: make it ClusterIP first")):
				t.Errorf("update = %v, want spec.service.loadBalancerClass refused", err)
			}
		})
	}
}
