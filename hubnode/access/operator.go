package access

import (
	"strings"

	"github.com/switchboardhub/switchboard/hubnode/auth"
)

// listTopics is the question by which the operator finds what there is to purge.
const listTopics = "$hub.topics"

// operatorGrant is what the operator may do by one proof: connect as whom that names, purge
// the topics that match its pattern, and list topics. It does not even hear broadcasts.
func operatorGrant(proof auth.OperatorProof) *Grant {
	g := &Grant{asks: listTopics}
	if proof.Client != "" && !strings.Contains(proof.Client, "*") {
		g.lists[connectAs] = []string{proof.Client}
	}
	if proof.Purges != "" {
		g.purges = []string{proof.Purges}
	}
	return g
}
