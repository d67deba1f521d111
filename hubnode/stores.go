package hubnode

import (
	"sync"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/hubnode/history"
)

// stores are what the node's replicas hold, by shard.
type stores struct {
	mu     sync.Mutex // guards memory
	memory map[int]*history.Memory
}

// store returns the store of a shard.
func (n *Node) store(shard int) (history.Store, error) {
	n.stores.mu.Lock()
	defer n.stores.mu.Unlock()
	if n.stores.memory[shard] == nil {
		if n.stores.memory == nil {
			n.stores.memory = make(map[int]*history.Memory)
		}
		n.stores.memory[shard] = history.NewMemory()
	}
	return n.stores.memory[shard], nil
}

// syncInterval returns how often what was stored is synced to disk: 0 for always.
func (n *Node) syncInterval() time.Duration {
	s := n.Config().Storage
	if s.Sync == config.SyncInterval {
		return time.Duration(s.SyncInterval)
	}
	return 0
}
