package filter

import (
	"fmt"
	"math"
	"strings"

	"github.com/google/cel-go/cel"
	celast "github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/types"

	"github.com/switchboardhub/switchboard/hubnode/celtype"
	"github.com/switchboardhub/switchboard/wire"
)

// Bounds of an expression.
const (
	MaxExpression = celtype.MaxExpression // code points
	// MaxCost is in CEL's units, of which a comparison costs one or two. It
	// lets an expression look at every attribute once, and not at every pair
	// of them.
	MaxCost = 100_000
)

// SyntaxError says why an expression can't be compiled, and where.
type SyntaxError struct {
	Expression string
	Line       int // from 1
	Column     int // in code points, from 1
	Reason     string
	More       int // further faults, which often follow from the first
}

func (e *SyntaxError) Error() string {
	s := fmt.Sprintf("filter %.80q: %s at line %d, column %d", e.Expression, e.Reason, e.Line, e.Column)
	if e.More > 0 {
		s += fmt.Sprintf(" (and %d more)", e.More)
	}
	return s
}

// CostError refuses an expression that may take too long.
type CostError struct {
	Expression string
	Cost       uint64 // what it may cost at worst
}

func (e *CostError) Error() string {
	if e.Cost > math.MaxUint64/1000 { // the estimate had nothing to go by
		return fmt.Sprintf("filter %.80q: its cost has no bound, allowed are %d", e.Expression, uint64(MaxCost))
	}
	return fmt.Sprintf("filter %.80q: may cost %d, allowed are %d", e.Expression, e.Cost, uint64(MaxCost))
}

// Filter is a compiled expression. It does not change and is safe for
// concurrent use.
type Filter struct {
	expression string
	counted    cel.Program // stops at MaxCost, and is slower by ten times
	// free counts nothing. Nil where the estimate depends on attributes,
	// whose sizes would have to be looked at first.
	free cel.Program
}

// Compile prepares an expression. It returns a [*SyntaxError] for what is not
// CEL, reads what there is not or does not say true or false, and a
// [*CostError] for what may take too long.
func Compile(expression string) (*Filter, error) {
	refuse := func(reason string) error {
		return &SyntaxError{Expression: expression, Line: 1, Column: 1, Reason: reason}
	}
	if strings.TrimSpace(expression) == "" {
		return nil, refuse("is empty")
	}
	env, err := environment()
	if err != nil {
		return nil, fmt.Errorf("prepare filters: %w", err)
	}
	ast, issues := env.Compile(expression)
	if err := firstIssue(expression, issues); err != nil {
		return nil, err
	}
	if !ast.OutputType().IsExactType(types.BoolType) {
		return nil, refuse(fmt.Sprintf("must be true or false, is of type %s", ast.OutputType()))
	}
	root := celast.NavigateAST(ast.NativeRep())
	if made := celast.MatchDescendants(root, celast.KindMatcher(celast.StructKind)); len(made) > 0 {
		return nil, refuse("must not make objects")
	}
	cost, err := env.EstimateCost(ast, wireSizes)
	if err != nil {
		return nil, refuse(err.Error())
	}
	if cost.Max > MaxCost {
		return nil, &CostError{Expression: expression, Cost: cost.Max}
	}
	f := &Filter{expression: expression}
	if f.counted, err = env.Program(ast, cel.CostLimit(MaxCost), cel.EvalOptions(cel.OptOptimize)); err != nil {
		return nil, refuse(err.Error())
	}
	if cost, err = env.EstimateCost(ast, fieldSizes); err != nil {
		return nil, refuse(err.Error())
	}
	if cost.Max <= MaxCost {
		if f.free, err = env.Program(ast, cel.EvalOptions(cel.OptOptimize)); err != nil {
			return nil, refuse(err.Error())
		}
	}
	return f, nil
}

// String returns the expression.
func (f *Filter) String() string { return f.expression }

// Match reports whether a matches. An error means that the expression has no
// answer for this artifact, as when it reads an attribute that is absent:
// count it as no match. a must not change meanwhile.
func (f *Filter) Match(a *wire.Artifact) (bool, error) {
	program := f.counted
	if f.free != nil && fieldsHold(a) {
		program = f.free
	}
	value, _, err := program.Eval(artifactType.Object(a))
	if err != nil {
		return false, fmt.Errorf("filter %.80q: %w", f.expression, err)
	}
	match, ok := value.(types.Bool)
	if !ok {
		return false, fmt.Errorf("filter %.80q: gave %v, not true or false", f.expression, value)
	}
	return bool(match), nil
}

func firstIssue(expression string, issues *cel.Issues) error {
	if issues.Err() == nil {
		return nil
	}
	found := issues.Errors()
	if len(found) == 0 {
		return fmt.Errorf("filter %.80q: %w", expression, issues.Err())
	}
	e := &SyntaxError{Expression: expression, Line: 1, Column: 1, Reason: found[0].Message, More: len(found) - 1}
	if at := found[0].Location; at != nil { // it counts lines from 1 and columns from 0, and has neither for all faults
		e.Line, e.Column = max(1, at.Line()), max(1, at.Column()+1)
	}
	return e
}
