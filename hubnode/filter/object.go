package filter

import (
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"

	"github.com/switchboardhub/switchboard/wire"
)

// variable is the only name that an expression can read.
const variable = "artifact"

const typeName = "switchboard.Artifact"

var artifactType = types.NewObjectType(typeName)

// fields are what an expression finds in an artifact. The checker knows them,
// so that a misspelt one is refused when a filter is compiled.
var fields = map[string]*types.FieldType{
	"id":          field(types.StringType, func(a *wire.Artifact) any { return a.ID.String() }),
	"from":        field(types.StringType, func(a *wire.Artifact) any { return a.From }),
	"to":          field(types.StringType, func(a *wire.Artifact) any { return a.To }),
	"topic":       field(types.StringType, func(a *wire.Artifact) any { return a.Topic }),
	"size":        field(types.IntType, func(a *wire.Artifact) any { return int64(len(a.Payload)) }),
	"contentType": field(types.StringType, func(a *wire.Artifact) any { return a.ContentType }),
	"attributes":  field(types.NewMapType(types.StringType, types.StringType), func(a *wire.Artifact) any { return a.Attributes }),
	"time":        field(types.TimestampType, func(a *wire.Artifact) any { return a.Time }),
}

// field makes one that every artifact has, empty or not.
func field(t *types.Type, get func(*wire.Artifact) any) *types.FieldType {
	return &types.FieldType{
		Type:  t,
		IsSet: func(any) bool { return true },
		GetFrom: func(target any) (any, error) {
			a, ok := target.(*wire.Artifact)
			if !ok {
				return nil, fmt.Errorf("%T is not an artifact", target)
			}
			return get(a), nil
		},
	}
}

// provider adds the type of artifacts to those of CEL.
type provider struct{ *types.Registry }

func (p *provider) FindStructType(name string) (*types.Type, bool) {
	if name == typeName {
		return types.NewTypeTypeWithParam(artifactType), true
	}
	return p.Registry.FindStructType(name)
}

func (p *provider) FindStructFieldNames(name string) ([]string, bool) {
	if name == typeName {
		return slices.Sorted(maps.Keys(fields)), true
	}
	return p.Registry.FindStructFieldNames(name)
}

func (p *provider) FindStructFieldType(name, field string) (*types.FieldType, bool) {
	if name == typeName {
		t, ok := fields[field]
		return t, ok
	}
	return p.Registry.FindStructFieldType(name, field)
}

// object is an artifact as a value of CEL, and the activation in which it is
// the only variable: one allocation for both.
type object struct{ artifact *wire.Artifact }

// ResolveName finds the variable.
func (o *object) ResolveName(name string) (any, bool) { return o, name == variable }

// Parent says that there is no other activation.
func (o *object) Parent() cel.Activation { return nil }

// Value returns what the getters of the fields take.
func (o *object) Value() any { return o.artifact }

// Type is an artifact's.
func (o *object) Type() ref.Type { return artifactType }

// Get reads a field whose artifact has lost its type, as in
// dyn(artifact).size.
func (o *object) Get(index ref.Val) ref.Val {
	name, _ := index.(types.String)
	f, ok := fields[string(name)]
	if !ok {
		return types.NewErr("undefined field '%v'", index)
	}
	value, err := f.GetFrom(o.artifact)
	if err != nil {
		return types.WrapErr(err)
	}
	return types.DefaultTypeAdapter.NativeToValue(value)
}

// IsSet says which fields there are.
func (o *object) IsSet(index ref.Val) ref.Val {
	name, _ := index.(types.String)
	_, ok := fields[string(name)]
	return types.Bool(ok)
}

// Equal compares identities: there is one artifact in an evaluation.
func (o *object) Equal(other ref.Val) ref.Val {
	same, ok := other.(*object)
	return types.Bool(ok && same.artifact == o.artifact)
}

// ConvertToType knows the type's own name only.
func (o *object) ConvertToType(t ref.Type) ref.Val {
	switch t {
	case artifactType:
		return o
	case types.TypeType:
		return artifactType
	}
	return types.NewErr("an artifact can't become a %s", t)
}

// ConvertToNative gives the artifact back.
func (o *object) ConvertToNative(t reflect.Type) (any, error) {
	if t == reflect.TypeFor[*wire.Artifact]() {
		return o.artifact, nil
	}
	return nil, fmt.Errorf("an artifact can't become a %v", t)
}
