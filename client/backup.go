package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"sync"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

// backupMagic begins a backup. What follows is frames: for each topic one of KindRestore
// that says where it begins, those of its artifacts, of KindPublish, and those that make
// its durable subscriptions, of KindFetch; at the end one of KindGoodbye, whose body is
// a [BackupSummary].
const backupMagic = "switchboard backup 1\n"

// backupFrame bounds a frame of a backup.
const backupFrame = 64 << 20

// BackupSummary says what a backup holds.
type BackupSummary struct {
	Topics    int    `json:"topics"`
	Artifacts uint64 `json:"artifacts"`
	Durables  int    `json:"durables"`
	Bytes     int64  `json:"bytes"`  // of all before the summary
	Checksum  uint32 `json:"crc32c"` // of the same
}

// Backup writes what the hub keeps of topics with history to w, while it runs: of each
// topic a beginning that holds all that was acknowledged before Backup was called, with
// its sequences, ids and times, and the positions of its durable subscriptions. It
// calls progress, which may be nil, for each topic that is done. While the hub can't
// list all topics and subscriptions, because a node does not answer or a shard has no
// leader, it waits for a minute, and then fails.
func (c *Client) Backup(ctx context.Context, w io.Writer, progress func(topic string, artifacts uint64)) (BackupSummary, error) {
	topics, err := c.keptTopics(ctx)
	if err != nil {
		return BackupSummary{}, err
	}
	durables, err := c.durablePositions(ctx) // first: an artifact that is settled later is given out once more
	if err != nil {
		return BackupSummary{}, err
	}
	b := &backupWriter{to: bufio.NewWriterSize(w, 1<<20), sum: crc32.New(crc32.MakeTable(crc32.Castagnoli))}
	b.write([]byte(backupMagic))
	for _, topic := range topics {
		n, err := c.backupTopic(ctx, b, topic)
		if err != nil {
			return b.total, fmt.Errorf("back up %q: %w", topic, err)
		}
		for _, d := range durables[topic] {
			fetch := wire.Fetch{Name: d.Name, Policy: d.Policy, Since: wire.SinceSequence, Sequence: d.Position}
			b.write(wire.AppendControl(nil, wire.Header{Kind: wire.KindFetch}, topic, fetch))
			b.total.Durables++
		}
		b.total.Topics++
		b.total.Artifacts += n
		if progress != nil && b.err == nil {
			progress(topic, n)
		}
	}
	b.total.Checksum = b.sum.Sum32()
	total := b.total
	b.write(wire.AppendControl(nil, wire.Header{Kind: wire.KindGoodbye}, "", total))
	return total, errors.Join(b.err, b.to.Flush())
}

// backupWriter writes and counts. Its first error stays.
type backupWriter struct {
	to    *bufio.Writer
	sum   hash.Hash32
	total BackupSummary
	err   error
}

func (b *backupWriter) write(p []byte) {
	if b.err != nil {
		return
	}
	_, b.err = b.to.Write(p)
	_, _ = b.sum.Write(p) // never fails
	b.total.Bytes += int64(len(p))
}

// backupTopic writes one topic up to where it ended when reading began.
func (c *Client) backupTopic(ctx context.Context, b *backupWriter, topic string) (artifacts uint64, err error) {
	next, end, begun := wire.Sequence(0), wire.Sequence(0), false
	for {
		p := c.readPage(ctx, topic, wire.Read{From: next, End: end})
		if p.err != nil {
			return artifacts, p.err
		}
		end = p.extent.End
		for _, f := range p.frames {
			first, n := f.Sequence(), f.Count()
			skip := int(max(next, p.extent.First, first) - first)
			count := int(min(first+wire.Sequence(n), end) - first)
			if count <= skip {
				continue
			}
			body, err := wire.CutRun(f.Body(), skip, count-skip)
			if err != nil {
				return artifacts, err
			}
			first += wire.Sequence(skip)
			if !begun {
				b.write(wire.AppendFrame(nil, wire.Header{Kind: wire.KindRestore, Sequence: first}, topic, "", nil))
				begun = true
			} else if first != next {
				return artifacts, fmt.Errorf("retention took artifacts %d to %d while they were read: try again, or keep more", next, first-1)
			}
			h := wire.Header{Kind: wire.KindPublish, Count: uint16(count - skip), Sequence: first}
			b.write(wire.AppendFrame(nil, h, []byte(topic), f.From(), body))
			artifacts += uint64(count - skip)
			next = first + wire.Sequence(count-skip)
		}
		if b.err != nil {
			return artifacts, b.err
		}
		if p.next >= end {
			break
		}
		next = max(next, p.next)
	}
	if !begun { // nothing is left, and sequences go on
		b.write(wire.AppendFrame(nil, wire.Header{Kind: wire.KindRestore, Sequence: max(end, 1)}, topic, "", nil))
	}
	return artifacts, b.err
}

// keptTopics returns the topics with history.
func (c *Client) keptTopics(ctx context.Context) ([]string, error) {
	var list struct {
		Topics []struct {
			Topic   string `json:"topic"`
			History bool   `json:"history"`
		} `json:"topics"`
	}
	if err := c.askWhole(ctx, "topics", &list); err != nil {
		return nil, err
	}
	var topics []string
	for _, t := range list.Topics {
		if t.History {
			topics = append(topics, t.Topic)
		}
	}
	return topics, nil
}

func (c *Client) durablePositions(ctx context.Context) (map[string][]wire.DurableInfo, error) {
	var list struct {
		Durables []wire.DurableInfo `json:"durables"`
	}
	if err := c.askWhole(ctx, "durables", &list); err != nil {
		return nil, err
	}
	byTopic := make(map[string][]wire.DurableInfo)
	for _, d := range list.Durables {
		byTopic[d.Topic] = append(byTopic[d.Topic], d)
	}
	return byTopic, nil
}

// wholeTime bounds how long a list is asked for again that is not complete.
const wholeTime = time.Minute

// askWhole asks the hub itself for a list, again while some of it may be missing: a
// backup without a topic would be taken for one of all.
func (c *Client) askWhole(ctx context.Context, question string, into any) error {
	missing := fmt.Errorf("not all %s can be listed: a node of the hub does not answer, or a shard has no leader; see hubctl topics, and try again", question)
	ctx, cancel := context.WithTimeoutCause(ctx, wholeTime, missing)
	defer cancel()
	for round := 0; ; round++ {
		answer, err := c.Request(ctx, "$hub."+question, &wire.Artifact{})
		if err != nil {
			return err
		}
		var list struct {
			Incomplete bool `json:"incomplete"`
		}
		if err := json.Unmarshal(answer.Payload, &list); err != nil {
			return err
		}
		if !list.Incomplete {
			return json.Unmarshal(answer.Payload, into)
		}
		if !sleep(ctx, c.wait(round)) {
			if errors.Is(context.Cause(ctx), missing) {
				return missing
			}
			return fmt.Errorf("%w: %w", context.Cause(ctx), missing)
		}
	}
}

// Restore stores a backup in a hub: with the same sequences, ids and times, under the
// retention of this hub, which counts ages from now on. It calls progress, which may be
// nil, for each topic that is done.
//
// What the hub has already of the backup's topics stays, and has to be what the backup
// has in its place; so a restore that was interrupted goes on where it was when it is
// begun anew. Artifacts that retention took since are not compared, a durable
// subscription that is there already stays where it is.
//
// The backup is read to its end and compared before anything is stored, so that one that
// is damaged, cut off, or of another hub, or that has artifacts larger than this hub takes,
// changes nothing: r is read up to three times. Errors: [ErrBadBackup],
// [ArtifactDiffersError] and [ArtifactTooLargeError]. When it ends with another one, what
// was stored stays.
func (c *Client) Restore(ctx context.Context, r io.ReadSeeker, progress func(topic string, artifacts uint64)) (BackupSummary, error) {
	inBackup := make(map[string]bool)
	var large *largeArtifactError
	limit := c.out.artifactLimit()
	total, err := readBackup(r, func(f wire.Frame) error {
		inBackup[string(f.Target())] = true
		large = large.orLarger(f, limit)
		return nil
	})
	switch {
	case err != nil: // a damaged one may say anything about sizes
		return total, err
	case large != nil:
		return total, fmt.Errorf("nothing was restored: %w", large)
	}
	have, err := c.keptTopics(ctx)
	if err != nil {
		return total, err
	}
	there := make(map[string]bool)
	for _, topic := range have {
		there[topic] = inBackup[topic]
	}
	check := restoring{flags: wire.FlagCheck, progress: func(string, uint64) {}, leaveOut: func(f wire.Frame) bool {
		return f.Kind() == wire.KindFetch || !there[string(f.Target())]
	}}
	if err := c.restoreAll(ctx, r, check); err != nil {
		return total, fmt.Errorf("nothing was restored: %w", err)
	}
	if progress == nil {
		progress = check.progress
	}
	return total, c.restoreAll(ctx, r, restoring{progress: progress, leaveOut: func(wire.Frame) bool { return false }})
}

// largeArtifactError is the largest one of a backup, when the hub does not take it.
type largeArtifactError struct {
	topic string
	err   *ArtifactTooLargeError
}

func (l *largeArtifactError) Error() string {
	return fmt.Sprintf("topic %q: %v: raise the hub's limits.maxArtifactSize to %d or more", l.topic, l.err, l.err.Size)
}

func (l *largeArtifactError) Unwrap() error { return l.err }

// orLarger returns the largest artifact of a frame of a backup, if that is over the limit
// and larger than l, which may be nil.
func (l *largeArtifactError) orLarger(f wire.Frame, limit int) *largeArtifactError {
	if f.Kind() != wire.KindPublish {
		return l
	}
	large, ok := errors.AsType[*ArtifactTooLargeError](wire.CheckRun(f.Body(), f.Count(), limit))
	if !ok || l != nil && large.Size <= l.err.Size {
		return l
	}
	return &largeArtifactError{topic: string(f.Target()), err: large}
}

// restoring is what to do with the frames of a backup.
type restoring struct {
	flags    wire.Flags
	leaveOut func(wire.Frame) bool
	progress func(topic string, artifacts uint64) // one call at a time
}

// restoreAhead is how many topics are restored at a time.
const restoreAhead = 8

// restoreAll sends the frames of a backup: those of one topic one after another, some
// topics at a time.
func (c *Client) restoreAll(ctx context.Context, r io.ReadSeeker, do restoring) error {
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var sending sync.WaitGroup
	var telling sync.Mutex
	slots := make(chan struct{}, restoreAhead)
	var frames chan wire.Frame // of the topic that is being read
	finish := func() {
		if frames != nil {
			close(frames)
		}
	}
	_, err := readBackup(r, func(f wire.Frame) error {
		if do.leaveOut(f) {
			return nil
		}
		if f.Kind() == wire.KindRestore {
			finish()
			topic, of := string(f.Target()), make(chan wire.Frame, 16)
			frames = of
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			sending.Go(func() {
				defer func() { <-slots }()
				n, err := c.restoreTopic(ctx, topic, do.flags, of)
				if err != nil {
					cancel(fmt.Errorf("restore %q: %w", topic, err))
					return
				}
				telling.Lock()
				defer telling.Unlock()
				do.progress(topic, n)
			})
		}
		if frames == nil {
			return fmt.Errorf("%w: it begins in the middle of a topic", ErrBadBackup)
		}
		select {
		case frames <- append(wire.Frame(nil), f...):
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	finish()
	sending.Wait()
	if err == nil {
		err = context.Cause(ctx)
	}
	return err
}

func (c *Client) restoreTopic(ctx context.Context, topic string, flags wire.Flags, frames <-chan wire.Frame) (artifacts uint64, err error) {
	for {
		select {
		case f, ok := <-frames:
			if !ok {
				return artifacts, nil
			}
			if err := c.resend(ctx, topic, flags, f); err != nil {
				return artifacts, err
			}
			artifacts += uint64(f.Count())
		case <-ctx.Done():
			return artifacts, context.Cause(ctx)
		}
	}
}

// resend sends a frame of a backup until it is answered.
func (c *Client) resend(ctx context.Context, topic string, flags wire.Flags, f wire.Frame) error {
	for round := 0; ; round++ {
		h, body := wire.Header{Kind: wire.KindRestore, Flags: flags, Sequence: f.Sequence()}, f.Body()
		if f.Kind() == wire.KindPublish {
			body = f
		} else if f.Kind() == wire.KindFetch {
			h = wire.Header{Kind: wire.KindFetch}
		}
		answer := c.out.control(h, topic, body, true)
		var err error
		select {
		case <-answer.done:
			err = answer.err
		case <-ctx.Done():
			return c.out.forget(answer, context.Cause(ctx))
		}
		if err == nil || !errors.Is(err, errLinkLost) && !temporary(err) {
			return err
		}
		if !sleep(ctx, c.wait(round)) {
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

// ErrBadBackup says that a backup is damaged, cut off, or none at all.
var ErrBadBackup = errors.New("not a whole backup")

// readBackup visits the frames of a backup, each valid until visit returns, and returns
// its summary once everything is known to be as it was written.
func readBackup(r io.Reader, visit func(wire.Frame) error) (total BackupSummary, err error) {
	in := bufio.NewReaderSize(r, 1<<20)
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	magic := make([]byte, len(backupMagic))
	if _, err := io.ReadFull(in, magic); err != nil || string(magic) != backupMagic {
		return total, fmt.Errorf("%w: it does not begin with %q", ErrBadBackup, backupMagic)
	}
	_, _ = sum.Write(magic) // never fails
	size := int64(len(magic))
	var frame bytes.Buffer
	for {
		frame.Reset()
		if _, err := io.CopyN(&frame, in, 4); err != nil {
			return total, fmt.Errorf("%w: it ends after %d bytes: %w", ErrBadBackup, size, err)
		}
		n := binary.BigEndian.Uint32(frame.Bytes())
		if n > backupFrame {
			return total, fmt.Errorf("%w: frame of %d bytes at %d", ErrBadBackup, n, size)
		}
		if _, err := io.CopyN(&frame, in, int64(n)); err != nil {
			return total, fmt.Errorf("%w: it ends after %d bytes: %w", ErrBadBackup, size, err)
		}
		buf := frame.Bytes()
		f, err := wire.ParseFrame(buf)
		if err != nil {
			return total, fmt.Errorf("%w: frame at %d: %w", ErrBadBackup, size, err)
		}
		if f.Kind() == wire.KindGoodbye {
			if err := wire.DecodeControl(f, &total); err != nil || total.Bytes != size || total.Checksum != sum.Sum32() {
				return total, fmt.Errorf("%w: wrong checksum", ErrBadBackup)
			}
			return total, nil
		}
		_, _ = sum.Write(buf) // never fails
		size += int64(len(buf))
		if err := visit(f); err != nil {
			return total, err
		}
	}
}
