package wire

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestProtocolPageNamesEveryConstant keeps docs/reference/protocol.md true: it
// reads the constants from the source, so that a new one can't be forgotten.
func TestProtocolPageNamesEveryConstant(t *testing.T) {
	text, err := os.ReadFile("../docs/reference/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	found := map[string]int{}
	for name, value := range constants(t) {
		switch {
		case strings.HasPrefix(name, "Code"):
			found["code"]++
			mustContain(t, page, name, fmt.Sprintf("\n| %s | %s |", strings.TrimPrefix(name, "Code"), value))
		case strings.HasPrefix(name, "Flag"):
			found["flag"]++
			mustContain(t, page, name, fmt.Sprintf("\n| %s | %s |", name, value))
		case strings.HasPrefix(name, "Kind"):
			found["kind"]++
			kind := strings.TrimPrefix(name, "Kind")
			if between := regexp.MustCompile(`\b` + kind + ` ` + value + `\b`); !between.MatchString(page) {
				mustContain(t, page, name, fmt.Sprintf("\n| %s | %s |", kind, value))
			}
		}
	}
	if found["code"] < 20 || found["flag"] < 5 || found["kind"] < 20 {
		t.Errorf("only %v constants were found: the test has lost sight of the source", found)
	}
}

func mustContain(t *testing.T, page, name, row string) {
	t.Helper()
	if !strings.Contains(page, row) {
		t.Errorf("protocol.md has no row for %s: want one that starts with %q", name, strings.TrimSpace(row))
	}
}

// constants returns this package's constants and their values.
func constants(t *testing.T) map[string]string {
	t.Helper()
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range []string{"frame.go", "errors.go"} {
		f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	// These files use others of the package; what that leaves unknown is no
	// constant.
	config := types.Config{Importer: importer.ForCompiler(fset, "source", nil), Error: func(error) {}}
	pkg, _ := config.Check("wire", fset, files, nil)
	values := make(map[string]string)
	for _, name := range pkg.Scope().Names() {
		if c, ok := pkg.Scope().Lookup(name).(*types.Const); ok && c.Val().Kind() == constant.Int {
			values[name] = c.Val().ExactString()
		}
	}
	return values
}
