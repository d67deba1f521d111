package tenancy

import (
	"strings"

	"github.com/switchboardhub/switchboard/hubnode/topic"
	"github.com/switchboardhub/switchboard/wire"
)

// Tenant is the namespace whose clients have names of their own. The zero value is no
// tenant: its names are the hub's.
type Tenant string

// outside begins the ids of clients that are not of the tenant.
const outside = '/'

// ID returns what the hub calls a client.
func (t Tenant) ID(own wire.ClientID) wire.ClientID { return string(appendID(t, nil, own)) }

// Within returns what the hub calls clients of the tenant: those that a glob matches whatever
// it begins with.
func (t Tenant) Within(glob string) string {
	if t == "" {
		return glob
	}
	return string(t) + "/" + glob
}

// Topic returns what the hub calls a topic or pattern.
func (t Tenant) Topic(own string) string { return string(appendTopic(t, nil, own)) }

// CheckID returns nil, or why a client of the tenant can't be called that.
func (t Tenant) CheckID(own wire.ClientID) error {
	if t != "" && own != "" && own[0] == outside {
		return &wire.Error{Code: wire.CodeInvalidClientID, Detail: "client ids that begin with a slash are of clients outside of namespace " + string(t) + ": take another one"}
	}
	return wire.CheckClientID(t.ID(own))
}

// OwnID returns what the tenant calls a client of the hub.
func (t Tenant) OwnID(id wire.ClientID) wire.ClientID { return string(appendOwnID(t, nil, id)) }

// OwnTopic returns what the tenant calls a topic or pattern of the hub: its name there when
// it is not the tenant's.
func (t Tenant) OwnTopic(name string) string { return string(appendOwnTopic(t, nil, name)) }

// maxNamespace is how long the name of a namespace may be, in bytes.
const maxNamespace = 63

// OwnerOf returns the tenant whose topic the hub's name is, by its name alone: whether there
// is such a namespace is not known here. It is empty for what can be no tenant's.
func OwnerOf[S string | []byte](name S) S {
	for i := range min(len(name), maxNamespace+1) {
		switch c := name[i]; {
		case c == '.':
			if i == 0 || name[0] == '-' || name[i-1] == '-' || i+1 == len(name) {
				return name[:0]
			}
			return name[:i]
		case c == '-', '0' <= c && c <= '9', 'a' <= c && c <= 'z':
		default:
			return name[:0]
		}
	}
	return name[:0]
}

// tooLong is more than any name may have: of what is longer no more is looked at, and it is
// not valid either way.
const tooLong = max(wire.MaxTopic, wire.MaxClientID) + 1

func appendID[S string | []byte](t Tenant, b []byte, own S) []byte {
	own = own[:min(len(own), tooLong)]
	switch {
	case t == "" || len(own) == 0 || reserved(own):
	case own[0] == outside && !hasSlash(own[1:]): // ids with one may be another tenant's
		own = own[1:]
	default:
		b = append(append(b, t...), '/')
	}
	return append(b, own...)
}

func appendTopic[S string | []byte](t Tenant, b []byte, own S) []byte {
	own = own[:min(len(own), tooLong)]
	if t != "" && len(own) > 0 && !reserved(own) {
		b = append(append(b, t...), '.')
	}
	return append(b, own...)
}

func appendOwnID[S string | []byte](t Tenant, b []byte, id S) []byte {
	switch {
	case t == "" || len(id) == 0 || reserved(id):
	case within(t, id, '/'):
		id = id[len(t)+1:]
	default:
		b = append(b, outside)
	}
	return append(b, id...)
}

func appendOwnTopic[S string | []byte](t Tenant, b []byte, name S) []byte {
	if t != "" && within(t, name, '.') {
		name = name[len(t)+1:]
	}
	return append(b, name...)
}

// within reports whether a name begins with the tenant and what ends its prefix.
func within[S string | []byte](t Tenant, name S, end byte) bool {
	return len(name) > len(t)+1 && name[len(t)] == end && string(name[:len(t)]) == string(t)
}

func hasSlash[S string | []byte](id S) bool {
	for i := range len(id) {
		if id[i] == outside {
			return true
		}
	}
	return false
}

// reserved reports whether a name is the hub's own.
func reserved[S string | []byte](name S) bool {
	return strings.HasPrefix(string(name[:min(len(name), len(topic.ReservedPrefix))]), topic.ReservedPrefix)
}
