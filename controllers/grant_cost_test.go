package controllers

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
)

// 380 conditions of 20 ms would fit: six seconds of CPU for each client that connects.
func TestConditionsOfGrantsTakeLittleTimeTogether(t *testing.T) {
	ones := strings.TrimSuffix(strings.Repeat("1,", 130), ",")
	var wanted []string
	for i := range 40 {
		wanted = append(wanted, fmt.Sprintf("a/g%02d: [{name: r, publish: [a.b], when: '[%s].all(x, [%s].all(y, x < 3))'}]", i, ones, ones))
	}
	for i := range 100 {
		wanted = append(wanted, fmt.Sprintf(`b/g%02d: [{name: r, publish: [b.b], when: 'identity.namespace == "b" && identity.serviceAccount == "x"'}]`, i))
	}
	grants := grantsWanted(t, wanted...)
	for i := range grants {
		grants[i].UID = types.UID(fmt.Sprint(i))
	}
	_, known := decideGrants(hubOf(t, delegating), grants, nil)
	claims, _ := decideGrants(hubOf(t, delegating), grants, known) // by what is remembered
	taken := map[string]int{}
	for _, c := range claims {
		if c.reason == "" {
			taken[c.grant.Namespace]++
		} else if c.reason != switchboardv1alpha1.ReasonNoRoom || !strings.Contains(c.message, "no time") {
			t.Errorf("%s: %s %s", grantName(c.grant), c.reason, c.message)
		}
	}
	if taken["a"] == 0 || taken["a"] > 12 || taken["b"] != 100 {
		t.Errorf("taken are %v", taken)
	}
}
