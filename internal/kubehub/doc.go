// Package kubehub is what a person on call does with a Hub of a Kubernetes
// cluster: see how it is, replace a node, restart it, read its logs, and pack
// what somebody needs who helps.
//
// It reaches nodes through the API server alone, with the rights of who runs it.
// It parses no flags: the commands are in package hubctl.
package kubehub
