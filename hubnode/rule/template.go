package rule

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/switchboardhub/switchboard/hubnode/topic"
	"github.com/switchboardhub/switchboard/wire"
)

// Kind is what a template makes.
type Kind int

// The kinds.
const (
	Topics Kind = iota // a pattern of topics
	IDs                // a glob of client ids
)

// Placeholders are what may stand in a template, in braces.
const (
	Namespace      = "namespace"
	ServiceAccount = "serviceAccount"
	Name           = "name"
	ID             = "id"
	claimPrefix    = "claims." // and the claim's name
)

// placeholders lists them for those who named another one.
const placeholders = "{namespace}, {serviceAccount}, {name}, {id} and {claims.NAME}"

// Values are what a client's placeholders stand for.
type Values struct {
	Subject

	ID wire.ClientID
}

// Template is a pattern of topics, or a glob of client ids, with placeholders. It
// does not change and is safe for concurrent use.
type Template struct {
	kind  Kind
	parts []part
}

// part is text, or a placeholder.
type part struct {
	text string
	hole bool // text is the placeholder's name
}

// Parse reads a template. What is left with any token or text in the place of its
// placeholders must be a valid pattern or client id, and must not begin with "$":
// names of the hub itself are not for rules. Braces stand for nothing else.
func Parse(kind Kind, text string) (*Template, error) {
	t := &Template{kind: kind}
	for left := text; left != ""; {
		before, after, found := strings.Cut(left, "{")
		if strings.Contains(before, "}") {
			return nil, fmt.Errorf("%.80q has a } without its {", text)
		}
		if before != "" {
			t.parts = append(t.parts, part{text: before})
		}
		if !found {
			break
		}
		name, rest, closed := strings.Cut(after, "}")
		if !closed || strings.Contains(name, "{") {
			return nil, fmt.Errorf("%.80q has a { without its }", text)
		}
		if !known(name) {
			return nil, fmt.Errorf("%.80q has the placeholder {%.40s}; there are %s", text, name, placeholders)
		}
		t.parts = append(t.parts, part{text: name, hole: true})
		left = rest
	}
	if err := kind.check(t.fill("x")); err != nil {
		if len(t.parts) > 1 || len(t.parts) == 1 && t.parts[0].hole {
			return nil, fmt.Errorf("%.80q, with x for each placeholder: %w", text, err)
		}
		return nil, err
	}
	return t, nil
}

func known(name string) bool {
	switch name {
	case Namespace, ServiceAccount, Name, ID:
		return true
	}
	claim, ok := strings.CutPrefix(name, claimPrefix)
	return ok && claim != "" && !strings.ContainsFunc(claim, isSpaceOrControl)
}

func (k Kind) check(text string) error {
	if strings.HasPrefix(text, topic.ReservedPrefix) {
		return fmt.Errorf("%.80q is the hub's own: what begins with %s is allowed by admin", text, topic.ReservedPrefix)
	}
	if k == Topics {
		return topic.CheckPattern(text)
	}
	err := wire.CheckClientID(text)
	if coded, ok := errors.AsType[*wire.Error](err); ok {
		return errors.New(coded.Detail)
	}
	return err
}

// Has reports whether a placeholder is in t.
func (t *Template) Has(placeholder string) bool {
	for _, p := range t.parts {
		if p.hole && p.text == placeholder {
			return true
		}
	}
	return false
}

// Expand puts values into t. It reports false when t then allows nothing: a value
// is missing, or has characters by which the result would match more than t with
// a literal token or text in that place.
func (t *Template) Expand(v *Values) (string, bool) {
	if len(t.parts) == 1 && !t.parts[0].hole {
		return t.parts[0].text, true // as most are
	}
	var b strings.Builder
	for _, p := range t.parts {
		text := p.text
		if p.hole {
			text = v.of(p.text)
			if !t.kind.literal(text) {
				return "", false
			}
		}
		b.WriteString(text)
	}
	text := b.String()
	return text, t.kind.check(text) == nil
}

// Widest returns the pattern or glob without placeholders that covers whatever t
// expands to, and no wider than it has to be.
func (t *Template) Widest() string {
	if t.kind == IDs {
		return t.fill(string(star))
	}
	const hole = "\x00" // in no valid pattern
	tokens := strings.Split(t.fill(hole), ".")
	for i, token := range tokens {
		if strings.Contains(token, hole) {
			tokens[i] = "*" // a value is part of one token
		}
	}
	return strings.Join(tokens, ".")
}

// fill puts the same text into all placeholders.
func (t *Template) fill(value string) string {
	var b strings.Builder
	for _, p := range t.parts {
		if p.hole {
			b.WriteString(value)
		} else {
			b.WriteString(p.text)
		}
	}
	return b.String()
}

// literal reports whether a value stands for itself only.
func (k Kind) literal(value string) bool {
	wild := string(star)
	if k == Topics {
		wild = ".*>"
	}
	return value != "" && !strings.ContainsAny(value, wild) &&
		!strings.ContainsFunc(value, func(r rune) bool { return !plainRune(r) })
}

// of returns a placeholder's value, empty when there is none.
func (v *Values) of(name string) string {
	switch name {
	case Namespace:
		return v.Namespace
	case ServiceAccount:
		return v.ServiceAccount
	case Name:
		return v.Name
	case ID:
		return v.ID
	}
	claim, _ := strings.CutPrefix(name, claimPrefix)
	text, _ := v.Claims[claim].(string) // of what is no text there is no one way to write it
	return text
}

func isSpaceOrControl(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }
