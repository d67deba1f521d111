// Package celtype makes a Go struct the only variable of CEL expressions, within bounds
// that what strangers write has to keep. It does not say what an expression is for.
package celtype

import (
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
)

// Bounds of every expression.
const (
	MaxExpression = 4096 // code points
	maxNodes      = 1000
	maxDepth      = 50
	maxNesting    = 2 // of exists, all, filter and map in one another
	maxRegexp     = 1000
)

// Field is what an expression finds in a T. Every T has it, empty or not.
type Field[T any] struct {
	Type *types.Type
	Get  func(*T) any
}

// Type is how expressions see a T: as the variable of a name. It does not change and is safe
// for concurrent use.
type Type[T any] struct {
	variable string
	name     string
	object   *types.Type
	fields   map[string]*types.FieldType
}

// New returns the type for a variable. Name is the type's in CEL. The checker knows the
// fields, so that a misspelt one is refused when an expression is compiled.
func New[T any](variable, name string, fields map[string]Field[T]) *Type[T] {
	t := &Type[T]{variable: variable, name: name, object: types.NewObjectType(name), fields: make(map[string]*types.FieldType)}
	for field, f := range fields {
		t.fields[field] = &types.FieldType{
			Type:  f.Type,
			IsSet: func(any) bool { return true },
			GetFrom: func(target any) (any, error) {
				v, ok := target.(*T)
				if !ok {
					return nil, fmt.Errorf("%T is not the variable %s", target, variable)
				}
				return f.Get(v), nil
			},
		}
	}
	return t
}

// Environment returns what expressions are compiled in: the variable, what CEL has, and the
// bounds. Making it takes milliseconds and gives the same each time.
func (t *Type[T]) Environment() (*cel.Env, error) {
	registry, err := types.NewRegistry()
	if err != nil {
		return nil, err
	}
	return cel.NewEnv(
		cel.CustomTypeProvider(&provider[T]{registry, t}),
		cel.Variable(t.variable, t.object),
		cel.ParserExpressionSizeLimit(MaxExpression),
		cel.ParserRecursionLimit(maxDepth),
		cel.ExpressionNodeLimit(maxNodes),
		cel.RegexProgramSizeLimit(maxRegexp),
		cel.ASTValidators(
			cel.ValidateComprehensionNestingLimit(maxNesting),
			cel.ValidateDurationLiterals(),
			cel.ValidateRegexLiterals(),
			cel.ValidateRegexProgramSizeLimit(maxRegexp),
			cel.ValidateTimestampLiterals(),
		),
	)
}

// provider adds a type to those of CEL.
type provider[T any] struct {
	*types.Registry
	t *Type[T]
}

func (p *provider[T]) FindStructType(name string) (*types.Type, bool) {
	if name == p.t.name {
		return types.NewTypeTypeWithParam(p.t.object), true
	}
	return p.Registry.FindStructType(name)
}

func (p *provider[T]) FindStructFieldNames(name string) ([]string, bool) {
	if name == p.t.name {
		return slices.Sorted(maps.Keys(p.t.fields)), true
	}
	return p.Registry.FindStructFieldNames(name)
}

func (p *provider[T]) FindStructFieldType(name, field string) (*types.FieldType, bool) {
	if name == p.t.name {
		f, ok := p.t.fields[field]
		return f, ok
	}
	return p.Registry.FindStructFieldType(name, field)
}

// Object is a T as a value of CEL, and the activation in which it is the only variable: one
// allocation for both.
type Object[T any] struct {
	t     *Type[T]
	value *T
}

// Object returns what an expression is evaluated on. The value must not change meanwhile.
func (t *Type[T]) Object(value *T) *Object[T] { return &Object[T]{t, value} }

// ResolveName finds the variable.
func (o *Object[T]) ResolveName(name string) (any, bool) { return o, name == o.t.variable }

// Parent says that there is no other activation.
func (o *Object[T]) Parent() cel.Activation { return nil }

// Value returns what the getters of the fields take.
func (o *Object[T]) Value() any { return o.value }

// Type is the variable's.
func (o *Object[T]) Type() ref.Type { return o.t.object }

// Get reads a field of a variable that has lost its type, as in dyn(artifact).size.
func (o *Object[T]) Get(index ref.Val) ref.Val {
	name, _ := index.(types.String)
	f, ok := o.t.fields[string(name)]
	if !ok {
		return types.NewErr("undefined field '%v'", index)
	}
	value, err := f.GetFrom(o.value)
	if err != nil {
		return types.WrapErr(err)
	}
	return types.DefaultTypeAdapter.NativeToValue(value)
}

// IsSet says which fields there are.
func (o *Object[T]) IsSet(index ref.Val) ref.Val {
	name, _ := index.(types.String)
	_, ok := o.t.fields[string(name)]
	return types.Bool(ok)
}

// Equal compares identities: there is one variable in an evaluation.
func (o *Object[T]) Equal(other ref.Val) ref.Val {
	same, ok := other.(*Object[T])
	return types.Bool(ok && same.value == o.value)
}

// ConvertToType knows the type's own name only.
func (o *Object[T]) ConvertToType(t ref.Type) ref.Val {
	switch t {
	case o.t.object:
		return o
	case types.TypeType:
		return o.t.object
	}
	return types.NewErr("the variable %s can't become a %s", o.t.variable, t)
}

// ConvertToNative gives the value back.
func (o *Object[T]) ConvertToNative(t reflect.Type) (any, error) {
	if t == reflect.TypeFor[*T]() {
		return o.value, nil
	}
	return nil, fmt.Errorf("the variable %s can't become a %v", o.t.variable, t)
}
