package secrets_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/internal/throwaway"
	"github.com/switchboardhub/switchboard/test/secrets"
)

// ways are those in which a program may say something, on purpose or by mistake.
var ways = map[string]func(secret []byte) string{
	"as it is":        func(s []byte) string { return string(s) },
	"within a text":   func(s []byte) string { return "open " + string(s) + ": no such file" },
	"quoted":          func(s []byte) string { return fmt.Sprintf("%q", s) },
	"quoted in ASCII": func(s []byte) string { return fmt.Sprintf("%+q", s) },
	"half of it":      func(s []byte) string { return fmt.Sprintf("%.12q", s) },
	"the other half":  func(s []byte) string { return "…" + string(s[len(s)/2:]) },
	"in hex":          func(s []byte) string { return fmt.Sprintf("%x", s) },
	"in large hex":    func(s []byte) string { return fmt.Sprintf("%X", s) },
	"in spaced hex":   func(s []byte) string { return fmt.Sprintf("% x", s) },
	"dumped":          func(s []byte) string { return strings.ReplaceAll(hex.Dump(s), "  ", " ") },
	"as numbers":      func(s []byte) string { return fmt.Sprintf("%d", s) },
	"as numbers in Go": func(s []byte) string {
		return strings.Join(strings.Fields(strings.Trim(fmt.Sprintf("%d", s), "[]")), ", ")
	},
	"in base64": base64.StdEncoding.EncodeToString,
	"in base64, behind one byte": func(s []byte) string {
		return base64.StdEncoding.EncodeToString(append([]byte("a"), s...))
	},
	"in base64, behind two": func(s []byte) string {
		return base64.RawURLEncoding.EncodeToString(append([]byte("ab"), s...))
	},
	"as basic authentication": func(s []byte) string {
		return "Authorization: Basic " + base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "alice:%s", s))
	},
	"in a query": func(s []byte) string { return "GET /?" + url.Values{"token": {string(s)}}.Encode() },
	"in a path":  func(s []byte) string { return "/v1/" + url.PathEscape(string(s)) },
	"in JSON": func(s []byte) string {
		b, err := json.Marshal(map[string]any{"token": string(s)})
		if err != nil {
			panic(err)
		}
		return string(b)
	},
	"in JSON as bytes": func(s []byte) string {
		b, err := json.Marshal(map[string]any{"token": s})
		if err != nil {
			panic(err)
		}
		return string(b)
	},
	"in a log": func(s []byte) string {
		var b bytes.Buffer
		slog.New(slog.NewTextHandler(&b, nil)).Info("x", slog.String("token", string(s)))
		return b.String()
	},
	"in a log, in JSON": func(s []byte) string {
		var b bytes.Buffer
		slog.New(slog.NewJSONHandler(&b, nil)).Info("x", slog.Any("token", s))
		return b.String()
	},
	"in a struct": func(s []byte) string { return fmt.Sprintf("%+v", struct{ Token []byte }{s}) },
}

func TestSecretsAreFoundHoweverTheyAreSaid(t *testing.T) {
	binary := make([]byte, 32)
	_, _ = rand.Read(binary)
	for name, secret := range map[string][]byte{
		"text":           []byte(rand.Text()),
		"text to escape": []byte("a/b+c=d&e \"f\"\n" + rand.Text()),
		"bytes":          binary,
		"a line":         []byte(base64.StdEncoding.EncodeToString(binary)),
	} {
		for way, say := range ways {
			var set secrets.Set
			set.Add(t, "it", secret)
			set.AddText(t, "another", rand.Text())
			text := say(secret)
			if name == "bytes" && strings.HasPrefix(way, "in a log") && !strings.Contains(way, "JSON") || name == "bytes" && way == "in JSON" {
				continue // what is no text is lost on the way
			}
			found := set.Find([]byte("before\n" + text + "\nbehind"))
			if len(found) != 1 || found[0].Name != "it" {
				t.Errorf("%s, %s: found %v in %s", name, way, found, text)
			}
			if other := set.Find([]byte(say([]byte(rand.Text())))); len(other) != 0 {
				t.Errorf("%s: found %v where none is", way, other)
			}
		}
	}
}

func TestEveryPieceOfASecretIsFound(t *testing.T) {
	secret := rand.Text()
	var set secrets.Set
	set.AddText(t, "it", secret)
	for at := 0; at+12 <= len(secret); at++ {
		if len(set.Find([]byte("x"+secret[at:at+12]+"x"))) != 1 {
			t.Errorf("12 bytes from %d on are not found", at)
		}
		if len(set.Find([]byte("x"+secret[at:at+11]+"\n"))) != 0 {
			t.Errorf("11 bytes from %d on are", at)
		}
	}
}

func TestKeysAreFoundAndCertificatesAreNot(t *testing.T) {
	ca, err := throwaway.New()
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := ca.Issue(time.Now().Add(time.Hour), "localhost")
	if err != nil {
		t.Fatal(err)
	}
	var set secrets.Set
	set.AddKey(t, "the key", key)
	lines := strings.Split(string(key), "\n")
	for name, text := range map[string]string{
		"as it is": string(key), "in base64": base64.StdEncoding.EncodeToString(key), "in JSON": fmt.Sprintf("%q", key),
		"a line": lines[1], "in a URL": url.QueryEscape(lines[1]),
	} {
		if len(set.Find([]byte(text))) != 1 {
			t.Errorf("%s it is not found: %s", name, text)
		}
	}
	if found := set.Find(cert); len(found) != 0 {
		t.Errorf("found %v in a certificate", found)
	}
}
