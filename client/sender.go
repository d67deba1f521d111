package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

const (
	maxQueued  = 4 << 20   // bytes not yet written; then publishing blocks
	maxHeld    = 64 << 20  // bytes not yet acknowledged, written or not; then publishing blocks
	batchBytes = 128 << 10 // what one write takes at most, beyond its last frame
	liveMax    = 4096      // topics known to be live; one more and all are forgotten
	spareMax   = 64        // packets kept for reuse
)

// packet is one frame that waits to be written, or for its answer.
type packet struct {
	header  wire.Header // its count is set when the frame is written
	target  string
	from    wire.ClientID
	run     wire.Run  // of a frame of artifacts
	body    []byte    // of another one
	bytes   int       // of the frame, as counted in sender.queued and sender.held
	written bool      // handed to a connection, at least in part
	sealed  bool      // was handed to an earlier connection: no artifact may join it
	bound   bool      // makes no sense on another connection
	place   uint64    // which of the session's frames it is, once it was written
	number  uint64    // of a publish, among those to its topic, once it was written; 0: none
	refused error     // for now: it waits to be sent again
	since   time.Time // that it is refused
	lost    string    // the node that may have taken it, in a session that is over; empty: none
	promise *promise  // nil: no answer is expected

	prev, next *packet // of those with a promise, oldest first
}

// promise is the answer to a packet; its fields are set before done is closed.
type promise struct {
	ref    uint32
	number uint64 // rises with each promise of a sender
	done   chan struct{}
	first  wire.Sequence
	reply  *wire.Artifact // of a request
	out    []refusal      // what of the packet was refused by itself, in its order; err is that of the others
	err    error
}

// refusal is why one artifact of a packet was refused.
type refusal struct {
	artifact int // its place in the packet
	err      error
}

// sender is the way out: frames that wait for a connection and those that wait
// for their answer. It outlives connections. At most one writer takes from it.
type sender struct {
	id       wire.ClientID
	inFlight int // the bound of artifacts in asynchronous packets
	ids      wire.IDs
	wake     chan struct{} // holds one value when there may be something to take

	mu        sync.Mutex // guards the fields below
	ended     error      // why nothing is accepted any more
	limit     int        // bytes of an artifact
	maxFrame  int        // and of a frame
	node      string     // whose connection it is, or was
	ref       uint32
	number    uint64
	queue     []*packet
	queued    int // bytes in queue and in the write under way
	held      int // bytes of packets with a promise
	flying    int // artifacts of packets with a promise
	oldest    *packet
	newest    *packet
	awaiting  map[uint32]*packet
	live      map[string]struct{} // topics whose publishes need no acknowledgement
	unproven  bool                // something without a promise was written
	places    uint64              // frames of artifacts that were written in this session
	kept      kept                // what was written of those without a promise
	adrift    bool                // disconnected, and the session may go on
	moved     bool                // this client left the node on purpose
	overdue   *time.Timer         // ends the wait for the session to go on; nil: nobody waits
	paused    bool
	numbers   numbering
	again     *time.Timer   // sends again what was refused for now; nil: there is nothing
	farewell  []byte        // the last frame, written before anything that waits
	queuedCh  chan struct{} // closed once there is room in queue again; nil while nobody waits
	heldCh    chan struct{} // likewise in what is held
	flyingCh  chan struct{} // and in what is in flight
	spare     []*packet
	settledCh chan struct{} // closed at the next answer; nil while nobody waits
	waits     int           // promises, and calls that wait for an answer of another kind
	waitsCh   chan struct{} // closed once there is one; nil while the reader does not wait for room
}

func newSender(id wire.ClientID, inFlight int) *sender {
	return &sender{
		id: id, inFlight: inFlight,
		wake:     make(chan struct{}, 1),
		limit:    wire.DefaultMaxArtifact,
		maxFrame: wire.MaxFrame(wire.DefaultMaxArtifact),
		ref:      rand.Uint32(), //nolint:gosec // to tell sessions apart, not to keep a secret
		awaiting: make(map[uint32]*packet),
		live:     make(map[string]struct{}),
		numbers:  newNumbering(),
	}
}

// newRef returns a number for a frame or subscription, never 0.
func (s *sender) newRef() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newRefLocked()
}

func (s *sender) newRefLocked() uint32 {
	for {
		s.ref++
		if _, used := s.awaiting[s.ref]; s.ref != 0 && !used {
			return s.ref
		}
	}
}

// add encodes an artifact for target and gives it an id and a time when it has
// none. It joins the newest frame that waits when that has the same route. It
// blocks while too much waits; async says that the bound on what is in flight
// holds as well. The promise is nil for a live topic.
func (s *sender) add(ctx context.Context, kind wire.Kind, target string, a *wire.Artifact, async bool) (*promise, int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.waitForRoomLocked(ctx, async); err != nil {
		return nil, 0, err
	}
	h := wire.Header{Kind: kind, Flags: wire.FlagAck}
	if kind == wire.KindPublish {
		h.Flags |= wire.FlagEach
		if _, live := s.live[target]; live {
			h.Flags &^= wire.FlagAck
		}
	}
	return s.encodeLocked(h, target, a)
}

// request encodes an artifact with a frame of its own, for an answer.
func (s *sender) request(ctx context.Context, flags wire.Flags, target string, a *wire.Artifact, within time.Duration) (*promise, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.waitForRoomLocked(ctx, false); err != nil {
		return nil, err
	}
	millis := max(1, (within + time.Millisecond - 1).Milliseconds()) // rounded up: the requester's own clock ends it first
	p, _, err := s.encodeLocked(wire.Header{Kind: wire.KindSend, Flags: flags, Sequence: wire.Sequence(millis)}, target, a)
	return p, err
}

// reply encodes the answer to a request.
func (s *sender) reply(ctx context.Context, target string, ref uint32, flags wire.Flags, a *wire.Artifact) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.waitForRoomLocked(ctx, false); err != nil {
		return err
	}
	_, _, err := s.encodeLocked(wire.Header{Kind: wire.KindReply, Flags: flags, Ref: ref}, target, a)
	return err
}

func (s *sender) encodeLocked(h wire.Header, target string, a *wire.Artifact) (*promise, int, error) {
	if a.ID.IsZero() {
		a.ID = s.ids.Next()
	}
	if a.Time.IsZero() {
		a.Time = time.Now()
	}
	p := s.joinLocked(h, target, a)
	fresh := p == nil
	if fresh {
		p = s.packetLocked()
		p.header, p.target, p.from = h, target, s.id
	}
	before := len(p.run.Body())
	if err := p.run.Append(a, s.limit); err != nil {
		if fresh {
			s.recycleLocked(p)
		}
		return nil, 0, err
	}
	size := len(p.run.Body()) - before
	if fresh {
		if h.Ref == 0 {
			p.header.Ref = s.newRefLocked()
		}
		size += wire.HeaderSize + len(p.target) + len(p.from)
		if h.Flags&(wire.FlagAck|wire.FlagRequest) != 0 {
			s.promiseLocked(p)
		}
		s.pushLocked(p)
	}
	p.bytes += size
	s.queued += size
	if p.promise != nil {
		s.held += size
		s.flying++
	}
	return p.promise, p.run.Count() - 1, nil
}

// joinLocked returns the newest frame that waits if the artifact may join it.
func (s *sender) joinLocked(h wire.Header, target string, a *wire.Artifact) *packet {
	if len(s.queue) == 0 || h.Flags&wire.FlagRequest != 0 || h.Kind == wire.KindReply {
		return nil
	}
	p := s.queue[len(s.queue)-1]
	if p.sealed || p.header.Kind != h.Kind || p.header.Flags != h.Flags || p.target != target ||
		p.run.Count() == wire.MaxCount || len(p.run.Body())+roughSize(a) > wire.RunSize {
		return nil
	}
	return p
}

// roughSize returns at least the bytes that an artifact takes in a run.
func roughSize(a *wire.Artifact) int {
	n := len(a.Payload) + len(a.ContentType) + 48
	for k, v := range a.Attributes {
		n += len(k) + len(v) + 6
	}
	return n
}

// control queues a frame that is for this connection only. With answered set it
// returns a promise, which errLinkLost settles when the connection is lost, and an
// Error with CodeFrameTooLarge at once when the node would end it.
func (s *sender) control(h wire.Header, target string, body []byte, answered bool) *promise {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.packetLocked()
	p.header, p.target, p.body, p.bound = h, target, body, true
	p.bytes = wire.HeaderSize + len(target) + len(body)
	if answered {
		if p.header.Ref == 0 {
			p.header.Ref = s.newRefLocked()
		}
		s.promiseLocked(p)
		s.held += p.bytes
	}
	given := p.promise
	switch {
	case s.ended != nil:
		s.settleLocked(p, s.ended)
		return given
	case answered && p.bytes > s.maxFrame:
		s.settleLocked(p, &Error{Code: wire.CodeFrameTooLarge, Detail: fmt.Sprintf(
			"this takes a frame of %d bytes, and the hub takes %d: raise its limits.maxArtifactSize", p.bytes, s.maxFrame)})
		return given
	}
	s.queued += p.bytes
	s.pushLocked(p)
	return given
}

func (s *sender) packetLocked() *packet {
	if n := len(s.spare); n > 0 {
		p := s.spare[n-1]
		s.spare = s.spare[:n-1]
		return p
	}
	return &packet{}
}

// recycleLocked forgets a packet that nobody refers to any more.
func (s *sender) recycleLocked(p *packet) {
	run := p.run
	*p = packet{}
	if len(s.spare) < spareMax && cap(run.Body()) <= 2*wire.RunSize {
		run.Reset()
		p.run = run
		s.spare = append(s.spare, p)
	}
}

func (s *sender) promiseLocked(p *packet) {
	s.number++
	p.promise = &promise{ref: p.header.Ref, number: s.number, done: make(chan struct{})}
	s.awaiting[p.header.Ref] = p
	p.prev = s.newest
	if s.newest != nil {
		s.newest.next = p
	} else {
		s.oldest = p
	}
	s.newest = p
	s.expectLocked(1)
}

// expect takes note that so many more calls wait for an answer without a promise.
func (s *sender) expect(calls int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expectLocked(calls)
}

func (s *sender) expectLocked(n int) {
	if s.waits += n; s.waits > 0 && s.waitsCh != nil {
		close(s.waitsCh)
		s.waitsCh = nil
	}
}

// asked returns nil while somebody waits for an answer of the node, else a channel
// that is closed once somebody does.
func (s *sender) asked() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waits > 0 {
		return nil
	}
	if s.waitsCh == nil {
		s.waitsCh = make(chan struct{})
	}
	return s.waitsCh
}

func (s *sender) pushLocked(p *packet) {
	s.queue = append(s.queue, p)
	if len(s.queue) == 1 {
		s.wakeWriter()
	}
}

func (s *sender) wakeWriter() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// waitForRoomLocked releases the lock while it waits.
func (s *sender) waitForRoomLocked(ctx context.Context, async bool) error {
	for s.ended == nil {
		var full *chan struct{}
		switch {
		case s.queued >= maxQueued:
			full = &s.queuedCh
		case s.held >= maxHeld:
			full = &s.heldCh
		case async && s.flying >= s.inFlight:
			full = &s.flyingCh
		default:
			return nil
		}
		if *full == nil {
			*full = make(chan struct{})
		}
		room := *full
		s.mu.Unlock()
		select {
		case <-room:
			s.mu.Lock()
		case <-ctx.Done():
			s.mu.Lock()
			return ctx.Err()
		}
	}
	return s.ended
}

// freeLocked wakes those who wait for room once there is enough of what they wait for
// that a few artifacts fit: woken for each one, they would send frames of one.
func (s *sender) freeLocked() {
	if s.queued <= maxQueued/4*3 {
		wakeAll(&s.queuedCh)
	}
	if s.held <= maxHeld/4*3 {
		wakeAll(&s.heldCh)
	}
	if s.flying <= s.inFlight-max(1, s.inFlight/4) {
		wakeAll(&s.flyingCh)
	}
}

// wakeAll closes a channel that somebody waits for, if somebody does.
func wakeAll(c *chan struct{}) {
	if *c != nil {
		close(*c)
		*c = nil
	}
}

// take returns the frames that wait, up to about batchBytes, valid until wrote is
// called. It blocks until there are some, and reports false when stop is closed. last
// says that the connection is to be closed after this write.
func (s *sender) take(stop <-chan struct{}) (frames []byte, last, ok bool) {
	for {
		s.mu.Lock()
		switch {
		case s.farewell != nil:
			frames, s.farewell = s.farewell, nil
			s.mu.Unlock()
			return frames, true, true
		case len(s.queue) > 0 && !s.paused:
			if frames = s.fillLocked(); len(frames) > 0 {
				s.mu.Unlock()
				return frames, false, true
			}
		}
		s.mu.Unlock()
		select {
		case <-s.wake:
		case <-stop:
			return nil, false, false
		}
	}
}

// fillLocked returns nothing while the node has to say first what it has.
func (s *sender) fillLocked() []byte {
	k := &s.kept
	var c *chunk
	from := 0
	switch {
	case !k.full():
		c = k.chunk(s.queue[0].bytes, s.queued, s.places)
		from = len(c.b)
		s.fillChunkLocked(c, from+batchBytes)
	case k.ref != 0:
		s.waitForProofLocked()
		return nil
	default:
		c = k.chunk(0, 0, s.places)
		from = len(c.b)
	}
	if k.unasked += len(c.b) - from; k.due() {
		k.ask(c, s.newRefLocked(), s.places)
		s.queued += wire.HeaderSize
	}
	k.writing = true
	return c.b[from:]
}

// fillChunkLocked appends the frames that wait to c until that holds about so many bytes.
func (s *sender) fillChunkLocked(c *chunk, enough int) {
	n := 0
	for _, p := range s.queue {
		if len(c.b) >= enough || p.bytes > c.room() {
			break
		}
		n++
		body := p.body
		if count := p.run.Count(); count > 0 {
			p.header.Count, body = uint16(count), p.run.Body()
		}
		s.numbers.give(p)
		c.b = wire.AppendFrame(c.b, p.header, p.target, p.from, body)
		p.written = true
		if !p.bound {
			s.places++
			p.place = s.places
		}
		if p.promise == nil {
			if !p.bound {
				s.unproven = true
				s.kept.keep(c, p.place)
			}
			s.recycleLocked(p)
		}
	}
	rest := copy(s.queue, s.queue[n:])
	clear(s.queue[rest:])
	s.queue = s.queue[:rest]
}

// wrote takes note that so many bytes of what was taken are written.
func (s *sender) wrote(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queued = max(0, s.queued-n) // the farewell was never counted
	s.kept.writing = false
	s.kept.tidy(len(s.queue) == 0)
	s.freeLocked()
}

// settle answers the packet of that ref. It reports false when none waits.
func (s *sender) settle(ref uint32, seq wire.Sequence, flags wire.Flags, reply *wire.Artifact, err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.awaiting[ref]
	if p == nil || !p.written {
		return false
	}
	isRequest := p.header.Flags&wire.FlagRequest != 0
	if reply != nil && (!isRequest || reply.From != p.target) {
		return false // nobody asked this one: any client may send an answer with any number
	}
	if isRequest && reply == nil && err == nil {
		return true // some node may acknowledge a request; its answer is what counts
	}
	if coded, ok := errors.AsType[*Error](err); ok && coded.Code == wire.CodeUnknownFate && p.lost != "" {
		err = &ConnectionLostError{Target: p.target, Node: p.lost}
	}
	if err != nil && p.number != 0 && passing(err) {
		s.putOffLocked(p, err)
		return true
	}
	if err == nil && flags&wire.FlagLive != 0 && p.header.Kind == wire.KindPublish {
		if len(s.live) >= liveMax {
			clear(s.live)
		}
		s.live[p.target] = struct{}{}
	}
	p.promise.first, p.promise.reply = seq, reply
	s.settleLocked(p, err)
	return true
}

// refuseSome takes note that some artifacts of the packet of that ref are refused; the
// answer to the others comes later. It reports false when nobody waits for it.
func (s *sender) refuseSome(ref uint32, artifacts []int, err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.awaiting[ref]
	if p == nil || !p.written || p.header.Kind != wire.KindPublish {
		return false
	}
	for _, artifact := range artifacts {
		if i, told := p.promise.place(artifact); !told { // else it was sent again
			p.promise.out = slices.Insert(p.promise.out, i, refusal{artifact, err})
		}
	}
	return true
}

// place returns how many artifacts before this one were refused by themselves, and
// whether it was.
func (p *promise) place(artifact int) (before int, out bool) {
	return slices.BinarySearchFunc(p.out, artifact, func(r refusal, artifact int) int { return cmp.Compare(r.artifact, artifact) })
}

// settleLocked ends a packet that is in no queue; one without a promise is
// only forgotten.
func (s *sender) settleLocked(p *packet, err error) {
	if p.promise == nil {
		s.recycleLocked(p)
		return
	}
	s.numbers.settled(p)
	p.promise.err = err
	close(p.promise.done)
	delete(s.awaiting, p.header.Ref)
	if p.prev != nil {
		p.prev.next = p.next
	} else {
		s.oldest = p.next
	}
	if p.next != nil {
		p.next.prev = p.prev
	} else {
		s.newest = p.prev
	}
	s.waits--
	s.held -= p.bytes
	s.flying -= p.run.Count()
	s.recycleLocked(p)
	s.freeLocked()
	if s.settledCh != nil {
		close(s.settledCh)
		s.settledCh = nil
	}
}

// forget gives up on a promise. What was not written and shares its frame with
// nobody is not sent any more. A late answer is ignored. It returns err, with why
// the hub refused it when it did.
func (s *sender) forget(given *promise, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.awaiting[given.ref]
	if p == nil || p.promise != given {
		return err
	}
	if p.refused != nil {
		err = errors.Join(err, p.refused)
	}
	switch {
	case !p.written && p.run.Count() == 1:
		for i, q := range s.queue {
			if q == p {
				s.queue = append(s.queue[:i], s.queue[i+1:]...)
				break
			}
		}
		s.queued -= p.bytes
		s.settleLocked(p, err)
	case p.refused != nil && p.run.Count() == 1, p.header.Flags&wire.FlagRequest != 0:
		s.settleLocked(p, err)
	}
	return err
}

// forgetLive makes the next publish to each topic ask for an acknowledgement.
func (s *sender) forgetLive() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.live)
}

// connected starts over on a connection: first goes first, then what waits.
func (s *sender) connected(w *wire.Welcome, first []*packet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.landLocked(w)
	s.node, s.limit, s.maxFrame, s.paused, s.farewell = w.Node, w.MaxArtifact, w.MaxFrame, false, nil
	s.kept.on = w.ResumeWindow > 0
	queue := first
	for _, p := range first {
		p.bytes = wire.HeaderSize + len(p.target) + len(p.body)
		s.queued += p.bytes
	}
	for _, p := range s.queue {
		if p.bytes > w.MaxFrame {
			s.queued -= p.bytes
			s.settleLocked(p, &ArtifactTooLargeError{Size: p.bytes, Limit: w.MaxArtifact})
			continue
		}
		queue = append(queue, p)
	}
	s.queue = queue
	s.wakeWriter()
}

// disconnected takes note that the connection is lost. When the session may go
// on within window, what was written waits for it; else it is lost with it.
func (s *sender) disconnected(moved bool, window time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := s.oldest; p != nil; {
		next := p.next
		if p.bound && p.written {
			s.settleLocked(p, errLinkLost)
		}
		p = next
	}
	queue := s.queue[:0]
	for _, p := range s.queue {
		if p.bound {
			s.settleLocked(p, errLinkLost)
			continue
		}
		queue = append(queue, p)
	}
	clear(s.queue[len(queue):])
	s.queue, s.moved = queue, moved
	clear(s.live)
	s.unplugLocked()
	s.unproven = window > 0 && s.kept.some()
	s.countQueueLocked()
	if window <= 0 {
		s.lostLocked()
		return
	}
	s.adrift = true
	s.overdue = time.AfterFunc(window, s.giveUp)
}

// landLocked decides what becomes of what the connection before left behind.
func (s *sender) landLocked(w *wire.Welcome) {
	if s.overdue != nil {
		s.overdue.Stop()
		s.overdue = nil
	}
	switch {
	case s.adrift && w.Resumed:
		s.goOnLocked(w.Received)
	case s.adrift:
		s.lostLocked()
		fallthrough
	default:
		s.dropKeptLocked(0)
	}
	s.adrift, s.unproven = false, false
}

// goOnLocked queues what the node has not taken of the session's frames once more, in
// their order and before what waits.
func (s *sender) goOnLocked(received uint64) {
	queue := append(s.kept.behind(received), s.writtenLocked(func(p *packet) bool { return p.place > received })...)
	slices.SortFunc(queue, func(a, b *packet) int { return cmp.Compare(a.place, b.place) })
	s.againLocked(queue)
	s.dropKeptLocked(received)
}

// lostLocked sorts what a session leaves behind: publishes without an
// acknowledgement go again, in order and before what waits, and the node refuses
// those to topics without history; sends and requests that were written fail. When
// the client moved on purpose, answers to its requests may still find it.
func (s *sender) lostLocked() {
	s.failWrittenLocked()
	again := s.writtenLocked(func(p *packet) bool { return p.header.Kind == wire.KindPublish })
	for _, p := range again {
		if p.refused == nil {
			p.header.Flags |= wire.FlagAgain
			p.lost = s.node
		}
	}
	s.againLocked(again)
	s.dropKeptLocked(0)
	for p := s.oldest; p != nil; p = p.next {
		p.place = 0 // in no session that will be
	}
}

// giveUp fails what can't be sent again, when the session was waited for long
// enough.
func (s *sender) giveUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.adrift {
		s.failWrittenLocked()
	}
}

func (s *sender) failWrittenLocked() {
	for p := s.oldest; p != nil; {
		next := p.next
		follows := s.moved && p.header.Flags&wire.FlagRequest != 0
		if p.written && p.header.Kind != wire.KindPublish && !follows {
			s.settleLocked(p, &ConnectionLostError{Target: p.target, Node: s.node})
		}
		p = next
	}
}

// writtenLocked returns the written packets that pick names, in the order in which they
// were queued.
func (s *sender) writtenLocked(pick func(*packet) bool) []*packet {
	var written []*packet
	for p := s.oldest; p != nil; p = p.next {
		if p.written && pick(p) {
			written = append(written, p)
		}
	}
	return written
}

// againLocked queues packets that were written once more, before what waits.
func (s *sender) againLocked(written []*packet) {
	for _, p := range written {
		p.written, p.sealed, p.refused = false, true, nil
	}
	s.queue = append(written, s.queue...)
	s.countQueueLocked()
}

func (s *sender) countQueueLocked() {
	s.queued = 0
	for _, p := range s.queue {
		s.queued += p.bytes
	}
	s.freeLocked()
}

// end settles everything with err and accepts nothing more.
func (s *sender) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended != nil {
		return
	}
	s.ended = err
	if s.overdue != nil {
		s.overdue.Stop()
	}
	if s.again != nil {
		s.again.Stop()
	}
	for s.oldest != nil {
		s.settleLocked(s.oldest, err)
	}
	s.queue, s.queued = nil, 0
	s.waitedLocked()
	wakeAll(&s.queuedCh)
	wakeAll(&s.heldCh)
	wakeAll(&s.flyingCh)
}

// pause keeps the writer from taking more, but for a farewell.
func (s *sender) pause() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused = true
}

// sayGoodbye lets the writer write one last frame and close the connection.
func (s *sender) sayGoodbye(frame []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.farewell = frame
	s.wakeWriter()
}

// artifactLimit returns how many bytes an artifact may have.
func (s *sender) artifactLimit() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.limit
}

// unsettled returns how many artifacts wait for their acknowledgement.
func (s *sender) unsettled() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flying
}

// last returns the number of the newest promise given.
func (s *sender) last() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.number
}

// needsProof reports whether something without a promise was written, or waits,
// of which only a Pong tells that the node has it.
func (s *sender) needsProof() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unproven || s.queued > 0
}

// waitSettled waits until every publish and send up to that number, and with
// onlyWritten set only those that were handed to the connection, is answered.
// Requests are not waited for. It returns errStopped when stop is closed first.
func (s *sender) waitSettled(stop <-chan struct{}, upTo uint64, onlyWritten bool) error {
	for {
		s.mu.Lock()
		waiting := false
		for p := s.oldest; p != nil && p.promise.number <= upTo; p = p.next {
			if p.header.Flags&wire.FlagAck != 0 && (p.written || !onlyWritten) {
				waiting = true
				break
			}
		}
		if !waiting || s.ended != nil {
			err := s.ended
			s.mu.Unlock()
			return err
		}
		if s.settledCh == nil {
			s.settledCh = make(chan struct{})
		}
		settled := s.settledCh
		s.mu.Unlock()
		select {
		case <-settled:
		case <-stop:
			return errStopped
		}
	}
}
