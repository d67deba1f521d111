package config

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// decoder fills a struct from a YAML tree. Unlike the decoder of the yaml
// package it goes on after every kind of fault and knows the path of each.
type decoder struct {
	errs  []*FieldError
	lines map[string]int // of what the file gives, by path
}

func (d *decoder) fail(n *yaml.Node, path, format string, args ...any) {
	d.errs = append(d.errs, &FieldError{Path: path, Line: n.Line, Reason: fmt.Sprintf(format, args...)})
}

// lineOf returns where the file gives a field, or else what the field is
// missing from; zero when that is the whole file.
func (d *decoder) lineOf(path string) int {
	for path != "" {
		if line, ok := d.lines[path]; ok {
			return line
		}
		path = path[:max(0, strings.LastIndexByte(path, '.'))]
	}
	return 0
}

// decode sets v to what n says. Null leaves v as it is, as if the field were
// absent.
func (d *decoder) decode(n *yaml.Node, v reflect.Value, path string) {
	d.lines[path] = n.Line
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	if text, ok := reflect.TypeAssert[encoding.TextUnmarshaler](v.Addr()); ok {
		d.text(n, text, path)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.mapping(n, v, path)
	case reflect.Slice:
		d.sequence(n, v, path)
	case reflect.String:
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
			d.fail(n, path, "must be a string, not %s", describe(n, path))
			return
		}
		v.SetString(n.Value)
	case reflect.Int:
		// Only the plain form: 010 is eight to some readers and ten to others.
		i, err := strconv.Atoi(n.Value)
		if n.ShortTag() != "!!int" || err != nil || strconv.Itoa(i) != n.Value {
			d.fail(n, path, "must be a whole number, not %s", describe(n, path))
			return
		}
		v.SetInt(int64(i))
	case reflect.Bool:
		if n.ShortTag() != "!!bool" || (n.Value != "true" && n.Value != "false") {
			d.fail(n, path, "must be true or false, not %s", describe(n, path))
			return
		}
		v.SetBool(n.Value == "true")
	default:
		panic("config: no decoding for " + v.Type().String()) // the tests decode every field
	}
}

func (d *decoder) text(n *yaml.Node, v encoding.TextUnmarshaler, path string) {
	if n.Kind != yaml.ScalarNode {
		d.fail(n, path, "must be a single value, not %s", describe(n, path))
		return
	}
	if err := v.UnmarshalText([]byte(n.Value)); err != nil {
		d.fail(n, path, "%v", err)
	}
}

func (d *decoder) sequence(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode {
		d.fail(n, path, "must be a list, not %s", describe(n, path))
		return
	}
	if len(n.Content) == 0 {
		return // nil, as when it is absent
	}
	list := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, element := range n.Content {
		d.decode(element, list.Index(i), path+"["+strconv.Itoa(i)+"]")
	}
	v.Set(list)
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.fail(n, path, "must be a mapping of fields, not %s", describe(n, path))
		return
	}
	names := fieldNames(v.Type())
	given := make(map[string]bool)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at := join(path, key.Value)
		index := -1
		for j, name := range names {
			if key.Kind == yaml.ScalarNode && key.Value == name {
				index = j
			}
		}
		switch {
		case index < 0:
			d.fail(key, at, "unknown field; there are %s", strings.Join(names, ", "))
		case given[key.Value]:
			d.fail(key, at, "is given twice")
		default:
			given[key.Value] = true
			d.decode(value, v.Field(index), at)
		}
	}
}

// fieldNames returns the YAML keys of a struct's fields, in their order.
func fieldNames(t reflect.Type) []string {
	names := make([]string, t.NumField())
	for i := range names {
		names[i], _, _ = strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
	}
	return names
}

// join appends a key, which may be anything, to a path.
func join(path, key string) string {
	if len(key) > 64 || key == "" || strings.ContainsFunc(key, func(r rune) bool {
		return r != '-' && r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	}) {
		key = fmt.Sprintf("%.64q", key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// describe names what a file has where something else should be. Where secrets are near, one
// may be in the wrong place.
func describe(n *yaml.Node, path string) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case !within(path, "authentication"):
		return fmt.Sprintf("%.40q", n.Value)
	case n.ShortTag() == "!!str":
		return "a text"
	default:
		return "a number or the like"
	}
}
