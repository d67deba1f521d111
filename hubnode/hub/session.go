package hub

import (
	"crypto/rand"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/outbox"
	"github.com/switchboardhub/switchboard/wire"
)

// keptMax bounds what one session keeps, below Settings.PendingBytes: it has to
// fit into one answer when another node takes the session over.
const keptMax = 8 << 20

// session is what of a client outlives its connection: the frames for it that
// it has not said yet to have, and how many it sent that were taken. While the
// client is away it waits in Hub.away, for Settings.ResumeWindow.
type session struct {
	hub   *Hub
	id    wire.ClientID
	key   string
	asked asked

	// taken counts the client's Publish, Send and Reply frames. It belongs to
	// the reader of the connection and, once that has ended, to who resumes.
	taken uint64

	// settled is closed once all that the client of settledFor sent has arrived; nil:
	// nobody waited for that. Both belong to who has the client's turn.
	settled    <-chan struct{}
	settledFor *Client

	mu      sync.Mutex       // guards the fields below; Hub.mu may be held, and is not taken
	client  *Client          // nil while it is away
	last    *Client          // the newest one, connected or not
	why     wire.LeaveReason // it is away; guarded by Hub.mu
	epoch   uint64
	newest  uint64  // attempt of the client to connect
	base    uint64  // frames that the client has
	kept    []byte  // those behind, as they were sent
	from    int     // where in kept they begin
	pooled  *[]byte // whose memory kept is; nil: its own
	count   int
	moved   string // the node that took the session over: what still comes here goes there
	ended   bool
	back    chan struct{} // closed when it is not away any more; nil before the first time
	account *account      // whose place it takes while it is away; guarded by Hub.mu
}

// notAwayLocked ends the wait for the client, if it waits. Hub.mu is held as well.
func (s *session) notAwayLocked() {
	if s.back != nil {
		close(s.back)
		s.back = nil
	}
	if s.account != nil {
		s.account.away--
		s.account = nil
	}
}

// push keeps a frame and queues it for the client when that is there. It is
// refused as Full when too much is kept or queued, and as Closed when the session
// has ended here.
func (s *session) push(in *intake, head, tail []byte, slab *wire.Slab) outbox.Verdict {
	size := len(head) + len(tail)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended || s.moved != "":
		return outbox.Closed
	case s.count > 0 && s.bytesLocked()+size > s.hub.settings.Load().keptBytes():
		return outbox.Full
	}
	if s.client != nil {
		if v := in.push(s.client.out, head, tail, slab); v == outbox.Full {
			return v
		} // a closed one is just being lost: the next connection gets the frame
	}
	s.keepLocked(head, tail)
	return outbox.Queued
}

// reply brings the answer to a frame of artifacts to the client, wherever its
// session is now. One that asks and never reads the answers is removed.
func (s *session) reply(in *intake, answer wire.Frame) {
	answer.SetFlags(answer.Flags()&^wire.FlagHop | wire.FlagKept)
	slow, moved := s.answer(in, answer)
	if slow != nil {
		slow.cutOff()
	}
	link := s.hub.link(moved)
	if moved == "" || link == nil {
		return
	}
	h := answer.Header()
	h.Flags = h.Flags&^wire.FlagKept | wire.FlagHop
	if link.PushControl(wire.AppendFrame(nil, h, []byte(s.id), nil, answer.Body())) == outbox.QueuedCold {
		link.Flush()
	}
}

// answer keeps a control frame and queues it for the client, which is returned
// when it is slow.
func (s *session) answer(in *intake, frame []byte) (slow *Client, moved string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.moved != "" {
		return nil, s.moved
	}
	if s.bytesLocked()+len(frame) > 2*s.hub.settings.Load().keptBytes() {
		return s.client, ""
	}
	if c := s.client; c != nil {
		switch v := c.out.PushControl(frame); {
		case v == outbox.QueuedCold && in != nil:
			in.touched = append(in.touched, c.out)
		case v == outbox.QueuedCold:
			c.out.Flush()
		case v == outbox.Full:
			return c, ""
		}
	}
	s.keepLocked(frame, nil)
	return nil, ""
}

func (s Settings) keptBytes() int { return min(s.PendingBytes, keptMax) }

func (s *session) bytesLocked() int { return len(s.kept) - s.from }

func (s *session) pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytesLocked()
}

func (s *session) keepLocked(head, tail []byte) {
	if size := len(head) + len(tail); len(s.kept)+size > cap(s.kept) {
		s.makeRoomLocked(size)
	}
	s.kept = append(append(s.kept, head...), tail...)
	s.count++
}

const (
	keptSmall = 4 << 10   // what a session may hold on to that keeps little
	keptLarge = 512 << 10 // the size of pooled memory: of sessions that are busy
)

var largeKept = sync.Pool{New: func() any { b := make([]byte, 0, keptLarge); return &b }}

// makeRoomLocked moves what is kept to the front of its memory, or to a larger one.
func (s *session) makeRoomLocked(size int) {
	live := s.kept[s.from:]
	switch need := len(live) + size; {
	case need <= cap(s.kept) && s.from >= len(live)/4:
		s.kept = append(s.kept[:0], live...)
	case s.pooled == nil && need > keptSmall && need <= keptLarge:
		s.pooled, _ = largeKept.Get().(*[]byte)
		s.kept = (*s.pooled)[:len(live)]
		copy(s.kept, live)
	default:
		s.shedLocked(append(make([]byte, 0, max(2*need, 256)), live...))
	}
	s.from = 0
}

// shedLocked makes kept the memory of what is kept, and gives back what it had.
func (s *session) shedLocked(kept []byte) {
	if s.pooled != nil {
		largeKept.Put(s.pooled)
		s.pooled = nil
	}
	s.kept, s.from = kept, 0
}

// received forgets what the client has: the first n frames of the session. It
// reports false when there were not as many.
func (s *session) received(n uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.receivedLocked(n)
}

func (s *session) receivedLocked(n uint64) bool {
	if n > s.base+uint64(s.count) {
		return false
	}
	for ; s.base < n; s.base++ {
		s.from += wire.FrameSize(s.kept[s.from:])
		s.count--
	}
	switch live := s.kept[s.from:]; {
	case cap(s.kept) <= keptSmall:
		if s.count == 0 {
			s.kept, s.from = s.kept[:0], 0
		}
	case s.count == 0:
		s.shedLocked(nil)
	case len(live) <= keptSmall/2: // the rest of a burst may stay for long
		s.shedLocked(append([]byte(nil), live...))
	}
	return true
}

// eachFrame visits the frames that b consists of.
func eachFrame(b []byte, visit func(wire.Frame)) {
	for len(b) > 0 {
		n := wire.FrameSize(b)
		visit(wire.Frame(b[:n]))
		b = b[n:]
	}
}

// beginSessionLocked makes the session that c resumes, or a new one, c's own. It
// stays locked until goOn is called.
func (h *Hub) beginSessionLocked(c *Client) {
	s := c.session
	if s != nil {
		s.mu.Lock()
		if s.ended || s.moved != "" || s.client != nil || c.resume.Received < s.base || !s.receivedLocked(c.resume.Received) {
			s.mu.Unlock()
			s = nil
		}
	}
	if waits := h.awaySession(c.id); waits != nil && waits != s {
		h.endSessionLocked(waits, wire.LeaveReplaced)
	}
	if c.resumed = s != nil; !c.resumed && c.resume != nil && c.resume.Key != "" {
		h.log.Info("session is lost", slog.String("client", c.id), slog.Bool("found", c.session != nil), slog.String("before", c.resume.Node))
	}
	if s == nil {
		if c.resume == nil || h.settings.Load().ResumeWindow == 0 {
			c.session, c.asked = nil, &asked{}
			return
		}
		s = &session{hub: h, id: c.id, key: rand.Text()}
		s.mu.Lock()
	}
	s.notAwayLocked()
	s.client, s.last, s.epoch, s.newest = c, c, c.epoch, c.resume.Attempt
	c.session, c.asked = s, &s.asked
}

// goOn queues what the session has kept, before anything that comes now.
func (s *session) goOn(c *Client) {
	eachFrame(s.kept[s.from:], func(f wire.Frame) { c.out.PushControl(f) })
	s.mu.Unlock() // it was locked by beginSessionLocked
}

// parkLocked keeps the session of a client that has lost its connection, and
// reports false when it has none or the reason ends it.
func (h *Hub) parkLocked(c *Client, reason error) bool {
	s, window := c.session, h.settings.Load().ResumeWindow
	if s == nil || h.state != stateRunning || window == 0 || !departureOf(reason).mayReturn() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client != c {
		return false
	}
	s.client, s.why = nil, leaveReasons[departureOf(reason)]
	if s.account = c.account; s.account != nil {
		s.account.away++
	}
	h.waitForLocked(s, window)
	h.flips.Add(1)
	return true
}

// waitForLocked makes a session wait for its client. The hub runs, and
// session.mu is held as well.
func (h *Hub) waitForLocked(s *session, window time.Duration) {
	back := make(chan struct{})
	s.back = back
	h.away.Store(s.id, s)
	h.awayN.Add(1)
	h.wg.Go(func() {
		defer h.awayN.Add(-1)
		timer := time.NewTimer(window)
		defer timer.Stop()
		select {
		case <-timer.C:
			h.mu.Lock()
			defer h.mu.Unlock()
			if h.awaySession(s.id) == s {
				h.endSessionLocked(s, s.why)
			}
		case <-back:
		case <-h.life.Done():
		}
	})
}

// awaySession returns the session that waits for its client, or has moved, nil
// when there is none.
func (h *Hub) awaySession(id wire.ClientID) *session {
	v, ok := h.away.Load(id)
	if !ok {
		return nil
	}
	s, _ := v.(*session)
	return s
}

// awayAfter returns, as they were, the clients whose sessions wait here and whose
// ids follow after. A session that another node gave has none.
func (h *Hub) awayAfter(after wire.ClientID) []*Client {
	var all []*Client
	h.away.Range(func(_, v any) bool {
		s, _ := v.(*session)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.id > after && s.client == nil && s.last != nil && s.moved == "" {
			all = append(all, s.last)
		}
		return true
	})
	return all
}

// endSessionLocked ends a session that waits for its client. What it has kept is
// dropped, and who waits for an answer hears of it.
func (h *Hub) endSessionLocked(s *session, why wire.LeaveReason) {
	if h.away.CompareAndDelete(s.id, s) {
		h.remote.ClientDown(s.id, s.epoch, why)
	}
	h.buryLocked(s)
}

func (h *Hub) buryLocked(s *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notAwayLocked()
	s.ended = true
	left := slices.Clone(s.kept[s.from:])
	s.shedLocked(nil)
	s.count = 0
	if len(left) > 0 && h.state < stateStopped {
		h.wg.Go(func() { h.mourn(s.id, left) })
	}
}

// mourn counts frames that nobody will get any more, and tells those who wait
// for an answer.
func (h *Hub) mourn(id wire.ClientID, frames []byte) {
	in := h.newIntake()
	eachFrame(frames, func(f wire.Frame) {
		if f.Kind() != wire.KindSend {
			return
		}
		h.metrics.dropped(dropSessionEnded, f.Count())
		if f.Flags()&wire.FlagRequest != 0 {
			in.refuseTo(string(f.From()), f.Ref(), &NoClientError{ID: id})
		}
	})
	in.flush()
}

// refuseTo tells a client, wherever it is, that what it sent is refused.
func (in *intake) refuseTo(id wire.ClientID, ref uint32, err error) {
	if in.hub.refuseHere(in, id, ref, err) {
		return
	}
	if _, link := in.hub.locate(id); link != nil {
		o := origin{ref: ref, id: id, link: link}
		o.refuse(in, err)
	}
}

// refuseHere is refuseTo for a client that has its session here, or had it until
// just now.
func (h *Hub) refuseHere(in *intake, id wire.ClientID, ref uint32, err error) bool {
	if c, ok := h.Client(id); ok {
		c.refuse(in, ref, err)
		return true
	}
	s := h.awaySession(id)
	if s != nil {
		s.reply(in, fault(ref, err))
	}
	return s != nil
}

// endSessions ends all sessions that wait for their clients.
func (h *Hub) endSessions() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.away.Range(func(_, v any) bool {
		s, _ := v.(*session)
		h.endSessionLocked(s, wire.LeaveStopped)
		return true
	})
}

// keep queues a direct frame, stamped with head, for a session; c is its client
// when that is here.
func (in *intake) keep(s *session, c *Client, head []byte, p *parcel) outbox.Verdict {
	wire.Frame(head).SetFlags(wire.Frame(head).Flags() | wire.FlagKept)
	tail := p.frame[wire.HeaderSize:]
	v := s.push(in, head, tail, p.slab)
	if v == outbox.Full && c != nil {
		switch settings := in.hub.settings.Load(); settings.SlowClient {
		case DropOldest:
			c.lose(c.out.DropOldest(len(p.frame)))
			v = s.push(in, head, tail, p.slab)
		case Disconnect:
			if c.out.Pending()+len(p.frame) > settings.PendingBytes {
				c.cutOff()
			}
		case DropNewest, Conflate:
		}
	}
	if v == outbox.Full {
		in.hub.metrics.dropped(dropSlowClient, p.frame.Count())
	}
	if queued(v) {
		in.hub.metrics.sent.Add(uint64(p.frame.Count()))
	}
	return v
}
