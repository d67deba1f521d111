package kubehub

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
)

const redacted = "REDACTED"

// redactor takes out what looks like a secret, and remembers the values of
// environment variables, to find them elsewhere, too.
type redactor struct {
	values map[string]bool
	scrub  *strings.Replacer // of the values
	count  int
}

// scrubAtLeast is how long a value is that is looked for in texts: shorter ones are
// words that mean nothing.
const scrubAtLeast = 6

const secretWords = `(?:password|passwd|passphrase|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credential|authorization|cookie)`

var (
	// secretKey is the name of something that is a secret.
	secretKey = regexp.MustCompile(`(?i)` + secretWords)
	// secretPair is such a name with its value, in JSON (also quoted in JSON), YAML,
	// logfmt or a query.
	secretPair = regexp.MustCompile(`(?i)([\w.-]*` + secretWords + `[\w.-]*(?:\\*["'])?[ \t]*[:=][ \t]*)` +
		`(\\+"[^"\\]*\\+"|"(?:[^"\\]|\\.)*"|'[^']*'|(?:bearer|basic)[ \t]+[^\s"',;\\]+|[^\s"',;&}\\]+)`)
	// secretShape is what is a secret whatever its name.
	secretShape = regexp.MustCompile(strings.Join([]string{
		`-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z ]*PRIVATE KEY-----|\z)`,
		// The same in base64, as a Secret is written: of the kinds PRIVATE KEY, and EC, RSA and ENCRYPTED.
		`LS0tLS1CRUdJTiB(?:QUklWQVRF|FQyBQUklWQVRF|SU0EgUFJJVkFURS|FTkNSWVBURUQgUFJJVkFURS)[A-Za-z0-9+/]*={0,2}`,
		`\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*`,      // JSON web tokens
		`(?i:\bbearer[ \t]+)[\w.~+/-]{8,}=*`,  //
		`\b[A-Za-z0-9+/]{43}=`,                // keys of 32 bytes, as the gossip key is one
		`\b[A-Za-z0-9+/]{22}==`,               // of 16, as it may be
		`\$2[abxy]\$\d\d\$[./A-Za-z0-9]{53}`,  // hashes of bcrypt, as of static tokens
		`\b(?:AKIA|ASIA)[A-Z0-9]{16}\b`,       // Amazon
		`\b(?:gh[pousr]_|github_pat_)\w{20,}`, // GitHub
		`\bglpat-[\w-]{16,}`,                  // GitLab
		`\bxox[a-z]-[\w-]{10,}`,               // Slack
		`\bsk-[\w-]{20,}`,                     //
		`\bAIza[\w-]{30,}`,                    // Google
		`\b[a-z0-9]{6}\.[a-z0-9]{16}\b`,       // Kubernetes' bootstrap tokens
		`\bhvs\.[\w-]{20,}`,                   // Vault
	}, "|"))
	// userInfo is a password in a URL.
	userInfo = regexp.MustCompile(`(://[^\s/:@"']*:)[^\s/@"']+(@)`)
)

// ourVariables are environment variables whose values the operator or the chart sets.
var ourVariables = []string{"GOMEMLIMIT", "SWITCHBOARD_NODE_IMAGE", "SWITCHBOARD_CLUSTER_TLS", "SWITCHBOARD_CA_FILE"}

// lastApplied repeats what a person applied, with everything in it.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// text returns b without what looks like a secret.
func (r *redactor) text(b []byte) []byte {
	if r.scrub == nil {
		r.prepare()
	}
	if len(r.values) > 0 {
		clean := []byte(r.scrub.Replace(string(b)))
		r.noteIf(!bytes.Equal(clean, b))
		b = clean
	}
	b = secretShape.ReplaceAllFunc(b, func([]byte) []byte { r.count++; return []byte(redacted) })
	b = userInfo.ReplaceAllFunc(b, func(m []byte) []byte {
		r.count++
		return userInfo.ReplaceAll(m, []byte("${1}"+redacted+"${2}"))
	})
	return secretPair.ReplaceAllFunc(b, func(m []byte) []byte {
		parts := secretPair.FindSubmatch(m)
		value := parts[2]
		if bytes.Contains(value, []byte(redacted)) || len(bytes.Trim(value, `\"'`)) == 0 {
			return m
		}
		quote := value[:len(value)-len(bytes.TrimLeft(value, `\"'`))]
		r.count++
		return slices.Concat(parts[1], quote, []byte(redacted), quote)
	})
}

func (r *redactor) noteIf(changed bool) {
	if changed {
		r.count++
	}
}

// prepare makes the replacer of the values, the longest first: one may be part of
// another.
func (r *redactor) prepare() {
	var pairs []string
	values := make([]string, 0, len(r.values))
	for v := range r.values {
		values = append(values, v)
	}
	slices.SortFunc(values, func(a, b string) int { return len(b) - len(a) })
	for _, v := range values {
		pairs = append(pairs, v, redacted)
	}
	r.scrub = strings.NewReplacer(pairs...)
}

// learn remembers the values of the environment variables in an object.
func (r *redactor) learn(v any) {
	eachVariable(v, func(variable map[string]any, value string) {
		if len(value) < scrubAtLeast {
			return
		}
		if r.values == nil {
			r.values = make(map[string]bool)
		}
		r.values[value], r.scrub = true, nil
	})
}

// eachVariable calls f with each literal value of an environment variable that is
// not ours.
func eachVariable(v any, f func(variable map[string]any, value string)) {
	switch v := v.(type) {
	case map[string]any:
		for key, inner := range v {
			if variables, ok := inner.([]any); ok && key == "env" {
				for _, one := range variables {
					if variable, ok := one.(map[string]any); ok {
						name, _ := variable["name"].(string)
						if value, ok := variable["value"].(string); ok && !slices.Contains(ourVariables, name) {
							f(variable, value)
						}
					}
				}
			}
			eachVariable(inner, f)
		}
	case []any:
		for _, inner := range v {
			eachVariable(inner, f)
		}
	}
}

// object takes out of an object, in place, what may be secret and what is noise.
func (r *redactor) object(v any) {
	eachVariable(v, func(variable map[string]any, _ string) {
		variable["value"] = redacted
		r.count++
	})
	r.strings(v)
}

func (r *redactor) strings(v any) {
	switch v := v.(type) {
	case map[string]any:
		delete(v, "managedFields")
		for key, inner := range v {
			text, isText := inner.(string)
			switch {
			case !isText:
				r.strings(inner)
			case text == "" || text == redacted || key == "secretName": // a name
			case key == lastApplied || secretKey.MatchString(key):
				v[key] = redacted
				r.count++
			default:
				v[key] = string(r.text([]byte(text)))
			}
		}
	case []any:
		for i, inner := range v {
			if text, ok := inner.(string); ok {
				v[i] = string(r.text([]byte(text)))
			} else {
				r.strings(inner)
			}
		}
	}
}
