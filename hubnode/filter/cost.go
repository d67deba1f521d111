package filter

import (
	"maps"
	"strings"

	"github.com/google/cel-go/checker"

	"github.com/switchboardhub/switchboard/wire"
)

// sizes tell the estimate of a cost how large what an expression reads can be
// at most, by path below the variable: characters of a string, entries of a
// map.
type sizes map[string]uint64

// fieldSizes are those that fieldsHold finds out at once.
var fieldSizes = sizes{
	"":            1, // the artifact as a whole is compared by identity
	"id":          2 * uint64(len(wire.ID{})),
	"from":        wire.MaxClientID,
	"to":          wire.MaxClientID,
	"topic":       wire.MaxTopic,
	"contentType": wire.MaxContentType,
}

// wireSizes are those of every artifact that came over the wire. One that an
// embedding program made may have larger attributes: it is counted what they
// cost.
var wireSizes = func() sizes {
	s := maps.Clone(fieldSizes)
	s["attributes"] = wire.MaxAttributes
	s["attributes.@keys"] = wire.MaxAttributeKey
	s["attributes.@values"] = wire.MaxAttributeValue
	return s
}()

// fieldsHold reports whether the fields of a are as small as fieldSizes says.
func fieldsHold(a *wire.Artifact) bool {
	return len(a.From) <= wire.MaxClientID && len(a.To) <= wire.MaxClientID &&
		len(a.Topic) <= wire.MaxTopic && len(a.ContentType) <= wire.MaxContentType
}

// EstimateSize returns nil for what has no known size.
func (s sizes) EstimateSize(element checker.AstNode) *checker.SizeEstimate {
	path := element.Path()
	if len(path) == 0 || path[0] != variable {
		return nil
	}
	most, ok := s[strings.Join(path[1:], ".")]
	if !ok {
		return nil
	}
	return &checker.SizeEstimate{Min: 0, Max: most}
}

// EstimateCallCost leaves all functions to the checker: there are only those
// of CEL.
func (sizes) EstimateCallCost(string, string, *checker.AstNode, []checker.AstNode) *checker.CallEstimate {
	return nil
}
