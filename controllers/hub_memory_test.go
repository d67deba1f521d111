package controllers

import (
	"testing"

	"k8s.io/apimachinery/pkg/types"
)

func TestMemoryCountsTheNodesOfTheHubsThatExist(t *testing.T) {
	var m memory
	a, b := types.NamespacedName{Namespace: "x", Name: "a"}, types.NamespacedName{Namespace: "y", Name: "a"}
	for i, step := range []struct {
		do   func() int
		want int
	}{
		{func() int { return m.count(a, 3) }, 3},
		{func() int { return m.count(b, 5) }, 8},
		{func() int { return m.count(a, 3) }, 8},
		{func() int { return m.count(a, 1) }, 6},
		{func() int { m.forget(a); return m.count(b, 5) }, 5},
		{func() int { m.forget(a); return m.count(b, 0) }, 0},
		{func() int { return m.count(a, 2) }, 2},
	} {
		if got := step.do(); got != step.want {
			t.Errorf("step %d: %d nodes, want %d", i, got, step.want)
		}
	}
}

func TestMemoryOfAHubEndsWithIt(t *testing.T) {
	var m memory
	name := types.NamespacedName{Namespace: "x", Name: "a"}
	m.of(name).agreed["Service a"] = agreement{resourceVersion: "1"}
	if got := m.of(name).agreed["Service a"].resourceVersion; got != "1" {
		t.Errorf("remembered version %q, want 1", got)
	}
	m.forget(name)
	if got := m.of(name).agreed; len(got) > 0 {
		t.Errorf("%v is left of a Hub that is gone", got)
	}
}
