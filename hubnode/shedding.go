package hubnode

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/hubnode/memory"
	"github.com/switchboardhub/switchboard/wire"
)

// watchMemory returns what keeps clients out, and lets the slowest go, while memory is short.
// Links to other nodes, and what is replicated over them, are no clients.
func (n *Node) watchMemory() *memory.Watch {
	return memory.New(memory.Config{
		Limit:   func() int64 { return memory.Limit(int64(n.Config().Limits.MaxMemory)) },
		Changed: n.memoryChanged,
		Shed:    n.shed,
		Queued:  n.hub.Queued(),
	})
}

func (n *Node) memoryChanged(level memory.Level) {
	now := time.Now()
	how := slog.Group("memory", slog.Int64("used_bytes", n.memory.Used()), slog.Int64("limit_bytes", n.memory.Limit()))
	switch level {
	case memory.Ample:
		n.hub.Admit(hub.AdmitAll, nil)
		n.shortSince.Store(nil)
		n.log.Info("memory is ample again: clients are admitted", how)
	case memory.Tight:
		n.hub.Admit(hub.AdmitKnown, n.shortOfMemory)
		n.shortSince.CompareAndSwap(nil, &now)
		n.log.Warn("memory is short: new clients are refused", how)
	case memory.Critical:
		n.hub.Admit(hub.AdmitNone, n.shortOfMemory)
		n.shortSince.CompareAndSwap(nil, &now)
		n.log.Error("memory is nearly used up: no client is admitted, and the slowest are let go", how)
	}
}

// shortOfMemory is what a client is told that is refused.
func (n *Node) shortOfMemory() error {
	return &wire.Error{Code: wire.CodeOverloaded, Elsewhere: n.otherAddresses(), Detail: fmt.Sprintf(
		"node %s is short of memory, it uses %d MiB of %d MiB: connect to another node, or later; it needs more memory, or more nodes",
		n.self.Name, n.memory.Used()/mib, n.memory.Limit()/mib)}
}

func (n *Node) shed(bytes int64) int64 {
	freed := n.hub.Shed(bytes)
	n.log.Warn("slow clients were let go for memory", slog.Int64("wanted_bytes", bytes), slog.Int64("freed_bytes", freed))
	return freed
}
