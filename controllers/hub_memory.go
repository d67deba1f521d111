package controllers

import (
	"crypto/sha256"
	"encoding/json"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// memory is what passes leave for later ones, so that Hubs at rest cost little. All of
// it may be lost at any time. Its zero value is empty.
type memory struct {
	mu   sync.Mutex // guards the fields below
	hubs map[types.NamespacedName]*hubMemory
	// nodes is how many all these Hubs have.
	nodes int
}

// hubMemory is about one Hub. Only one pass at a time works on a Hub, and uses it.
type hubMemory struct {
	nodes int // guarded by memory.mu
	// agreed is, by kind and name, what was last found to be as desired.
	agreed map[string]agreement
	// workload is about the StatefulSet, and update what was found then.
	workload agreement
	update   update
	// leaderlessSince is when shards were first seen without a leader, zero when all have
	// one; missingSince is so of pods, by their names. lasts is what was said of both.
	leaderlessSince time.Time
	missingSince    map[string]time.Time
	lasts           lasting
	// grants are those whose rules are known to be valid.
	grants validGrants
}

// agreement is an object in the cluster together with what was desired of it.
type agreement struct {
	resourceVersion string
	desired         [sha256.Size]byte
}

// agreementOn returns the agreement of an object with what is desired.
func agreementOn(resourceVersion string, desired runtime.ApplyConfiguration) (agreement, error) {
	data, err := json.Marshal(desired)
	return agreement{resourceVersion, sha256.Sum256(data)}, err
}

// of returns what is remembered of the Hub with this name.
func (m *memory) of(name types.NamespacedName) *hubMemory {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.hubs[name]
	if h == nil {
		h = &hubMemory{agreed: make(map[string]agreement)}
		if m.hubs == nil {
			m.hubs = make(map[types.NamespacedName]*hubMemory)
		}
		m.hubs[name] = h
	}
	return h
}

// count takes note of how many nodes a Hub has, and returns how many all have.
func (m *memory) count(name types.NamespacedName, nodes int) (all int) {
	h := m.of(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.nodes += nodes - h.nodes
	h.nodes = nodes
	return m.nodes
}

// forget drops a Hub that is gone.
func (m *memory) forget(name types.NamespacedName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if h := m.hubs[name]; h != nil {
		m.nodes -= h.nodes
		delete(m.hubs, name)
	}
}
