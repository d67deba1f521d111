package hub

import (
	"hash/fnv"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/switchboardhub/switchboard/hubnode/topic"
	"github.com/switchboardhub/switchboard/wire"
)

// routesMax bounds the topics whose fan-out is kept resolved.
const routesMax = 1 << 16

// route is a topic that artifacts were published to. It is found once and then
// kept by those who publish; its fan-out is replaced when subscriptions change.
type route struct {
	topic string
	fan   atomic.Pointer[fan] // nil: to be resolved
	dead  atomic.Bool         // evicted: look the topic up again
}

// fan is where a topic's artifacts go. It never changes.
type fan struct {
	plain  []*subscription
	groups []*group
	links  []Link // to the nodes with an interest, each once
	keeps  bool   // the topic keeps history
	filter Filter // nil: everything may be published
}

// group is a queue group: one member gets each artifact.
type group struct {
	hash   uint32
	next   atomic.Uint32
	locals []*subscription
	others []groupNode // those with members, in the order of their names

	filtered bool // some of locals have a filter
}

type groupNode struct {
	name string
	link Link
}

// route returns the route of a topic.
func (h *Hub) route(name string) (*route, error) {
	if v, ok := h.routes.Load(name); ok {
		r, _ := v.(*route)
		return r, nil
	}
	if err := topic.CheckName(name); err != nil {
		return nil, &wire.Error{Code: wire.CodeInvalidTopic, Detail: err.Error()}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if v, ok := h.routes.Load(name); ok {
		r, _ := v.(*route)
		return r, nil
	}
	if h.routeN >= routesMax {
		h.evictLocked()
	}
	r := &route{topic: name}
	h.routes.Store(name, r)
	h.routeN++
	return r, nil
}

// evictLocked forgets all routes: those who use them find them anew.
func (h *Hub) evictLocked() {
	h.routes.Range(func(name, v any) bool {
		r, _ := v.(*route)
		r.dead.Store(true)
		h.routes.Delete(name)
		h.routeN--
		return true
	})
}

// resolve returns where a route's artifacts go.
func (h *Hub) resolve(r *route) *fan {
	if f := r.fan.Load(); f != nil {
		return f
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if f := r.fan.Load(); f != nil {
		return f
	}
	f := h.resolveLocked(r.topic)
	r.fan.Store(f)
	return f
}

func (h *Hub) resolveLocked(name string) *fan {
	f := &fan{}
	if !isSystem(name) {
		limits, filter := h.settings.Load().rule(name)
		f.keeps, f.filter = limits.MaxArtifacts > 0, filter
	}
	peers := *h.peers.Load()
	linked := make(map[string]bool)
	groups := make(map[string]*group)
	h.index.Match(name, func(s *subscription) {
		switch {
		case isSystem(name) && !isSystem(s.pattern):
		case s.group != "":
			key := interestName(s.pattern, s.group)
			g := groups[key]
			if g == nil {
				g = &group{hash: groupHash(key)}
				groups[key] = g
				f.groups = append(f.groups, g)
			}
			if s.client != nil {
				g.locals = append(g.locals, s)
				g.filtered = g.filtered || s.filter != nil
			} else if link := peers[s.peer]; link != nil {
				g.others = append(g.others, groupNode{s.peer, link})
			}
		case s.client != nil:
			f.plain = append(f.plain, s)
		case !linked[s.peer]:
			if link := peers[s.peer]; link != nil {
				linked[s.peer] = true
				f.links = append(f.links, link)
			}
		}
	})
	for _, g := range f.groups {
		slices.SortFunc(g.others, func(a, b groupNode) int { return strings.Compare(a.name, b.name) })
	}
	return f
}

// isSystem reports whether a topic is the hub's own. Only a pattern that is too
// matches it, and no rule of the settings is meant for it.
func isSystem(name string) bool { return strings.HasPrefix(name, "$") }

// changedLocked makes the routes that a pattern matches resolve anew.
func (h *Hub) changedLocked(pattern string) {
	if topic.IsLiteral(pattern) {
		if v, ok := h.routes.Load(pattern); ok {
			r, _ := v.(*route)
			r.fan.Store(nil)
		}
		return
	}
	h.routes.Range(func(_, v any) bool {
		if r, _ := v.(*route); topic.Match(pattern, r.topic) {
			r.fan.Store(nil)
		}
		return true
	})
}

// interestName is how a node tells others what it wants to hear: a pattern, and
// a group's name behind a byte that no pattern contains.
func interestName(pattern, group string) string {
	if group == "" {
		return pattern
	}
	return pattern + "\x00" + group
}

func splitInterest(name string) (pattern, group string) {
	pattern, group, _ = strings.Cut(name, "\x00")
	return pattern, group
}

// groupHash names a group on the mesh, in a frame's ref. It is never 0, which
// means "everyone but the groups".
func groupHash(name string) uint32 {
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(name)) // never fails
	return max(sum.Sum32(), 1)
}
