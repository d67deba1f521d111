// Package auth finds out who a client is, by a token or a certificate. What that
// client may do is for others to say.
package auth
