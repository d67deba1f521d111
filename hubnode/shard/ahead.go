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
// replica whose log is replaced where its store holds it already is made anew. So is one whose
// store, or snapshot, holds what the others lost, and went on without for so long that they
// have cut their logs: their entries and their snapshots tell (see cutHeld and strange).

// cuttable is a store that can forget what was appended last.
type cuttable interface {
	// Cut takes what a topic holds from a sequence on.
	Cut(topic string, from wire.Sequence) error
}

// cutStore takes from the store what is beyond its latest snapshot and the log, and returns
// the last log entry of which something is in the store, with its term.
func (r *replica) cutStore() (held, term uint64, err error) {
	all := &reached{Store: r.store}
	m := newMachine(all)
	m.limits = r.s.cfg.Limits
	held, err = loadLatest(m, r.snaps)
	if err != nil {
		return 0, 0, err
	}
	first, err := r.logs.entries.FirstIndex()
	if err != nil || first == 0 {
		first = held + 1
	}
	last, err := r.logs.entries.LastIndex()
	if err != nil {
		return 0, 0, err
	}
	for i := max(first, held+1); i <= last; i++ {
		var l raft.Log
		if err := r.logs.entries.GetLog(i, &l); err != nil {
			return 0, 0, err
		}
		if l.Type != raft.LogCommand {
			continue
		}
		all.held = false
		m.apply(&l)
		if m.failed {
			return 0, 0, fmt.Errorf("%w: log entry %d", history.ErrCorrupt, i)
		}
		if all.held {
			held, term = i, l.Term
		}
	}
	topics, err := r.cutTo(m)
	if topics > 0 && err == nil {
		r.log.Error("a replica's store was ahead of its log, as after a loss of power: what was acknowledged last has to come from the others", slog.Int("topics", topics))
	}
	return held, term, err
}

// cutTo takes from the store what a machine has not reached, and returns of how many topics
// it did.
func (r *replica) cutTo(m *machine) (topics int, err error) {
	ahead := make(map[string]wire.Sequence)
	err = r.store.Topics(func(topic string, b history.Bounds) bool {
		if next := m.next(topic); b.Next > next {
			ahead[topic] = next
		}
		return true
	})
	if err != nil || len(ahead) == 0 {
		return 0, err
	}
	store, ok := r.store.(cuttable)
	for topic, next := range ahead {
		if !ok {
			return 0, fmt.Errorf("%w: topic %s goes beyond sequence %d, where the log ends", history.ErrCorrupt, topic, next)
		}
		if err := store.Cut(topic, next); err != nil {
			return 0, err
		}
	}
	return len(ahead), r.store.Flush() // before the log holds something else in their place
}

// strange returns an error when the store holds what is not in the history that another
// replica's snapshot stands for. Of a log that is synced before anything is acknowledged
// nothing is ever lost: there it is enough that nothing speaks against it.
func (r *replica) strange(s *snapshot) error {
	index, term := r.machine.reigns.end()
	if r.held > index && r.heldTerm > 0 {
		index, term = r.held, r.heldTerm
	}
	if index == 0 || len(s.Reigns) == 0 { // a replica of the version before can't tell
		return nil
	}
	is, sure := s.Reigns.tell(index, term)
	if is || !sure && r.s.cfg.SyncInterval == 0 {
		return nil
	}
	return fmt.Errorf("log entry %d of term %d, which the store holds, is not known to be part of what the leader has", index, term)
}

// gaveUp undoes what was fetched of a snapshot before that went wrong. It stays in the store
// where it is certain that the next leader's history is the same: what a log that is synced
// from time to time held may be lost with its leader.
func (r *replica) gaveUp() {
	if err := r.snaps.givenUp(); err != nil {
		r.log.Warn("snapshot not given up", slog.Any("error", err))
	}
	if r.dir == "" || r.s.cfg.SyncInterval == 0 || r.life.Err() != nil { // it is cut when it is opened again
		return
	}
	if _, err := r.cutTo(r.machine); err != nil {
		r.fail(fmt.Errorf("undo what was fetched: %w", err))
	}
}

// replaces notes that entries of the log go to make room for others.
func (r *replica) replaces(from, to uint64) {
	if cut := r.snaps.held(); to <= cut || max(from, cut+1) > max(r.held, r.machine.applied.Load()) {
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
