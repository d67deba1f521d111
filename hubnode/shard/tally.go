package shard

import (
	"log/slog"

	"github.com/switchboardhub/switchboard/hubnode/history"
)

// Tally is what a shard holds of each group of topics, by its leader.
type Tally struct {
	Shard int              `json:"shard"`
	Term  uint64           `json:"term"`  // of the leadership: who counted with a lower one is out of date
	Bytes map[string]int64 `json:"bytes"` // of artifacts, by group; those that hold nothing are left out
}

// Tallies returns what the shards hold that this node leads, as far as it knows: nobody
// else is asked. Topics whose group is empty are not counted.
func (s *Shards) Tallies(group func(topic string) string) []Tally {
	var all []Tally
	s.eachReplica(func(r *replica) {
		r.mu.Lock()
		leads, term := r.serving, r.term
		r.mu.Unlock()
		if !leads {
			return
		}
		t := Tally{Shard: r.n, Term: term, Bytes: make(map[string]int64)}
		err := r.store.Topics(func(topic string, b history.Bounds) bool {
			if of := group(topic); of != "" && b.Bytes > 0 {
				t.Bytes[of] += b.Bytes
			}
			return true
		})
		if err == nil {
			err = r.inPlace()
		}
		if err != nil {
			r.suspect(err)
			r.log.Warn("history not counted", slog.Any("error", err))
			return
		}
		all = append(all, t)
	})
	return all
}
