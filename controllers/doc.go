// Package controllers makes what a Hub asks for true and says how far it got.
//
// One reconciliation applies the objects that the package manifests describes,
// looks at the pods and asks the ready nodes how they are, and writes one status.
// The decisions about that status are pure functions of what was observed. The
// operator knows nodes only by their HTTP API; it takes no part in delivering
// artifacts, and a hub goes on while the operator is away.
package controllers
