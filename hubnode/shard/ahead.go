package shard

import (
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/hashicorp/raft"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
)

// A log that is synced from time to time may lose its end when the power fails, and with a
// majority of its kind what was acknowledged. Then other entries come in its place. Appending
// is idempotent by sequence, so a store must not hold what was in the entries that are gone:
// it would take the new artifacts for the old ones.
//
// Logs are synced before what was appended to a store survives a crash ([Shards.SyncLogs]).
// What is left: a store that is ahead all the same is cut back when it is opened, and a
// replica whose log is replaced where its store holds it already is made anew.

// cuttable is a store that can forget what was appended last.
type cuttable interface {
	// Cut takes what a topic holds from a sequence on.
	Cut(topic string, from wire.Sequence) error
}

// cutStore takes from the store what is beyond its latest snapshot and the log, and returns
// the last log entry of which something is in the store.
func (r *replica) cutStore() (held uint64, err error) {
	all := &reached{Store: r.store}
	m := newMachine(all)
	m.limits = r.s.cfg.Limits
	held, err = loadLatest(m, r.snaps)
	if err != nil {
		return 0, err
	}
	first, err := r.logs.entries.FirstIndex()
	if err != nil || first == 0 {
		first = held + 1
	}
	last, err := r.logs.entries.LastIndex()
	if err != nil {
		return 0, err
	}
	for i := max(first, held+1); i <= last; i++ {
		var l raft.Log
		if err := r.logs.entries.GetLog(i, &l); err != nil {
			return 0, err
		}
		if l.Type != raft.LogCommand {
			continue
		}
		all.held = false
		m.apply(&l)
		if m.failed {
			return 0, fmt.Errorf("%w: log entry %d", history.ErrCorrupt, i)
		}
		if all.held {
			held = i
		}
	}
	return held, r.cutTo(m)
}

// cutTo takes from the store what a machine has not reached.
func (r *replica) cutTo(m *machine) error {
	ahead := make(map[string]wire.Sequence)
	err := r.store.Topics(func(topic string, b history.Bounds) bool {
		if next := m.next(topic); b.Next > next {
			ahead[topic] = next
		}
		return true
	})
	if err != nil || len(ahead) == 0 {
		return err
	}
	store, ok := r.store.(cuttable)
	for topic, next := range ahead {
		if !ok {
			return fmt.Errorf("%w: topic %s goes beyond sequence %d, where the log ends", history.ErrCorrupt, topic, next)
		}
		if err := store.Cut(topic, next); err != nil {
			return err
		}
	}
	r.log.Error("a replica's store was ahead of its log, as after a loss of power: what was acknowledged last has to come from the others", slog.Int("topics", len(ahead)))
	return r.store.Flush() // before the log holds something else in their place
}

// replaces notes that entries of the log go to make room for others.
func (r *replica) replaces(from, to uint64) {
	if cut := r.snaps.last(); to <= cut || max(from, cut+1) > max(r.held, r.machine.applied.Load()) {
		return
	}
	r.fail(fmt.Errorf("log entries from %d on are replaced, and the store holds them already", from))
}

// reached is a store to which nothing is done. It tells what it is told to append and the
// other one holds.
type reached struct {
	history.Store
	held bool
}

// Append implements history.Store.
func (s *reached) Append(_ time.Time, topic string, _ history.Limits, run history.Run) error {
	b, _, err := s.Store.Bounds(topic)
	s.held = s.held || b.Next > run.First
	return err
}

// Purge implements history.Store.
func (s *reached) Purge(string, wire.Sequence) error { return nil }

// Bounds implements history.Store: every topic is far ahead.
func (s *reached) Bounds(string) (history.Bounds, bool, error) {
	return history.Bounds{Next: math.MaxUint64}, true, nil
}
