package rule

import (
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
)

// variable is the only name that a condition can read.
const variable = "identity"

const typeName = "switchboard.Identity"

var identityType = types.NewObjectType(typeName)

// fields are what a condition finds in an identity. The checker knows them, so
// that a misspelt one is refused when a condition is compiled.
var fields = map[string]*types.FieldType{
	"method":         field(types.StringType, func(s *Subject) any { return s.Method }),
	"name":           field(types.StringType, func(s *Subject) any { return s.Name }),
	"namespace":      field(types.StringType, func(s *Subject) any { return s.Namespace }),
	"serviceAccount": field(types.StringType, func(s *Subject) any { return s.ServiceAccount }),
	"groups":         field(types.NewListType(types.StringType), func(s *Subject) any { return s.Groups }),
	"claims":         field(types.NewMapType(types.StringType, types.DynType), func(s *Subject) any { return s.Claims }),
}

// field makes one that every identity has, empty or not.
func field(t *types.Type, get func(*Subject) any) *types.FieldType {
	return &types.FieldType{
		Type:  t,
		IsSet: func(any) bool { return true },
		GetFrom: func(target any) (any, error) {
			s, ok := target.(*Subject)
			if !ok {
				return nil, fmt.Errorf("%T is not an identity", target)
			}
			return get(s), nil
		},
	}
}

// provider adds the type of identities to those of CEL.
type provider struct{ *types.Registry }

func (p *provider) FindStructType(name string) (*types.Type, bool) {
	if name == typeName {
		return types.NewTypeTypeWithParam(identityType), true
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

// object is an identity as a value of CEL, and the activation in which it is the
// only variable.
type object struct{ subject *Subject }

// ResolveName finds the variable.
func (o *object) ResolveName(name string) (any, bool) { return o, name == variable }

// Parent says that there is no other activation.
func (o *object) Parent() cel.Activation { return nil }

// Value returns what the getters of the fields take.
func (o *object) Value() any { return o.subject }

// Type is an identity's.
func (o *object) Type() ref.Type { return identityType }

// Get reads a field whose identity has lost its type, as in dyn(identity).name.
func (o *object) Get(index ref.Val) ref.Val {
	name, _ := index.(types.String)
	f, ok := fields[string(name)]
	if !ok {
		return types.NewErr("undefined field '%v'", index)
	}
	value, err := f.GetFrom(o.subject)
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

// Equal compares: there is one identity in an evaluation.
func (o *object) Equal(other ref.Val) ref.Val {
	same, ok := other.(*object)
	return types.Bool(ok && same.subject == o.subject)
}

// ConvertToType knows the type's own name only.
func (o *object) ConvertToType(t ref.Type) ref.Val {
	switch t {
	case identityType:
		return o
	case types.TypeType:
		return identityType
	}
	return types.NewErr("an identity can't become a %s", t)
}

// ConvertToNative gives the subject back.
func (o *object) ConvertToNative(t reflect.Type) (any, error) {
	if t == reflect.TypeFor[*Subject]() {
		return o.subject, nil
	}
	return nil, fmt.Errorf("an identity can't become a %v", t)
}
