// Package filter decides by CEL expressions which artifacts may pass:
//
//	artifact.size <= 65536 && "tenant" in artifact.attributes
//
// An expression reads the one variable artifact, with the fields id, from, to,
// topic and contentType (strings), size (of the payload, in bytes), attributes
// (a map of strings) and time (a timestamp). It never reads the payload, so
// that a node need not decode it.
//
// Expressions come from people who configure hubs and from clients, so what
// one may cost is bounded twice: by an estimate when it is compiled, and by a
// count while it runs.
package filter
