package filter

import (
	"sync"

	"github.com/google/cel-go/common/types"

	"github.com/switchboardhub/switchboard/hubnode/celtype"
	"github.com/switchboardhub/switchboard/wire"
)

// variable is the only name that an expression can read.
const variable = "artifact"

// artifactType is what an expression finds in an artifact.
var artifactType = celtype.New(variable, "switchboard.Artifact", map[string]celtype.Field[wire.Artifact]{
	"id":          {Type: types.StringType, Get: func(a *wire.Artifact) any { return a.ID.String() }},
	"from":        {Type: types.StringType, Get: func(a *wire.Artifact) any { return a.From }},
	"to":          {Type: types.StringType, Get: func(a *wire.Artifact) any { return a.To }},
	"topic":       {Type: types.StringType, Get: func(a *wire.Artifact) any { return a.Topic }},
	"size":        {Type: types.IntType, Get: func(a *wire.Artifact) any { return int64(len(a.Payload)) }},
	"contentType": {Type: types.StringType, Get: func(a *wire.Artifact) any { return a.ContentType }},
	"attributes":  {Type: types.NewMapType(types.StringType, types.StringType), Get: func(a *wire.Artifact) any { return a.Attributes }},
	"time":        {Type: types.TimestampType, Get: func(a *wire.Artifact) any { return a.Time }},
})

// environment is what all filters share.
var environment = sync.OnceValues(artifactType.Environment)
