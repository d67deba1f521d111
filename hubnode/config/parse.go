package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Parse reads a configuration over the defaults. Unknown fields, values of the
// wrong kind and violated rules are all named in one error, which joins a
// [*FieldError] for each. What is not YAML at all gives an error of its own.
func Parse(data []byte) (Config, error) {
	c := Default()
	root, err := parseYAML(data)
	if err != nil {
		return Config{}, err
	}
	d := decoder{lines: make(map[string]int)}
	if root != nil {
		d.decode(root, reflect.ValueOf(&c).Elem(), "")
	}
	faults := d.errs
	for _, fault := range c.check() {
		fault.Line = d.lineOf(fault.Path)
		if !slices.ContainsFunc(d.errs, func(e *FieldError) bool { return within(fault.Path, e.Path) }) {
			faults = append(faults, fault)
		}
	}
	if len(faults) > 0 {
		slices.SortStableFunc(faults, func(a, b *FieldError) int { return a.Line - b.Line })
		return Config{}, joinFaults(faults)
	}
	return c, nil
}

// parseYAML returns the only document's root, nil when there is none.
func parseYAML(data []byte) (*yaml.Node, error) {
	in := yaml.NewDecoder(bytes.NewReader(data))
	var document, more yaml.Node
	switch err := in.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil, nil // an empty file is one that says nothing
	case err != nil:
		return nil, err
	}
	if err := in.Decode(&more); err == nil {
		return nil, fmt.Errorf("yaml: line %d: more than one document", more.Line)
	} else if !errors.Is(err, io.EOF) {
		return nil, err
	}
	return document.Content[0], nil
}

// within reports whether a path is another one, or leads below it: what could
// not be decoded has been named, and the rules have nothing to add.
func within(path, outer string) bool {
	below, ok := strings.CutPrefix(path, outer)
	return ok && (outer == "" || below == "" || below[0] == '.' || below[0] == '[')
}

// Load is [Parse] for a file.
func Load(path string) (Config, error) {
	data, err := os.ReadFile(path) //nolint:gosec // whoever runs the node names the file
	if err != nil {
		return Config{}, fmt.Errorf("read config: %w", err)
	}
	c, err := Parse(data)
	if err != nil {
		return Config{}, fmt.Errorf("config %s: %w", path, err)
	}
	return c, nil
}

// Marshal writes the file for c in the one form that Parse reads back as c:
// fields in the order of Config, optional ones only when they are set. It does
// not validate.
func (c Config) Marshal() ([]byte, error) {
	var out bytes.Buffer
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	if err := e.Encode(c); err != nil {
		return nil, fmt.Errorf("write config: %w", err)
	}
	if err := e.Close(); err != nil {
		return nil, fmt.Errorf("write config: %w", err)
	}
	return out.Bytes(), nil
}
