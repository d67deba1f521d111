package config_test

import (
	"encoding"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/switchboardhub/switchboard/hubnode/config"
)

func TestReferenceNamesEveryField(t *testing.T) {
	data, err := os.ReadFile("../../docs/reference/config.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	known := make(map[string]bool)
	for _, path := range paths(reflect.TypeFor[config.Config](), "") {
		known[path] = true
		if !strings.Contains(page, "\n| `"+path+"` |") {
			t.Errorf("docs/reference/config.md has no row for %s", path)
		}
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `(.+?)` \\|.*\\| (.*) \\|$").FindAllStringSubmatch(page, -1) {
		if !known[row[1]] {
			t.Errorf("docs/reference/config.md has a row for %s, which there is not", row[1])
		}
		top, _, _ := strings.Cut(row[1], ".")
		want := "reload"
		if _, ok := map[string]bool{"hub": true, "node": true, "listen": true, "advertise": true, "gossipKeyFile": true}[top]; ok {
			want = "restart"
		}
		switch {
		case row[1] == "tls.directory" || row[1] == "tls.clusterDirectory":
			want = "restart"
		case row[1] == "storage.shards":
			want = "never"
		case top == "storage" && row[1] != "storage.replicas":
			want = "restart"
		}
		if row[2] != want {
			t.Errorf("docs/reference/config.md says %q of a change to %s, want %q", row[2], row[1], want)
		}
	}
}

func TestReferenceShowsAFileThatIsValid(t *testing.T) {
	data, err := os.ReadFile("../../docs/reference/config.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(data), "```yaml\n")
	example, _, _ := strings.Cut(after, "```")
	if _, err := config.Parse([]byte(example)); err != nil {
		t.Error(err)
	}
}

// paths returns the path of every field that holds a value.
func paths(t reflect.Type, at string) []string {
	switch {
	case reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
	case t.Kind() == reflect.Pointer:
		return paths(t.Elem(), at)
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		return paths(t.Elem(), at+"[]")
	case t.Kind() == reflect.Struct:
		var all []string
		for field := range t.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
			all = append(all, paths(field.Type, strings.TrimPrefix(at+"."+name, "."))...)
		}
		return all
	}
	return []string{at}
}
