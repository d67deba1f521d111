// Package certs keeps the certificate of a node's ports: it loads it from a
// directory, follows changes of the files, and keeps the last good pair when
// they are broken. It does not issue certificates and verifies none: whether
// clients trust it is for them to say.
package certs
