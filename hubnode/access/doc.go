// Package access decides what clients may do, by the rules of the configuration:
// rules and an identity make a grant, and the grant answers for each action.
//
// It finds out nothing about anybody, keeps nothing and logs nothing: who a client
// is comes from elsewhere, and a grant does not change.
package access
