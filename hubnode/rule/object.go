package rule

import (
	"sync"

	"github.com/google/cel-go/common/types"

	"github.com/switchboardhub/switchboard/hubnode/celtype"
)

// identityType is what a condition finds in an identity.
var identityType = celtype.New("identity", "switchboard.Identity", map[string]celtype.Field[Subject]{
	"method":         {Type: types.StringType, Get: func(s *Subject) any { return s.Method }},
	"name":           {Type: types.StringType, Get: func(s *Subject) any { return s.Name }},
	"namespace":      {Type: types.StringType, Get: func(s *Subject) any { return s.Namespace }},
	"serviceAccount": {Type: types.StringType, Get: func(s *Subject) any { return s.ServiceAccount }},
	"groups":         {Type: types.NewListType(types.StringType), Get: func(s *Subject) any { return s.Groups }},
	"claims":         {Type: types.NewMapType(types.StringType, types.DynType), Get: func(s *Subject) any { return s.Claims }},
})

// environment is what all conditions share.
var environment = sync.OnceValues(identityType.Environment)
