package hub

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
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
)

// sessionState is a session on its way between nodes; the frames that it has
// kept follow it.
type sessionState struct {
	ID    wire.ClientID `json:"id"`
	Key   string        `json:"key"`
	Epoch uint64        `json:"epoch"`
	Base  uint64        `json:"base"`
	Taken uint64        `json:"taken"`

	Attempt uint64 `json:"attempt"`
	Found   bool   `json:"found"`
	Moved   string `json:"moved,omitempty"` // it is no longer here but there
	To      string `json:"to,omitempty"`    // of a question: who asks
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
		if len(rest) < wire.HeaderSize || frameSize(rest) > len(rest) {
			return fail("a frame is longer than the rest")
		}
		size := frameSize(rest)
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
	h.finds.hold(c.id)
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
	s := h.awaySession(c.id)
	if older, ok := h.Client(c.id); ok {
		s = older.session
	}
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
		moved, err := h.askSession(ctx, node, c)
		switch {
		case c.session != nil:
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

// askSession sets c.session to the one that c comes back to, when a node has it
// and gives it up.
func (h *Hub) askSession(ctx context.Context, node string, c *Client) (moved string, err error) {
	want := sessionState{ID: c.id, Key: c.resume.Key, Attempt: c.resume.Attempt, To: h.remote.Self()}
	answer, err := h.remote.Ask(ctx, node, questionSession, want.encode(nil))
	if err != nil {
		return "", err
	}
	st, frames, count, err := decodeSession(answer)
	if err != nil || !st.Found {
		return st.Moved, err
	}
	c.session = h.restored(&st, frames, count)
	return "", nil
}

// restored is a session as another node had it.
func (h *Hub) restored(st *sessionState, frames []byte, count int) *session {
	return &session{hub: h, id: st.ID, key: st.Key, taken: st.Taken, epoch: st.Epoch, newest: st.Attempt, base: st.Base, kept: frames, count: count}
}

// giveSession hands a session over to the node that asks for it. What still comes
// for its client goes there, until that node has announced it.
func (h *Hub) giveSession(ctx context.Context, body []byte) ([]byte, error) {
	want, _, _, err := decodeSession(body)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, takeoverTime/4) // who asks may be who is waited for
	defer cancel()
	done, err := h.turns.take(ctx, want.ID)
	if err != nil {
		return nil, err
	}
	defer done()
	s := h.awaySession(want.ID)
	if c, ok := h.Client(want.ID); ok {
		s = c.session
	}
	if s == nil || s.key != want.Key {
		node, _, _ := h.remote.Locate(want.ID)
		return (&sessionState{Moved: node}).encode(nil), nil
	}
	if err := s.isNewest(want.Attempt); err != nil {
		return nil, err
	}
	h.quiesce(s)
	h.allPassed(ctx) // or what the client sends from there could overtake what it sent from here
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

func (s *session) stateLocked() *sessionState {
	return &sessionState{ID: s.id, Key: s.key, Epoch: s.epoch, Base: s.base, Taken: s.taken, Attempt: s.newest, Found: true}
}

// leaveLocked makes the session one of another node and returns what it has kept.
func (s *session) leaveLocked(node string) []byte {
	frames := slices.Clone(s.kept[s.from:])
	s.shedLocked(nil)
	s.moved, s.count = node, 0
	if s.back != nil {
		close(s.back)
		s.back = nil
	}
	return frames
}

// handOverMax bounds the sessions that are handed over at a time.
const handOverMax = 8

// HandOverSessions gives every session that this hub has to one of the nodes,
// each to the next, so that their clients find them there. It ends the
// connections of those clients that are still here.
func (h *Hub) HandOverSessions(ctx context.Context, nodes []string) {
	h.leaving.Store(true)
	if len(nodes) == 0 {
		return
	}
	h.waitForTakers(ctx)
	h.eachClient(func(c *Client) {
		if c.session != nil {
			h.quiesce(c.session)
		}
	})
	var handing sync.WaitGroup
	limit := make(chan struct{}, handOverMax)
	turn := 0
	h.away.Range(func(_, v any) bool {
		s, _ := v.(*session)
		node := nodes[turn%len(nodes)]
		turn++
		limit <- struct{}{}
		handing.Go(func() {
			defer func() { <-limit }()
			if err := h.handSession(ctx, s, node); err != nil {
				h.log.Warn("session not handed over", logNode(node), logError(err))
			}
		})
		return true
	})
	handing.Wait()
}

// waitForTakers returns when the sessions of clients that just went are taken over
// by the nodes that they went to, or after a moment.
func (h *Hub) waitForTakers(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, fenceTime)
	defer cancel()
	h.away.Range(func(_, v any) bool {
		s, _ := v.(*session)
		s.mu.Lock()
		back := s.back
		if s.moved != "" {
			back = nil
		}
		s.mu.Unlock()
		if back == nil {
			return true
		}
		select {
		case <-back:
			return true
		case <-ctx.Done():
			return false
		}
	})
}

// handSession gives a session to another node. What comes for its client
// meanwhile is kept here, and follows once that node has the session.
func (h *Hub) handSession(ctx context.Context, s *session, node string) error {
	done, err := h.turns.take(ctx, s.id)
	if err != nil {
		return err
	}
	defer done()
	h.quiesce(s)
	h.allPassed(ctx)
	s.mu.Lock()
	if s.ended || s.moved != "" || s.client != nil {
		s.mu.Unlock()
		return nil
	}
	st := s.stateLocked()
	before := s.count
	body := st.encode(s.kept[s.from:])
	s.mu.Unlock()
	if _, err := h.remote.Ask(ctx, node, questionKeep, body); err != nil {
		return err
	}
	in := h.newIntake()
	defer in.flush()
	h.mu.Lock()
	defer h.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	link := h.link(node)
	eachFrame(s.leaveLocked(node), func(f wire.Frame) {
		if before--; before < 0 && link != nil {
			in.passKept(link, f)
		}
	})
	if h.state == stateRunning {
		h.waitForLocked(s, askTime)
	}
	return nil
}

// passKept sends a frame that was kept on to the node that has the session now.
func (in *intake) passKept(link Link, f wire.Frame) {
	own := append(wire.Frame(nil), f...)
	own.SetFlags(f.Flags()&^wire.FlagKept | wire.FlagHop)
	in.push(link, own[:wire.HeaderSize], own[wire.HeaderSize:], nil)
}

// keepSession keeps a session for another node that stops.
func (h *Hub) keepSession(body []byte) error {
	st, frames, count, err := decodeSession(body)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	_, here := h.Client(st.ID)
	if here || h.awaySession(st.ID) != nil || h.state != stateRunning || h.leaving.Load() {
		return &wire.Error{Code: wire.CodeUnavailable, Detail: "client " + st.ID + " has another session here, or this node stops"}
	}
	h.adoptLocked(h.restored(&st, frames, count))
	return nil
}

// adoptLocked makes a session that was another node's wait for its client here.
func (h *Hub) adoptLocked(s *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch++
	h.waitForLocked(s, max(h.settings.Load().ResumeWindow, time.Second))
	h.remote.ClientUp(s.id, s.epoch)
}
