package rule

import (
	"fmt"
	"math"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/checker"
	celast "github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/types"

	"github.com/switchboardhub/switchboard/hubnode/celtype"
)

// Bounds of a condition.
const (
	MaxCondition = celtype.MaxExpression // code points
	// MaxCost is in CEL's units, of which a comparison costs one or two. It lets a
	// condition look at every group once, and not at every pair of them.
	MaxCost = 100_000
)

// Subject is what conditions know of somebody.
type Subject struct {
	Method, Name, Namespace, ServiceAccount string

	Groups []string
	Claims map[string]any // decoded JSON
}

// Condition is a compiled expression. It does not change and is safe for
// concurrent use.
type Condition struct {
	expression string
	program    cel.Program
	cost       uint64
}

// Compile prepares a condition. An error says where the expression is not CEL,
// reads what there is not, does not say true or false, or may take too long.
func Compile(expression string) (*Condition, error) {
	if strings.TrimSpace(expression) == "" {
		return nil, fmt.Errorf("condition %.80q: is empty", expression)
	}
	env, err := environment()
	if err != nil {
		return nil, fmt.Errorf("prepare conditions: %w", err)
	}
	ast, issues := env.Compile(expression)
	if err := firstIssue(expression, issues); err != nil {
		return nil, err
	}
	if !ast.OutputType().IsExactType(types.BoolType) {
		return nil, fmt.Errorf("condition %.80q: must be true or false, is of type %s", expression, ast.OutputType())
	}
	root := celast.NavigateAST(ast.NativeRep())
	if made := celast.MatchDescendants(root, celast.KindMatcher(celast.StructKind)); len(made) > 0 {
		return nil, fmt.Errorf("condition %.80q: must not make objects", expression)
	}
	cost, err := env.EstimateCost(ast, sizes{})
	if err != nil {
		return nil, fmt.Errorf("condition %.80q: %w", expression, err)
	}
	if cost.Max > MaxCost {
		return nil, tooCostly(expression, cost.Max)
	}
	// Whatever the estimate took for granted, this stops.
	program, err := env.Program(ast, cel.CostLimit(MaxCost), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, fmt.Errorf("condition %.80q: %w", expression, err)
	}
	return &Condition{expression: expression, program: program, cost: cost.Max}, nil
}

// String returns the expression.
func (c *Condition) String() string { return c.expression }

// Cost is what the condition may cost at most, of what somebody usually is: see MaxCost.
func (c *Condition) Cost() uint64 { return c.cost }

// Holds reports whether the condition is true of somebody. An error means that it
// has no answer, as when it reads a claim that is absent: count it as false.
func (c *Condition) Holds(s *Subject) (bool, error) {
	value, _, err := c.program.Eval(identityType.Object(s))
	if err != nil {
		return false, fmt.Errorf("condition %.80q: %w", c.expression, err)
	}
	holds, ok := value.(types.Bool)
	if !ok {
		return false, fmt.Errorf("condition %.80q: gave %v, not true or false", c.expression, value)
	}
	return bool(holds), nil
}

func firstIssue(expression string, issues *cel.Issues) error {
	if issues.Err() == nil {
		return nil
	}
	found := issues.Errors()
	if len(found) == 0 {
		return fmt.Errorf("condition %.80q: %w", expression, issues.Err())
	}
	line, column, more := 1, 1, ""
	if at := found[0].Location; at != nil { // it counts lines from 1 and columns from 0, and has neither for all faults
		line, column = max(1, at.Line()), max(1, at.Column()+1)
	}
	if n := len(found) - 1; n > 0 {
		more = fmt.Sprintf(" (and %d more)", n)
	}
	return fmt.Errorf("condition %.80q: %s at line %d, column %d%s", expression, found[0].Message, line, column, more)
}

func tooCostly(expression string, cost uint64) error {
	if cost > math.MaxUint64/1000 { // the estimate had nothing to go by
		return fmt.Errorf("condition %.80q: its cost has no bound, allowed are %d", expression, uint64(MaxCost))
	}
	return fmt.Errorf("condition %.80q: may cost %d, allowed are %d", expression, cost, uint64(MaxCost))
}

// sizes tell the estimate of a cost how large what a condition reads is taken to
// be. What proves an identity comes in one frame of the handshake, so nothing is
// larger than 16 KiB, and hardly anything comes near.
type sizes struct{}

const (
	usualText = 256 // characters
	usualMany = 256 // elements, entries
)

// EstimateSize guesses for all that CEL does not know the size of.
func (sizes) EstimateSize(element checker.AstNode) *checker.SizeEstimate {
	switch element.Type().Kind() {
	case types.StringKind, types.BytesKind:
		return &checker.SizeEstimate{Min: 0, Max: usualText}
	case types.ListKind, types.MapKind, types.DynKind, types.AnyKind, types.TypeParamKind:
		return &checker.SizeEstimate{Min: 0, Max: usualMany}
	case types.StructKind:
		return &checker.SizeEstimate{Min: 1, Max: 1} // the identity as a whole is compared as it is
	default:
		return nil
	}
}

// EstimateCallCost leaves all functions to the checker: there are only those
// of CEL.
func (sizes) EstimateCallCost(string, string, *checker.AstNode, []checker.AstNode) *checker.CallEstimate {
	return nil
}
