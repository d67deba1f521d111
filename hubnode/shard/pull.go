package shard

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
)

const (
	pullBytes = 1 << 20 // of one page between stores
	pullTime  = 30 * time.Second
	pullsMax  = 2 // replicas of one node that fetch at a time
)

// source is the replica that this one fetches from: the one that sent the snapshot, and so
// has, or had, all of what that stands for.
type source struct {
	id  raft.ServerID
	old bool // its node is of the version before, which does not know questionStretch
}

// pull fetches from the replica that sent a snapshot what this replica's store
// lacks of it. What the store has is a beginning of the same history (see strange), so
// that it goes on where that ends.
func (r *replica) pull(s *snapshot) error {
	err := r.fetch(s)
	if err != nil {
		r.gaveUp()
	}
	return err
}

func (r *replica) fetch(s *snapshot) error {
	sender := r.trans.source.Load()
	if sender == nil {
		return errors.New("it is not known who sent the snapshot")
	}
	from := &source{id: *sender}
	start := time.Now()
	select {
	case r.s.pulling <- struct{}{}: // a few at a time
		defer func() { <-r.s.pulling }()
	case <-r.machine.stop:
		return errStopped
	}
	var size int64
	for topic, next := range s.Topics {
		n, err := r.pullTopic(from, topic, next)
		if err != nil {
			return fmt.Errorf("fetch topic %s from replica %s: %w", topic, from.id, err)
		}
		size += n
	}
	if err := r.store.Flush(); err != nil {
		return err
	}
	if err := r.snaps.fetched(); err != nil {
		return err
	}
	r.log.Info("history fetched", slog.String("peer", nodeOf(from.id)), slog.Int("topics", len(s.Topics)), slog.Int64("bytes", size), slog.Duration("took", time.Since(start)))
	return nil
}

// pullTopic fetches one topic up to a sequence, or further.
func (r *replica) pullTopic(from *source, topic string, until wire.Sequence) (size int64, err error) {
	b, ok, err := r.store.Bounds(topic)
	if err != nil {
		return 0, err
	}
	next := wire.Sequence(1)
	if ok {
		next = b.Next
	}
	limits := r.s.cfg.Limits(topic)
	for next < until {
		page, err := r.askPage(from, stretch{shard: r.n, of: from.id, from: next, until: until, topic: topic})
		if err != nil {
			return size, err
		}
		if len(page) == 0 {
			return size, skip(r.store, topic, until) // retention took it
		}
		for _, run := range page {
			if run.First > next && ok {
				if err := r.store.Purge(topic, next); err != nil { // retention took what lies between
					return size, err
				}
			}
			if err := r.machine.persist(func() error { return r.store.Append(time.Now(), topic, limits, run) }); err != nil {
				return size, err
			}
			ok = true
			next = run.First + wire.Sequence(run.Count)
			size += int64(len(run.Body))
		}
	}
	return size, nil
}

// askPage asks a source for a stretch of history. It is empty only when retention took all
// of it there.
func (r *replica) askPage(from *source, want stretch) ([]history.Run, error) {
	ctx, cancel := context.WithTimeout(r.life, pullTime)
	defer cancel()
	if !from.old {
		answer, err := r.s.cfg.Ask(ctx, nodeOf(from.id), questionStretch, want.encode())
		if refused, ok := errors.AsType[*wire.Error](err); !ok || refused.Code != wire.CodeInvalidRequest {
			if err != nil {
				return nil, err
			}
			return decodeRuns(answer)
		}
		from.old = true
	}
	return r.askOldPage(ctx, from, want)
}

// askOldPage is askPage for a node of the version before. That answers with what it has now,
// which is nothing when its replica was just made anew. So an empty page counts when the
// source is there after it: ids don't come back, so it was there all the time.
func (r *replica) askOldPage(ctx context.Context, from *source, want stretch) ([]history.Run, error) {
	answer, err := r.s.cfg.Ask(ctx, nodeOf(from.id), questionPage, want.encodePage())
	if err != nil {
		return nil, err
	}
	page, err := decodeRuns(answer)
	if err != nil || len(page) > 0 {
		return page, err
	}
	st, err := r.s.askState(ctx, nodeOf(from.id), want.shard)
	if err == nil && st.ID != from.id {
		err = errChanging
	}
	return nil, err
}

// stretch is a part of a topic's history that is asked for.
type stretch struct {
	shard int
	of    raft.ServerID // the replica that is asked; empty for whichever there is
	from  wire.Sequence // the first one wanted
	until wire.Sequence // the replica has to have, or have had, what comes before
	topic string
}

func (q stretch) encode() []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(q.shard))
	b = binary.BigEndian.AppendUint64(b, uint64(q.from))
	b = binary.BigEndian.AppendUint64(b, uint64(q.until))
	b = appendBytes(b, []byte(q.of))
	return append(b, q.topic...)
}

func decodeStretch(b []byte) (stretch, error) {
	f := &fields{rest: b}
	q := stretch{shard: int(f.uint32()), from: wire.Sequence(f.uint64()), until: wire.Sequence(f.uint64())}
	q.of = raft.ServerID(f.take(uint64(f.uint16())))
	q.topic = string(f.rest)
	if f.bad {
		return q, fmt.Errorf("%w: request for a stretch of history", wire.ErrMalformed)
	}
	return q, nil
}

// encodePage encodes it for questionPage.
func (q stretch) encodePage() []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(q.shard))
	b = binary.BigEndian.AppendUint64(b, uint64(q.from))
	return append(b, q.topic...)
}

// decodePage decodes what encodePage made. That does not say what the replica has to have: at
// least the first one that is wanted.
func decodePage(b []byte) (stretch, error) {
	f := &fields{rest: b}
	q := stretch{shard: int(f.uint32()), from: wire.Sequence(f.uint64())}
	q.until = q.from + 1
	q.topic = string(f.rest)
	if f.bad {
		return q, fmt.Errorf("%w: request for a stretch of history", wire.ErrMalformed)
	}
	return q, nil
}

// answerStretch answers with what this node's replica has of a stretch of history, as far as one
// page goes. It is empty only when retention took all of it.
func (s *Shards) answerStretch(q stretch) ([]byte, error) {
	r := s.replica(q.shard)
	switch {
	case r == nil:
		return nil, errNotLeader
	case q.of != "" && q.of != r.id, r.failed.Load() != nil:
		return nil, errChanging
	}
	bounds, _, err := r.store.Bounds(q.topic) // before it is read: what comes meanwhile proves nothing
	if err == nil && bounds.Next < q.until {
		return nil, errFetching
	}
	var b []byte
	if err == nil {
		_, err = r.store.Read(q.topic, q.from, pullBytes, func(run history.Run) { b = appendRun(b, run) })
	}
	if err != nil {
		r.suspect(err)
		return nil, err
	}
	return b, r.inPlace()
}

// errFetching refuses what a replica does not have: it is still fetching, or applying, it.
var errFetching = &wire.Error{Code: wire.CodeUnavailable, Detail: "this node's replica of the shard does not have that part of the history yet"}

// inPlace returns an error when the replica is not the shard's any more. What was read from
// its store before the call may be what is left for a successor, which is nothing.
func (r *replica) inPlace() error {
	if r.s.replica(r.n) != r {
		return errChanging
	}
	return nil
}

func appendRun(b []byte, run history.Run) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(run.First))
	b = binary.BigEndian.AppendUint32(b, uint32(run.Count))
	b = binary.BigEndian.AppendUint64(b, uint64(run.Time.UnixNano()))
	b = appendBytes(b, []byte(run.From))
	b = binary.BigEndian.AppendUint32(b, uint32(len(run.Body)))
	return append(b, run.Body...)
}

func decodeRuns(b []byte) ([]history.Run, error) {
	var page []history.Run
	for f := (&fields{rest: b}); len(f.rest) > 0; {
		run := history.Run{First: wire.Sequence(f.uint64()), Count: int(f.uint32())}
		run.Time = time.Unix(0, int64(f.uint64())).UTC()
		run.From = string(f.take(uint64(f.uint16())))
		run.Body = f.take(uint64(f.uint32()))
		if f.bad || run.Count <= 0 {
			return nil, fmt.Errorf("%w: stretch of history", wire.ErrMalformed)
		}
		page = append(page, run)
	}
	return page, nil
}
