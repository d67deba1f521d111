// Package config is the file that the operator renders and a node parses: one
// schema, one validation, one way to follow changes.
//
// Reading is strict. What is unknown, of the wrong kind or against a rule is
// reported all at once, each with its path and its line, and a file with one
// fault is not used at all. docs/reference/config.md describes every field.
//
// The package applies nothing: [Watch] hands over what changed, and
// [Reloadable] says which changes a running node can't follow.
package config
