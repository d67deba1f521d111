package hubnode

import (
	"sync/atomic"

	"github.com/switchboardhub/switchboard/hubnode/filter"
	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/wire"
)

// filters makes CEL expressions the hub's filters, and counts how often they
// fail.
type filters struct {
	failed atomic.Uint64
}

// compile makes an expression a filter. An artifact on which it has no answer
// does not match.
func (fs *filters) compile(expression string) (hub.Filter, error) {
	f, err := filter.Compile(expression)
	if err != nil {
		return nil, err
	}
	return func(a *wire.Artifact) bool {
		ok, err := f.Match(a)
		if err != nil {
			fs.failed.Add(1)
		}
		return ok && err == nil
	}, nil
}
