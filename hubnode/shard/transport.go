package shard

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/switchboardhub/switchboard/wire"
)

const (
	callTime     = 2 * time.Second  // for an answer; the caller tries again
	snapshotTime = 10 * time.Minute // for taking a snapshot over, artifacts included
	// What may be on its way to one replica. Together with what the links hold
	// it is far below what they may hold.
	windowBytes = 8 << 20
	windowCalls = 64
	// absentWait is how long a replica that is not there yet is left alone.
	absentWait = 20 * time.Millisecond
	// noReplica is what a node says that has no such replica.
	noReplica = "there is no such replica here"
)

var (
	errNoLink  = errors.New("there is no link to the replica's node")
	errLate    = errors.New("the replica did not answer in time")
	errStopped = errors.New("the replica has stopped")
)

// Carrier brings frames to other nodes, in order.
type Carrier interface {
	// Carry queues a frame for a node, given in parts that must not change
	// afterwards. It reports false when there is no link, or no room.
	Carry(node string, parts ...[]byte) bool
}

// transport is Raft's way to the other replicas of one shard.
type transport struct {
	shard   int
	id      raft.ServerID
	node    string
	carrier Carrier
	bundles *bundles
	hurried int // how many want its calls not to wait; guarded by the mu of bundles

	consumer chan raft.RPC
	stop     chan struct{}
	running  sync.WaitGroup
	source   atomic.Pointer[raft.ServerID] // the replica that sends a snapshot

	committed atomic.Uint64 // the highest entry that a leader said is committed

	mu        sync.Mutex // guards the fields below
	ref       uint32
	calls     map[uint32]*call
	beats     map[string]time.Time // when the next heartbeat to a node is due
	inbox     []inCall
	arrived   chan struct{} // holds one when the inbox has something
	heartbeat func(raft.RPC)
	reach     func(raft.ServerID) error // waits for a link to a replica's node while this one leads; nil: it can't be waited for
	overlap   func(raft.RPC) bool       // looks at a call before Raft does, and reports whether it has answered it; nil: none is looked at
	stopped   bool
}

// call waits for its answer.
type call struct {
	node string
	by   *pipeline                    // nil for others
	done func(body []byte, err error) // called once, on whichever goroutine
}

// inCall is a call from another replica.
type inCall struct {
	back answers
	from raft.ServerID
	ref  uint32
	call byte
	rpc  raft.RPC
}

func newTransport(shard int, id raft.ServerID, node string, bundles *bundles) *transport {
	t := &transport{
		shard: shard, id: id, node: node, carrier: bundles.carrier, bundles: bundles, beats: make(map[string]time.Time),
		consumer: make(chan raft.RPC), stop: make(chan struct{}),
		calls: make(map[uint32]*call), arrived: make(chan struct{}, 1),
	}
	answers := make(chan pendingAnswer, 4096)
	t.running.Go(func() { t.feed(answers) })
	t.running.Go(func() { t.answer(answers) })
	return t
}

// serves sets what waits for a link to a replica's node, and what looks at the calls from
// there, before there are any.
func (t *transport) serves(reach func(raft.ServerID) error, overlap func(raft.RPC) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reach, t.overlap = reach, overlap
}

// Close ends the transport: calls under way fail.
func (t *transport) Close() error {
	t.cut()
	t.fail("", errStopped)
	t.running.Wait()
	return nil
}

// cut ends what others hear of this replica, and waits for nobody: Raft may call it.
func (t *transport) cut() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.stopped {
		t.stopped = true
		close(t.stop)
	}
}

// fail ends the calls to a node, or all calls for an empty name.
func (t *transport) fail(node string, err error) {
	t.mu.Lock()
	var failed []*call
	for ref, c := range t.calls {
		if node == "" || c.node == node {
			failed = append(failed, c)
			delete(t.calls, ref)
		}
	}
	t.mu.Unlock()
	for _, c := range failed {
		c.done(nil, err)
	}
}

// send makes a call, whose body is given in parts; done hears what comes of it. A call that
// has a time when it is due may wait until then, for others to the same node.
func (t *transport) send(id raft.ServerID, node string, body [][]byte, by *pipeline, due time.Time, done func([]byte, error)) uint32 {
	t.mu.Lock()
	if t.stopped {
		t.mu.Unlock()
		done(nil, errStopped)
		return 0
	}
	t.ref++
	ref := t.ref
	t.calls[ref] = &call{node: node, by: by, done: done}
	t.mu.Unlock()
	parts := append([][]byte{head(wire.KindRaft, t.shard, ref, id, t.id, sizeOf(body))}, body...)
	if !due.IsZero() {
		c := waitingCall{by: t, ref: ref, frame: slices.Concat(parts...)}
		if by == nil {
			c.sent = func() { t.beaten(node) }
		}
		t.bundles.send(node, c, due)
	} else if !t.carrier.Carry(node, parts...) {
		t.answered(ref, nil, errNoLink)
	}
	return ref
}

func sizeOf(parts [][]byte) int {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	return n
}

// head returns all of a frame but its body.
func head(kind wire.Kind, shard int, ref uint32, to, from raft.ServerID, size int) []byte {
	h := wire.Header{Kind: kind, Sequence: wire.Sequence(shard), Ref: ref}
	f := wire.AppendFrame(nil, h, string(to), string(from), nil)
	return wire.Frame(f).Extended(size)
}

// answered settles a call.
func (t *transport) answered(ref uint32, body []byte, err error) {
	t.mu.Lock()
	c := t.calls[ref]
	delete(t.calls, ref)
	t.mu.Unlock()
	if c != nil {
		c.done(body, err)
	}
}

// forget drops the calls of a pipeline that has ended.
func (t *transport) forget(p *pipeline) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for ref, c := range t.calls {
		if c.by == p {
			delete(t.calls, ref)
		}
	}
}

// ask makes a call, which may wait until it is due, and waits for its answer.
func (t *transport) ask(id raft.ServerID, body [][]byte, due time.Time, within time.Duration, into any) error {
	type outcome struct {
		body []byte
		err  error
	}
	result := make(chan outcome, 1)
	ref := t.send(id, nodeOf(id), body, nil, due, func(b []byte, err error) { result <- outcome{b, err} })
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case got := <-result:
		if got.err != nil {
			return got.err
		}
		return decodeAnswer(got.body, into)
	case <-timer.C:
		t.answered(ref, nil, errLate)
		return errLate
	}
}

func (t *transport) askRare(call byte, id raft.ServerID, args any, data []byte, within time.Duration, into any) error {
	body, err := encodeRare(call, args, data)
	if err != nil {
		return err
	}
	return t.ask(id, [][]byte{body}, time.Time{}, within, into)
}

// take handles a call from another node, which hears the answer by back. The frame is valid until take returns, but for
// what its slab, which may be nil, lets be kept.
func (t *transport) take(f wire.Frame, slab *wire.Slab, back answers) {
	body := slab.Keep(f.Body())
	rpc, err := decodeCall(body)
	in := inCall{back: back, from: raft.ServerID(f.From()), ref: f.Ref(), rpc: rpc}
	if err != nil {
		t.reply(in, raft.RPCResponse{Error: err})
		return
	}
	in.call = body[0]
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return
	}
	a, appends := rpc.Command.(*raft.AppendEntriesRequest)
	if appends && a.LeaderCommitIndex > t.committed.Load() {
		t.committed.Store(a.LeaderCommitIndex)
	}
	if appends && isHeartbeat(a) && t.heartbeat != nil {
		beat := t.heartbeat
		t.running.Go(func() { // it may wait for Raft's state to be written
			answer := make(chan raft.RPCResponse, 1)
			in.rpc.RespChan = answer
			beat(in.rpc)
			select {
			case r := <-answer:
				t.reply(in, r)
			case <-t.stop:
			}
		})
		return
	}
	t.inbox = append(t.inbox, in)
	select {
	case t.arrived <- struct{}{}:
	default:
	}
}

// refuse answers a call to a replica that is not here.
func refuse(f wire.Frame, back answers) {
	body := append([]byte{callFailed}, noReplica...)
	back.say(head(wire.KindRafted, int(f.Sequence()), f.Ref(), raft.ServerID(f.From()), raft.ServerID(f.Target()), len(body)), body)
}

// pendingAnswer is a call that Raft has, and what will say its answer.
type pendingAnswer struct {
	in     inCall
	answer <-chan raft.RPCResponse
}

// feed hands calls to Raft in the order they came.
func (t *transport) feed(answers chan<- pendingAnswer) {
	defer close(answers)
	for {
		select {
		case <-t.arrived:
		case <-t.stop:
			return
		}
		t.mu.Lock()
		inbox, overlap := t.inbox, t.overlap
		t.inbox = nil
		t.mu.Unlock()
		for _, in := range inbox {
			if in.call == callSnapshot {
				t.source.Store(&in.from)
			}
			answer := make(chan raft.RPCResponse, 1)
			in.rpc.RespChan = answer
			if overlap == nil || !overlap(in.rpc) {
				select {
				case t.consumer <- in.rpc:
				case <-t.stop:
					return
				}
			}
			select {
			case answers <- pendingAnswer{in, answer}:
			case <-t.stop:
				return
			}
		}
	}
}

// answer sends Raft's answers in order.
func (t *transport) answer(answers <-chan pendingAnswer) {
	for p := range answers {
		select {
		case r := <-p.answer:
			t.reply(p.in, r)
		case <-t.stop:
			return
		}
	}
}

func (t *transport) reply(in inCall, r raft.RPCResponse) {
	select {
	case <-t.stop: // see cut
		return
	default:
	}
	body := encodeAnswer(in.call, r)
	in.back.say(head(wire.KindRafted, t.shard, in.ref, in.from, t.id, len(body)), body)
}

// stand makes this replica's own Raft stand for leader at once, as if the leader had
// told it to.
func (t *transport) stand() {
	now := &raft.TimeoutNowRequest{RPCHeader: t.header()}
	select {
	case t.consumer <- raft.RPC{Command: now, RespChan: make(chan raft.RPCResponse, 1)}:
	case <-t.stop:
	}
}

// header is that of a call which Raft does not make itself.
func (t *transport) header() raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(t.id), Addr: t.EncodePeer(t.id, t.LocalAddr())}
}

// Consumer implements raft.Transport.
func (t *transport) Consumer() <-chan raft.RPC { return t.consumer }

// LocalAddr implements raft.Transport.
func (t *transport) LocalAddr() raft.ServerAddress { return server(t.id).Address }

// EncodePeer implements raft.Transport.
func (t *transport) EncodePeer(_ raft.ServerID, addr raft.ServerAddress) []byte { return []byte(addr) }

// DecodePeer implements raft.Transport.
func (t *transport) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

// SetHeartbeatHandler implements raft.Transport.
func (t *transport) SetHeartbeatHandler(cb func(raft.RPC)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.heartbeat = cb
}

// AppendEntries implements raft.Transport. While there is no link to the other
// replica's node, or no replica yet on a node that has just started, it waits: after
// each failure Raft waits itself, up to ten seconds, whatever happens meanwhile.
func (t *transport) AppendEntries(id raft.ServerID, _ raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if isHeartbeat(args) {
		return t.beat(id, args, resp)
	}
	var err error
	for range callTime / absentWait {
		if err = t.ask(id, encodeAppend(args), time.Time{}, callTime, resp); !absent(err) {
			return err
		}
		args.Entries = nil // who comes back is asked first how far it is; until then nothing is held for it
		if err := t.await(id); err != nil {
			return err
		}
		select {
		case <-time.After(absentWait):
		case <-t.stop:
			return errStopped
		}
	}
	return err
}

// beat sends a heartbeat. It may wait for others until as much time has passed since the
// one before as Raft lets pass at most, answered at once.
func (t *transport) beat(id raft.ServerID, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	node := nodeOf(id)
	t.mu.Lock()
	due := t.beats[node]
	t.mu.Unlock()
	if due.IsZero() {
		due = time.Now()
	}
	err := t.ask(id, encodeAppend(args), due, callTime, resp)
	if err != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.beats, node) // the next one is due
	}
	return err
}

// beaten notes that a heartbeat to a node is sent.
func (t *transport) beaten(node string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.beats[node] = time.Now().Add(t.bundles.pause)
}

// absent reports whether a call failed because the other replica is not there now.
func absent(err error) bool {
	refused, ok := errors.AsType[*refusedError](err)
	return errors.Is(err, errNoLink) || ok && refused.text == noReplica
}

// await waits until there is a link to a replica's node.
func (t *transport) await(id raft.ServerID) error {
	t.mu.Lock()
	reach := t.reach
	t.mu.Unlock()
	if reach == nil {
		return errNoLink
	}
	return reach(id)
}

// RequestVote implements raft.Transport.
func (t *transport) RequestVote(id raft.ServerID, _ raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return t.askRare(callVote, id, args, nil, callTime, resp)
}

// RequestPreVote implements raft.WithPreVote.
func (t *transport) RequestPreVote(id raft.ServerID, _ raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return t.askRare(callPreVote, id, args, nil, callTime, resp)
}

// TimeoutNow implements raft.Transport.
func (t *transport) TimeoutNow(id raft.ServerID, _ raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return t.askRare(callTimeout, id, args, nil, callTime, resp)
}

// InstallSnapshot implements raft.Transport. It waits for a link as AppendEntries
// does. What it sends is small: the replica fetches the artifacts by itself before it answers.
func (t *transport) InstallSnapshot(id raft.ServerID, _ raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	if err := t.await(id); err != nil {
		return err
	}
	state, err := io.ReadAll(data)
	if err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	return t.askRare(callSnapshot, id, args, state, snapshotTime, resp)
}

// AppendEntriesPipeline implements raft.Transport.
func (t *transport) AppendEntriesPipeline(id raft.ServerID, _ raft.ServerAddress) (raft.AppendPipeline, error) {
	p := &pipeline{t: t, id: id, node: nodeOf(id), done: make(chan raft.AppendFuture, 2*windowCalls), room: make(chan struct{}, 1), closed: make(chan struct{})}
	return p, nil
}

// pipeline sends entries without waiting for the answers to those before.
type pipeline struct {
	t      *transport
	id     raft.ServerID
	node   string
	done   chan raft.AppendFuture
	room   chan struct{} // holds one when there may be room again
	closed chan struct{}
	shut   sync.Once

	bytes, calls atomic.Int64 // on their way
	broken       atomic.Bool  // a call has failed: Raft reads no further answer, and there may be no further call
}

// AppendEntries implements raft.AppendPipeline. It blocks while as much is on
// its way as may be.
func (p *pipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	for p.bytes.Load() > windowBytes || p.calls.Load() >= windowCalls {
		select {
		case <-p.room:
		case <-p.closed:
			return nil, raft.ErrPipelineShutdown
		case <-time.After(snapshotTime):
			return nil, errLate
		}
	}
	if p.broken.Load() {
		return nil, raft.ErrPipelineShutdown
	}
	f := &appendFuture{start: time.Now(), request: args, response: resp, settled: make(chan struct{})}
	body := encodeAppend(args)
	size := int64(sizeOf(body))
	p.bytes.Add(size)
	var due time.Time
	if before := p.calls.Add(1) - 1; before == 0 && len(args.Entries) == 0 { // at rest: it only tells what is committed
		due = time.Now().Add(p.t.bundles.pause)
	}
	p.t.send(p.id, p.node, body, p, due, func(answer []byte, err error) {
		if err == nil {
			err = decodeAnswer(answer, resp)
		}
		if err != nil || !resp.Success {
			p.broken.Store(true)
		}
		f.err = err
		close(f.settled)
		p.bytes.Add(-size)
		select {
		case p.done <- f:
		case <-p.closed:
		}
		p.calls.Add(-1)
		select {
		case p.room <- struct{}{}:
		default:
		}
	})
	return f, nil
}

// Consumer implements raft.AppendPipeline.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.done }

// Close implements raft.AppendPipeline.
func (p *pipeline) Close() error {
	p.shut.Do(func() {
		close(p.closed)
		p.t.forget(p)
	})
	return nil
}

// appendFuture is the coming answer to a call of a pipeline.
type appendFuture struct {
	start    time.Time
	request  *raft.AppendEntriesRequest
	response *raft.AppendEntriesResponse
	settled  chan struct{}
	err      error // once settled
}

// Error implements raft.Future.
func (f *appendFuture) Error() error {
	<-f.settled
	return f.err
}

// Start implements raft.AppendFuture.
func (f *appendFuture) Start() time.Time { return f.start }

// Request implements raft.AppendFuture.
func (f *appendFuture) Request() *raft.AppendEntriesRequest { return f.request }

// Response implements raft.AppendFuture.
func (f *appendFuture) Response() *raft.AppendEntriesResponse { return f.response }
