// Package rule knows what rules of authorisation are written in: conditions on
// who somebody is, and templates of topics and client ids.
//
//	"writers" in identity.groups && identity.namespace.startsWith("team-")
//	orders.{namespace}.>
//	{namespace}/worker-*
//
// A condition is a CEL expression over the one variable identity, with the fields
// method, name, namespace and serviceAccount (strings), groups (a list of strings)
// and claims (a map of anything). It is bounded as a filter is: by an estimate when
// it is compiled, and by a count while it runs.
//
// A template is a pattern of topics, or a glob of client ids, in which placeholders
// stand for what is known of a client. What comes from a client only narrows: a
// value that would be more than one token or a literal run of characters makes
// the template allow nothing.
//
// Which rules there are, and what they allow together, is for others to say.
package rule
