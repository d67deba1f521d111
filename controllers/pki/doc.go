// Package pki makes the certificates of a hub and reads those that others made: an
// authority, what it issues, and the three texts in which Kubernetes keeps them in a
// Secret. The caller passes the time in; the package reads no clock, no file and no
// cluster, and decides nothing about when what is replaced.
package pki
