package hub

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

// The questions that hubs put to each other.
const (
	questionEpoch = "client.epoch"  // which session of this client do you hold?
	questionList  = "history.list"  // which topics do you hold, and where does a subscription start?
	questionRead  = "history.read"  // a page of a topic that you lead
	questionHeld  = "history.held"  // where does a topic that you lead end?
	questionStore = "history.store" // store this frame on a topic that you lead

	questionRestore = "history.restore" // store this frame of a backup where it was

	// QuestionFetch is for a topic's leader: what does this member of a durable
	// subscription get? The answer may take [wire.MaxFetchWait].
	QuestionFetch = "durable.fetch"

	// QuestionPassed asks a node whether it has handled what came from the asking one
	// before, and the node named here what it passed on. The answer goes behind all
	// that the answering node has to announce.
	QuestionPassed = "link.passed"

	// QuestionSettled asks a node the same, and whether what it passed on, to whichever
	// node, has been handled there; and whether it goes on waiting for others before it
	// sends to clients that have moved.
	QuestionSettled = "link.settled"

	questionSession = "session.take" // give me this client's session: it came here
	questionKeep    = "session.keep" // fetch this client's session and keep it: I am about to stop

	questionLeaving = "node.leaving" // I am about to stop: have you sent me the last that is for clients that were here?
)

const (
	askTime  = 5 * time.Second
	findTime = askTime
)

// Waits reports whether the answer to a question may wait for something to happen.
func Waits(question string) bool {
	switch question {
	case QuestionFetch, QuestionPassed, QuestionSettled, questionSession, questionKeep, questionLeaving:
		return true
	default:
		return false
	}
}

// Answer answers a question that another node's hub asked through Remote.Ask.
func (h *Hub) Answer(ctx context.Context, question string, body []byte) ([]byte, error) {
	switch question {
	case questionEpoch:
		return h.answerEpoch(string(body)), nil
	case questionList:
		var q listRequest
		if err := wire.DecodeJSON(body, &q); err != nil {
			return nil, err
		}
		here, err := h.listHere(ctx, q)
		switch {
		case err != nil:
			return nil, err
		case !q.Led:
			return json.Marshal(here.Starts)
		}
		return json.Marshal(here)
	case questionRead:
		return h.answerPage(body)
	case questionStore:
		return nil, h.answerStore(ctx, body)
	case questionRestore:
		return h.answerRestore(ctx, body)
	case QuestionFetch:
		return h.answerFetch(ctx, body)
	case questionHeld:
		return h.answerHeld(ctx, string(body))
	case QuestionPassed:
		return nil, h.answerPassed(ctx, string(body))
	case QuestionSettled:
		h.answerSettled(ctx)
		return nil, nil
	case questionSession:
		return h.giveSession(ctx, body)
	case questionKeep:
		return nil, h.keepSession(ctx, body)
	case questionLeaving:
		h.answerLeaving(ctx)
		return nil, nil
	default:
		return h.answerSystem(ctx, question, body)
	}
}

func (h *Hub) answerEpoch(id string) []byte {
	epoch := uint64(0)
	if c, ok := h.Client(id); ok {
		epoch = c.epoch
	} else if s := h.awaySession(id); s != nil {
		s.mu.Lock()
		epoch = s.epoch
		s.mu.Unlock()
	}
	return binary.BigEndian.AppendUint64(nil, epoch)
}

func (h *Hub) answerHeld(ctx context.Context, name string) ([]byte, error) {
	b, err := h.keeper.Bounds(ctx, name)
	return binary.BigEndian.AppendUint64(nil, uint64(b.Next)), err
}

func (h *Hub) answerPage(body []byte) ([]byte, error) {
	if len(body) < 12 {
		return nil, fmt.Errorf("%w: request for a page", wire.ErrMalformed)
	}
	from := wire.Sequence(binary.BigEndian.Uint64(body))
	maxBytes := min(int(binary.BigEndian.Uint32(body[8:])), pageBytes)
	name := string(body[12:])
	store, held := h.keeper.Held(name)
	if _, self := h.keeper.Leader(name); !self || !held {
		return nil, unavailable(name, h.remote.Self())
	}
	p, err := readStore(store, name, from, maxBytes)
	if err != nil {
		return nil, err
	}
	return p.encode(), nil
}

func (h *Hub) askEpoch(ctx context.Context, node, id string) (uint64, error) {
	answer, err := h.remote.Ask(ctx, node, questionEpoch, []byte(id))
	if err != nil {
		return 0, err
	}
	if len(answer) != 8 {
		return 0, fmt.Errorf("%w: answer to %s", wire.ErrMalformed, questionEpoch)
	}
	return binary.BigEndian.Uint64(answer), nil
}

func (h *Hub) askList(ctx context.Context, node string, q listRequest) (there listAnswer, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	return there, h.askJSON(ctx, node, questionList, q, &there)
}

// askEnd returns the sequence that comes next in a topic.
func (h *Hub) askEnd(ctx context.Context, name string) (wire.Sequence, error) {
	node, self := h.keeper.Leader(name)
	if self {
		b, err := h.keeper.Bounds(ctx, name)
		return b.Next, err
	}
	if node == "" {
		return 0, h.keeper.Leaderless(name)
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	answer, err := h.remote.Ask(ctx, node, questionHeld, []byte(name))
	if err != nil {
		return 0, err
	}
	if len(answer) != 8 {
		return 0, fmt.Errorf("%w: answer to %s", wire.ErrMalformed, questionHeld)
	}
	return wire.Sequence(binary.BigEndian.Uint64(answer)), nil
}

func (h *Hub) askPage(ctx context.Context, node, name string, from wire.Sequence, maxBytes int) (*page, error) {
	b := binary.BigEndian.AppendUint64(nil, uint64(from))
	b = binary.BigEndian.AppendUint32(b, uint32(maxBytes))
	answer, err := h.remote.Ask(ctx, node, questionRead, append(b, name...))
	if err != nil {
		return nil, err
	}
	return decodePage(answer)
}

func (h *Hub) askJSON(ctx context.Context, node, question string, body, into any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	answer, err := h.remote.Ask(ctx, node, question, text)
	if err != nil || into == nil {
		return err
	}
	return wire.DecodeJSON(answer, into)
}

// askAll asks every linked node at the same time and runs what each answer
// asks for, one after another. It reports whether all answered.
func (h *Hub) askAll(ctx context.Context, ask func(ctx context.Context, node string) (func(), error)) bool {
	var (
		asking sync.WaitGroup
		mu     sync.Mutex
		all    = true
	)
	for node := range *h.peers.Load() {
		asking.Go(func() {
			use, err := ask(ctx, node)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				all = false
				return
			}
			use()
		})
	}
	asking.Wait()
	return all
}
