// Package topic knows names and patterns: which are valid, which name a pattern
// matches, and which subscriptions a published name concerns.
//
// A name is made of tokens separated by dots. A pattern is a name in which the
// token "*" stands for exactly one token, and a last token ">" for one or
// more. Both are compared byte by byte: there is no case folding and no
// normalisation.
//
// The package holds no locks and starts nothing: whoever owns an [Index]
// guards it.
package topic
