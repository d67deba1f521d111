package shard

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
)

const (
	pullBytes = 1 << 20 // of one page between stores
	pullTime  = 30 * time.Second
	pullsMax  = 2 // replicas of one node that fetch at a time
)

// pull fetches from the node that sent a snapshot what this replica's store
// lacks of it. What the store has is a beginning of the same history, so that
// it goes on where that ends.
func (r *replica) pull(s *snapshot) error {
	from := r.trans.source.Load()
	if from == nil {
		return errors.New("it is not known who sent the snapshot")
	}
	start := time.Now()
	select {
	case r.s.pulling <- struct{}{}: // a few at a time
		defer func() { <-r.s.pulling }()
	case <-r.machine.stop:
		return errStopped
	}
	var size int64
	for topic, next := range s.Topics {
		n, err := r.pullTopic(*from, topic, next)
		if err != nil {
			return fmt.Errorf("fetch topic %s from node %s: %w", topic, *from, err)
		}
		size += n
	}
	if err := r.store.Flush(); err != nil {
		return err
	}
	if err := r.snaps.fetched(); err != nil {
		return err
	}
	r.log.Info("history fetched", slog.String("peer", *from), slog.Int("topics", len(s.Topics)), slog.Int64("bytes", size), slog.Duration("took", time.Since(start)))
	return nil
}

// pullTopic fetches one topic up to a sequence, or further.
func (r *replica) pullTopic(node, topic string, until wire.Sequence) (size int64, err error) {
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
		page, err := r.askPage(node, topic, next)
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

// askPage asks a node for a stretch of a topic's history.
func (r *replica) askPage(node, topic string, from wire.Sequence) ([]history.Run, error) {
	ctx, cancel := context.WithTimeout(r.life, pullTime)
	defer cancel()
	body := binary.BigEndian.AppendUint32(nil, uint32(r.n))
	body = binary.BigEndian.AppendUint64(body, uint64(from))
	answer, err := r.s.cfg.Ask(ctx, node, questionPage, append(body, topic...))
	if err != nil {
		return nil, err
	}
	return decodeRuns(answer)
}

func (s *Shards) answerPage(body []byte) ([]byte, error) {
	f := &fields{rest: body}
	n, from := int(f.uint32()), wire.Sequence(f.uint64())
	if f.bad {
		return nil, fmt.Errorf("%w: request for a stretch of history", wire.ErrMalformed)
	}
	r := s.replica(n)
	if r == nil {
		return nil, errNotLeader
	}
	var b []byte
	_, err := r.store.Read(string(f.rest), from, pullBytes, func(run history.Run) { b = appendRun(b, run) })
	if err != nil {
		r.suspect(err)
		return nil, err
	}
	return b, nil
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
