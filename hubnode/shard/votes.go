package shard

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// retryVotes is how often votes are tried again that there was no room for.
const retryVotes = 100 * time.Millisecond

// steadyVotes are the votes of a replica. Raft ends the process when a term can't be
// written: while there is no room Raft waits, which holds up this shard on this node
// alone, and if the disk is broken until the replica ends, to be made anew. Only while it
// starts, which nobody relies on yet, an error is told.
type steadyVotes struct {
	raft.StableStore
	ends    <-chan struct{} // closed when the replica ends
	silence func()          // nobody hears of this replica any more once it has returned
	broken  func(error)     // the votes can't be kept
	log     *slog.Logger

	begun   atomic.Bool // a write succeeded: Raft writes its term before anything of it runs
	refused error       // why it could not start
}

// Set implements raft.StableStore.
func (v *steadyVotes) Set(key, value []byte) error {
	return v.keep(func() error { return v.StableStore.Set(key, value) })
}

// SetUint64 implements raft.StableStore.
func (v *steadyVotes) SetUint64(key []byte, value uint64) error {
	return v.keep(func() error { return v.StableStore.SetUint64(key, value) })
}

func (v *steadyVotes) keep(write func() error) error {
	for waited := false; ; waited = true {
		err := write()
		switch {
		case err == nil:
			v.begun.Store(true)
			if waited {
				v.log.Info("there is room for votes again")
			}
			return nil
		case !v.begun.Load():
			v.refused = err
			return err
		case !passing(err):
			v.broken(err)
			<-v.ends
		case !waited:
			v.log.Error("no room for votes: the replica does not take part until there is", slog.Any("error", err))
		}
		select {
		case <-time.After(retryVotes):
		case <-v.ends: // what was not kept must not be heard of
			v.silence()
			return nil
		}
	}
}
