// Package controllers makes what Hubs and Topics ask for true and says how far it
// got.
//
// One reconciliation applies the objects that the package manifests describes,
// looks at the pods and asks the ready nodes how they are, and writes one status.
// The decisions about that status are pure functions of what was observed. The same
// reconciliation decides which Topics the hub takes, as that depends on all of them
// together, and writes their statuses; only the purge of a deleted Topic is another
// one's, because it may take long.
//
// The operator knows nodes by their HTTP API, and purges as a client of theirs; it
// takes no part in delivering artifacts, and a hub goes on while the operator is
// away.
package controllers
