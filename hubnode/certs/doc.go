// Package certs keeps the certificate of a node's ports: it loads it from a
// directory, follows changes of the files, and keeps the last good pair when
// they are broken. It issues none. Whether clients trust one is for them to say;
// where both sides are nodes, each verifies the other's, by its authority and by
// whom it is for.
package certs
