// Package secrets looks for secrets in what programs say, for tests that nothing says any.
package secrets

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"strconv"
	"strings"
	"testing"
)

const (
	// window is how much of a secret, in whatever form, is too much. No name, number or
	// sentence has as much in common with one by chance.
	window = 12
	// wideWindow is that for numbers in decimal, which say less in a byte.
	wideWindow = 24
	// shortest is how long a secret has to be, for half of one to be found.
	shortest = 2 * window
)

// Set is secrets to look for. Its zero value has none.
type Set struct {
	all []secret
	// pieces are all pieces of all forms of the secrets, by their length, and whose they are.
	pieces map[int]map[string]string
	// begins has a bit for each three bytes that a piece begins with: most text is passed
	// over by it.
	begins []uint64
}

type secret struct {
	name  string
	value []byte
}

// Finding is a piece of a secret that is where it should not be.
type Finding struct {
	Name string // of the secret
	Text string // what is around it
}

// Add adds a secret that is text or bytes. It has to have 24 bytes at least.
func (s *Set) Add(tb testing.TB, name string, value []byte) {
	tb.Helper()
	if len(value) < shortest {
		tb.Fatalf("%s has %d bytes: half of it could be anything", name, len(value))
	}
	s.all = append(s.all, secret{name, value})
	for _, form := range forms(value) {
		s.add(name, window, form)
	}
	// As fmt writes bytes, and JSON an array of them.
	for _, between := range []string{" ", ",", ", "} {
		s.add(name, wideWindow, decimal(value, between))
	}
}

// AddText is Add for a text.
func (s *Set) AddText(tb testing.TB, name, value string) {
	tb.Helper()
	s.Add(tb, name, []byte(value))
}

// AddKey adds what is secret of a private key in PEM: not what its certificate says, too.
func (s *Set) AddKey(tb testing.TB, name string, text []byte) {
	tb.Helper()
	block, _ := pem.Decode(text)
	if block == nil {
		tb.Fatalf("%s is not PEM", name)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		if parsed, err = x509.ParseECPrivateKey(block.Bytes); err != nil {
			tb.Fatalf("%s: %v", name, err)
		}
	}
	var value []byte
	switch key := parsed.(type) {
	case *ecdsa.PrivateKey:
		if value, err = key.Bytes(); err != nil {
			tb.Fatalf("%s: %v", name, err)
		}
		s.add(name, wideWindow, new(big.Int).SetBytes(value).String()) // as fmt writes it
	case ed25519.PrivateKey:
		value = key.Seed()
	default:
		tb.Fatalf("%s: a key of type %T", name, parsed)
	}
	s.Add(tb, name, value)
	for _, form := range forms(inPEM(block.Bytes, value)) {
		s.add(name, window, form)
	}
}

// inPEM returns the part of a PEM block's text that says a part of what is in it and nothing
// else.
func inPEM(all, part []byte) []byte {
	const line = 64
	from := bytes.Index(all, part)
	text := base64.StdEncoding.EncodeToString(all)
	var found []byte
	for i := (from + 2) / 3 * 4; i < (from+len(part))/3*4; i++ {
		if i%line == 0 {
			found = append(found, '\n')
		}
		found = append(found, text[i])
	}
	return found
}

// Each visits the secrets, in the order in which they were added.
func (s *Set) Each(visit func(name string, value []byte)) {
	for _, one := range s.all {
		visit(one.name, one.value)
	}
}

// Find returns which secrets a text holds a piece of, each once.
func (s *Set) Find(text []byte) []Finding {
	var all []Finding
	found := make(map[string]bool)
	for size, pieces := range s.pieces {
		for at := 0; at+size <= len(text); at++ {
			if n := beginning(text[at:]); s.begins[n/64]&(1<<(n%64)) == 0 {
				continue
			}
			name, ok := pieces[string(text[at:at+size])]
			if !ok || found[name] {
				continue
			}
			found[name] = true
			all = append(all, Finding{name, string(text[max(0, at-160):min(len(text), at+160)])})
		}
	}
	return all
}

// Check fails a test for each secret that a text holds a piece of. where says whose text
// it is.
func (s *Set) Check(tb testing.TB, where string, text []byte) {
	tb.Helper()
	for _, f := range s.Find(text) {
		tb.Errorf("%s: holds (a piece of) %s:\n…%s…", where, f.Name, f.Text)
	}
}

// add adds the pieces of one form of a secret.
func (s *Set) add(name string, size int, form string) {
	if s.pieces == nil {
		s.pieces, s.begins = make(map[int]map[string]string), make([]uint64, 1<<24/64)
	}
	if s.pieces[size] == nil {
		s.pieces[size] = make(map[string]string)
	}
	for at := 0; at+size <= len(form); at++ {
		s.pieces[size][form[at:at+size]] = name
		n := beginning(form[at:])
		s.begins[n/64] |= 1 << (n % 64)
	}
}

// beginning is the first three bytes of a text, as a number.
func beginning[T string | []byte](text T) uint32 {
	return uint32(text[0])<<16 | uint32(text[1])<<8 | uint32(text[2])
}

// forms returns a secret as programs may write it.
func forms(secret []byte) []string {
	text := string(secret)
	all := []string{
		text, strconv.Quote(text), strconv.QuoteToASCII(text), url.QueryEscape(text), url.PathEscape(text),
		strings.ToLower(url.QueryEscape(text)),
		hex.EncodeToString(secret), strings.ToUpper(hex.EncodeToString(secret)),
		fmt.Sprintf("% x", secret), fmt.Sprintf("% X", secret),
	}
	if quoted, err := json.Marshal(text); err == nil { // a text always can be
		all = append(all, string(quoted))
	}
	// What is before it decides how its bytes fall into groups of three.
	for skip := range 3 {
		rest := secret[skip:]
		rest = rest[:len(rest)/3*3]
		all = append(all, base64.StdEncoding.EncodeToString(rest), base64.URLEncoding.EncodeToString(rest))
	}
	return all
}

func decimal(b []byte, between string) string {
	all := make([]string, len(b))
	for i, n := range b {
		all[i] = strconv.Itoa(int(n))
	}
	return strings.Join(all, between)
}
