package hub

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

var (
	// errResumed is why a connection ends whose session goes on over another one.
	errResumed = errors.New("the session goes on over another connection")
	// errHungUp refuses a connection that ended before its turn came.
	errHungUp = &ConnectionError{Op: "read", Err: io.EOF}
)

const (
	// takeoverTime bounds how long a client that connects waits for its session.
	takeoverTime = 2 * time.Second
	// relinkTime is how long it waits for the link to the node that has it.
	relinkTime = 300 * time.Millisecond
	// turnTime bounds how long the node that is asked for a session waits for its
	// turn: who asks may be who is waited for.
	turnTime = 500 * time.Millisecond
)

// sessionState is a session on its way between nodes; the frames that it has
// kept follow it.
type sessionState struct {
	ID    wire.ClientID `json:"id"`
	Key   string        `json:"key"`
	Epoch uint64        `json:"epoch"`
	Base  uint64        `json:"base"`
	Taken uint64        `json:"taken"`

	Asked   []request `json:"asked,omitempty"` // nodes of an earlier version don't tell
	Attempt uint64    `json:"attempt"`
	Found   bool      `json:"found"`
	Moved   string    `json:"moved,omitempty"` // it is no longer here but there
	To      string    `json:"to,omitempty"`    // of a question: who asks
}

// encode returns the state and the frames, readable by decodeSession.
func (st *sessionState) encode(frames []byte) []byte {
	text, err := json.Marshal(st)
	if err != nil {
		panic("hub: session state can't be encoded: " + err.Error()) // only a type without JSON form
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(len(text)))
	return append(append(b, text...), frames...)
}

// decodeSession checks the frames, and returns them as memory of their own.
func decodeSession(b []byte) (st sessionState, frames []byte, count int, err error) {
	fail := func(what string) (sessionState, []byte, int, error) {
		return sessionState{}, nil, 0, fmt.Errorf("%w: session: %s", wire.ErrMalformed, what)
	}
	if len(b) < 4 || uint64(binary.BigEndian.Uint32(b)) > uint64(len(b)-4) {
		return fail("length")
	}
	n := 4 + int(binary.BigEndian.Uint32(b))
	if err := json.Unmarshal(b[4:n], &st); err != nil {
		return fail(err.Error())
	}
	for rest := b[n:]; len(rest) > 0; count++ {
		if len(rest) < wire.HeaderSize || wire.FrameSize(rest) > len(rest) {
			return fail("a frame is longer than the rest")
		}
		size := wire.FrameSize(rest)
		if _, err := wire.ParseFrame(rest[:size]); err != nil {
			return fail(err.Error())
		}
		rest = rest[size:]
	}
	return st, append([]byte(nil), b[n:]...), count, nil
}

// reclaim looks for the session that a client comes back to, here or on the
// nodes where it may be, and takes it over. What is sent to the client meanwhile
// waits until release is called. The error is for the client to try again: its
// session is somewhere, and can't be had now.
func (h *Hub) reclaim(c *Client) (release func(), err error) {
	release = func() {}
	if c.resume == nil || h.settings.Load().ResumeWindow == 0 {
		return release, nil
	}
	ctx, cancel := context.WithTimeout(h.life, takeoverTime)
	defer cancel()
	done, err := h.turns.take(ctx, c.id)
	if err == nil && c.hasHungUp() {
		err = errHungUp
	}
	if err != nil || c.resume.Key == "" {
		return done, err
	}
	if _, here := h.sessionHere(c.id); !here {
		h.finds.fetch(c.id, true)
		defer h.finds.fetch(c.id, false)
	}
	h.holdBack(c.id)
	release = func() {
		h.releaseHeld(c.id)
		done()
	}
	moved, err := h.findHere(c)
	if c.session != nil || err != nil {
		return release, err
	}
	node, _, _ := h.remote.Locate(c.id)
	err = h.findElsewhere(ctx, c, moved, node, c.resume.Node)
	if err == nil && c.session == nil && c.hasHungUp() { // it took its time
		err = errHungUp
	}
	return release, err
}

// hasHungUp reports whether nobody is at the other end any more. A connection
// that waited for its turn must not take the session from the one that its
// client has made meanwhile.
func (c *Client) hasHungUp() bool {
	conn, ok := c.conn.(interface{ PeerClosed() bool })
	return ok && conn.PeerClosed()
}

// findHere sets c.session to the one that c comes back to, when that is here.
func (h *Hub) findHere(c *Client) (moved string, err error) {
	s, _ := h.sessionHere(c.id)
	if s == nil || s.key != c.resume.Key {
		return "", nil
	}
	if err := s.isNewest(c.resume.Attempt); err != nil {
		return "", err
	}
	h.quiesce(s)
	if moved = s.movedTo(); moved == "" {
		c.session = s
	}
	return moved, nil
}

// sessionHere returns the session that a client has here or had until just now, and
// whether it still is here.
func (h *Hub) sessionHere(id wire.ClientID) (s *session, here bool) {
	s = h.awaySession(id)
	if c, ok := h.Client(id); ok {
		s = c.session
	}
	return s, s != nil && s.movedTo() == ""
}

// isNewest returns an error for an attempt to connect that comes late.
func (s *session) isNewest(attempt uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if attempt < s.newest {
		return &wire.Error{Code: wire.CodeUnavailable, Detail: "this session goes on over a newer connection"}
	}
	return nil
}

// findElsewhere takes the session over from one of the nodes, or the one that
// they name. A node that there is no link to has lost it.
func (h *Hub) findElsewhere(ctx context.Context, c *Client, nodes ...string) error {
	asked := map[string]bool{"": true, h.remote.Self(): true}
	for len(nodes) > 0 {
		node := nodes[0]
		nodes = nodes[1:]
		if asked[node] || !h.waitForLink(ctx, node) {
			continue
		}
		if c.hasHungUp() {
			return errHungUp
		}
		asked[node] = true
		s, moved, err := h.takeSession(node, sessionState{ID: c.id, Key: c.resume.Key, Attempt: c.resume.Attempt})
		switch {
		case s != nil:
			c.session = s
			return nil
		case err != nil && h.link(node) != nil:
			return &wire.Error{Code: wire.CodeUnavailable, Detail: fmt.Sprintf("node %s may have this session and can't give it now (%v): try again", node, err)}
		case moved != "" && asked[moved]:
			return &wire.Error{Code: wire.CodeUnavailable, Detail: "this session is on its way between nodes: try again"}
		}
		nodes = append([]string{moved}, nodes...)
	}
	return nil
}

// quiesce ends the connection of a session, if it has one, and returns when
// nothing more is taken from it.
func (h *Hub) quiesce(s *session) {
	s.mu.Lock()
	last, connected := s.last, s.client != nil
	s.mu.Unlock()
	if last == nil {
		return
	}
	if connected {
		h.mu.Lock()
		h.departLocked(last, errResumed)
		h.mu.Unlock()
	}
	last.close()
	select {
	case <-last.readEnd:
	case <-h.life.Done():
	}
}

func (s *session) movedTo() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.moved
}

// takeSession returns a session that a node has and gives up, nil when it has not,
// and where it is then if that node knows. A session that is given is this node's
// alone: the answer is waited for even where the client has no time left. The other
// node does not take long, or loses the link.
func (h *Hub) takeSession(node string, want sessionState) (s *session, moved string, err error) {
	want.To = h.remote.Self()
	answer, err := h.remote.Ask(h.life, node, questionSession, want.encode(nil))
	if err != nil {
		return nil, "", err
	}
	st, frames, count, err := decodeSession(answer)
	if err != nil || !st.Found {
		return nil, st.Moved, err
	}
	return h.restored(&st, frames, count), "", nil
}

// restored is a session as another node had it.
func (h *Hub) restored(st *sessionState, frames []byte, count int) *session {
	s := &session{hub: h, id: st.ID, key: st.Key, taken: st.Taken, epoch: st.Epoch, newest: st.Attempt, base: st.Base, kept: frames, count: count}
	for _, r := range st.Asked {
		s.asked.add(r)
	}
	eachFrame(frames, func(f wire.Frame) { s.asked.note(f, f.Ref()) })
	return s
}

// giveSession hands a session over to the node that asks for it. What still comes
// for its client goes there, until that node has announced it.
func (h *Hub) giveSession(ctx context.Context, body []byte) ([]byte, error) {
	want, _, _, err := decodeSession(body)
	if err != nil {
		return nil, err
	}
	done, err := h.turns.takeSoon(ctx, want.ID)
	if err != nil {
		return nil, err
	}
	defer done()
	s, here := h.sessionHere(want.ID)
	if s == nil || s.key != want.Key {
		node, _, _ := h.remote.Locate(want.ID)
		return (&sessionState{Moved: node}).encode(nil), nil
	}
	if !here {
		return (&sessionState{Moved: s.movedTo()}).encode(nil), nil
	}
	if err := s.isNewest(want.Attempt); err != nil {
		return nil, err
	}
	h.quiesce(s)
	if err := h.sendAhead(ctx, s, want.To); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.moved != "" || h.state != stateRunning {
		return (&sessionState{Moved: s.moved}).encode(nil), nil
	}
	st := s.stateLocked()
	frames := s.leaveLocked(want.To)
	s.newest = want.Attempt
	h.waitForLocked(s, askTime) // until the other node has announced the client, or has failed to
	return st.encode(frames), nil
}

// sendAhead returns once all that the client of a quiet session has sent by way of this
// node is where the client it is for is, but for what waits here: that is sent to the
// node that the session goes to, before it. Else what the client sends from there could
// overtake what it sent from here. The error says that it takes too long; whoever asks
// again goes on waiting for the same.
func (h *Hub) sendAhead(ctx context.Context, s *session, node string) error {
	in := h.newIntake()
	defer in.flush()
	waiting := h.finds.withdraw(s.id)
	s.mu.Lock()
	last := s.last
	s.mu.Unlock()
	if s.settled == nil || s.settledFor != last {
		s.settled, s.settledFor = h.allArrived(), last
	}
	late := time.NewTimer(fenceTime)
	defer late.Stop()
	var err error
	select {
	case <-s.settled:
	case <-late.C:
		err = &wire.Error{Code: wire.CodeUnavailable, Detail: "what this client sent is still on its way"}
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	link := h.link(node)
	if err != nil && h.arrivals.over() {
		err = nil // this node stops: what its sessions keep is worth more than order
	}
	if err == nil && link == nil {
		err = noNode(node)
	}
	if err == nil {
		back := h.finds.withdraw(s.id) // what had gone on from here, and came back meanwhile, is older
		for _, w := range append(back, waiting...) {
			in.passAs(0, node, link, w.p, w.o)
		}
		return nil
	}
	if len(waiting) > 0 {
		s.settled = nil // these have yet to be sent
	}
	for _, w := range waiting {
		in.direct(w.p, w.o)
	}
	return err
}

func noNode(node string) error {
	return &wire.Error{Code: wire.CodeUnavailable, Detail: "there is no link to node " + node}
}

func (s *session) stateLocked() *sessionState {
	return &sessionState{ID: s.id, Key: s.key, Epoch: s.epoch, Base: s.base, Taken: s.taken, Attempt: s.newest, Asked: s.asked.list(), Found: true}
}

// leaveLocked makes the session one of another node and returns what it has kept.
func (s *session) leaveLocked(node string) []byte {
	frames := slices.Clone(s.kept[s.from:])
	s.shedLocked(nil)
	s.moved, s.count = node, 0
	s.notAwayLocked()
	return frames
}
