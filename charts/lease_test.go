package charts_test

import (
	"strings"
	"testing"
)

// Operators that share a lease stand by for each other: a second release in a namespace is
// told so, and doesn't come into being without having asked for it.
func TestASecondReleaseIsNotInstalledToStandByForever(t *testing.T) {
	c := startCluster(t)
	const note = "shares the lease"
	if notes := c.mustHelm(t, namespace, "install", "switchboard", chart, "--create-namespace"); strings.Contains(notes, note) {
		t.Errorf("the only release is told:\n%s", notes)
	}
	second := []string{"second", chart, "--set", "crds.install=false"}
	with := func(verb string, more ...string) []string { return append(append([]string{verb}, second...), more...) }

	_, err := c.helm(t, namespace, with("install")...)
	refusal(t, err, "switchboard-operator of release switchboard in namespace "+namespace+" has the lease switchboard-operator: this operator would stand by for it and never act. Set leaderElection.leaseName to another name")
	if notes := c.mustHelm(t, "elsewhere", with("install", "--create-namespace")...); strings.Contains(notes, note) {
		t.Errorf("in a namespace of its own it is told:\n%s", notes)
	}
	c.mustHelm(t, "elsewhere", "uninstall", "second")
	if notes := c.mustHelm(t, namespace, with("install", "--set", "leaderElection.leaseName=second")...); strings.Contains(notes, note) {
		t.Errorf("with a lease of its own it is told:\n%s", notes)
	}
	// Releases that are there go on to share, and hear of it: to upgrade one is no time to
	// find another name.
	if notes := c.mustHelm(t, namespace, with("upgrade", "--set", "leaderElection.leaseName=")...); !strings.Contains(notes, "switchboard-operator of release switchboard "+note+" switchboard-operator with this one: one of them acts") {
		t.Errorf("without one it is told only:\n%s", notes)
	}
	if notes := c.mustHelm(t, namespace, "upgrade", "switchboard", chart); !strings.Contains(notes, "second-switchboard-operator of release second "+note) {
		t.Errorf("the first is told only:\n%s", notes)
	}
	c.mustHelm(t, namespace, "uninstall", "second")
	c.mustHelm(t, namespace, with("install", "--set", "leaderElection.leaseName=switchboard-operator")...)
}
