package config_test

import (
	"strings"
	"testing"

	"github.com/switchboardhub/switchboard/hubnode/config"
)

func TestFilterThatCantBeCompiledIsNamedByItsPath(t *testing.T) {
	_, err := config.Parse([]byte("hub: h\ntopics:\n- {pattern: a, filter: 'artifact.size > 1'}\n- {pattern: b, filter: 'artifact.sise > 1'}\n"))
	if err == nil || !strings.Contains(err.Error(), "topics[1].filter") || !strings.Contains(err.Error(), "undefined field 'sise'") || strings.Contains(err.Error(), "topics[0]") {
		t.Errorf("Parse = %v, want one that names topics[1].filter and its fault only", err)
	}
}
