package auth

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/bcrypt"
)

const (
	staticMax     = 10_000  // tokens of a list
	listMax       = 4 << 20 // bytes of a list
	saltAndSum    = 53      // characters of a hash of bcrypt behind its cost
	checksAtATime = 1       // bcrypt takes tens of milliseconds of CPU: that is its purpose
)

var errWrongToken = errors.New("the token is not one of this hub's")

// staticTokens are those of a list, as htpasswd writes it: name:hash, and for us
// :groups behind it.
type staticTokens struct {
	path   string
	secret []byte // of digests, so that memory does not hold what a token's SHA-256 is
	slots  chan struct{}
	lanes  lanes

	mu     sync.Mutex // guards the fields below
	byName map[string]staticToken
	nobody []byte                       // is compared under names that are not there
	known  map[string][sha256.Size]byte // of tokens that were right, by name: bcrypt is slow
}

type staticToken struct {
	hash   []byte
	groups []string
}

// nobody returns the hash that is compared where there is no such name. It takes as long as
// the most costly of the list, so that in a list of one cost, as a tool writes it, the time
// does not tell which names there are. It is of no secret that anybody knows, is made without
// bcrypt, and whatever matches it is refused as well.
func nobody(byName map[string]staticToken) []byte {
	highest := 0
	for _, t := range byName {
		if cost, err := bcrypt.Cost(t.hash); err == nil {
			highest = max(highest, cost)
		}
	}
	if highest == 0 {
		highest = bcrypt.DefaultCost
	}
	return fmt.Appendf(nil, "$2a$%02d$%s", highest, strings.Repeat(".", saltAndSum))
}

func newStatic(path string) *staticTokens {
	s := &staticTokens{
		path: path, secret: make([]byte, sha256.Size), slots: make(chan struct{}, checksAtATime),
		nobody: nobody(nil), known: make(map[string][sha256.Size]byte),
	}
	_, _ = rand.Read(s.secret) // never fails: it crashes the program instead
	return s
}

func (s *staticTokens) reread() error {
	info, err := os.Stat(s.path)
	if err == nil && info.Size() > listMax {
		err = fmt.Errorf("it has more than %d bytes", listMax)
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(s.path)
	}
	if err != nil {
		return fmt.Errorf("read the static tokens: %w", err)
	}
	byName, err := parseStatic(text)
	if err != nil {
		return fmt.Errorf("%s: %w", s.path, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.known {
		if !bytes.Equal(s.byName[name].hash, byName[name].hash) {
			delete(s.known, name)
		}
	}
	s.byName, s.nobody = byName, nobody(byName)
	return nil
}

// CheckList says what is wrong with a list of static tokens, nil when nothing is. It repeats
// nothing of it.
func CheckList(text []byte) error {
	_, err := parseStatic(text)
	return err
}

// parseStatic reads a list. Its errors repeat nothing of it: where a name should be there may be a
// secret.
func parseStatic(text []byte) (map[string]staticToken, error) {
	byName := make(map[string]staticToken)
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, rest, ok := strings.Cut(line, ":")
		hash, groups, _ := strings.Cut(rest, ":")
		switch {
		case !ok || name == "" || len(name) > maxName || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsSpace):
			return nil, fmt.Errorf("line %d: want NAME:HASH or NAME:HASH:GROUP,GROUP, as htpasswd -nB writes it", n)
		case byName[name].hash != nil:
			return nil, fmt.Errorf("line %d: its name is that of a line before", n)
		case len(byName) == staticMax:
			return nil, fmt.Errorf("line %d: more than %d tokens", n, staticMax)
		}
		if _, err := bcrypt.Cost([]byte(hash)); err != nil {
			return nil, fmt.Errorf("line %d: the hash is not one of bcrypt (htpasswd -nB makes one)", n)
		}
		t := staticToken{hash: []byte(hash)}
		for g := range strings.SplitSeq(groups, ",") {
			if g = strings.TrimSpace(g); g != "" {
				t.groups = append(t.groups, g)
			}
		}
		byName[name] = t
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	return byName, nil
}

// identify finds out whose token NAME:SECRET is.
func (s *staticTokens) identify(ctx context.Context, from, token string) (Identity, error) {
	name, secret, _ := strings.Cut(token, ":")
	digest := s.digest(token)
	s.mu.Lock()
	entry, ok := s.entryLocked(name)
	known, remembered := s.known[name]
	s.mu.Unlock()
	if !remembered || !hmac.Equal(known[:], digest[:]) {
		if err := s.compare(ctx, from, entry, ok, secret); err != nil {
			return Identity{}, err
		}
		s.mu.Lock()
		if now, still := s.byName[name]; still && bytes.Equal(now.hash, entry.hash) {
			s.known[name] = digest
		}
		s.mu.Unlock()
	}
	return Identity{Method: Static, Name: name, Groups: entry.groups, hash: string(entry.hash)}, nil
}

// entryLocked returns what a secret is compared with under a name, and whether the list has it.
func (s *staticTokens) entryLocked(name string) (staticToken, bool) {
	entry, ok := s.byName[name]
	if !ok {
		entry.hash = s.nobody
	}
	return entry, ok
}

func (s *staticTokens) digest(token string) (sum [sha256.Size]byte) {
	mac := hmac.New(sha256.New, s.secret)
	_, _ = mac.Write([]byte(token)) // never fails
	copy(sum[:], mac.Sum(nil))
	return sum
}

// errBusy refuses a token that was not looked at.
var errBusy = errors.New("too many tokens to check at a time: try again")

// compare looks at a secret with all the CPU that bcrypt means it to take, one after
// another, and of those from one place one at a time: who guesses holds up others that
// guess from there, and nobody else for long.
func (s *staticTokens) compare(ctx context.Context, from string, entry staticToken, ok bool, secret string) error {
	leave, err := s.lanes.enter(ctx, from)
	if err != nil {
		return err
	}
	defer leave()
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return errBusy
	}
	if err := bcrypt.CompareHashAndPassword(entry.hash, []byte(secret)); err != nil || !ok {
		return errWrongToken
	}
	return nil
}

// holds reports whether the list still has what an identity was found by.
func (s *staticTokens) holds(id *Identity) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.byName[id.Name]
	return string(now.hash) == id.hash && id.hash != "" && slices.Equal(now.groups, id.Groups) // it never expires: or it would have a group for ever
}
