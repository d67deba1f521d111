package hub

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
)

// The questions that hubs put to each other.
const (
	questionEpoch = "client.epoch" // which session of this client do you hold?
	questionList  = "history.list" // which topics do you hold, and where does a subscription start?
	questionRead  = "history.read" // a page of a topic whose home you are
	questionCopy  = "history.copy" // a page of what you hold of a topic
	questionHeld  = "history.held" // what do you hold of a topic, what have you seen?
	questionTake  = "history.take" // fetch a topic from me: I am about to stop

	questionPassed = "link.passed" // have you handled what I sent before, and the node named here what you passed on?

	questionSession = "session.take" // give me this client's session: it came here
	questionKeep    = "session.keep" // keep this client's session: I am about to stop
)

const (
	askTime  = 5 * time.Second
	findTime = time.Second
)

// held says what a node holds of a topic.
type held struct {
	Holds   bool          `json:"holds"`
	Next    wire.Sequence `json:"next"`
	Seen    wire.Sequence `json:"seen"`    // the highest sequence it heard of, plus one
	Claimed wire.Sequence `json:"claimed"` // the same, by what its clients say
}

type takeRequest struct {
	Topic string `json:"topic"`
	From  string `json:"from"`
}

// Answer answers a question that another node's hub asked through Remote.Ask.
func (h *Hub) Answer(ctx context.Context, question string, body []byte) ([]byte, error) {
	switch question {
	case questionEpoch:
		return h.answerEpoch(string(body)), nil
	case questionList:
		var q listRequest
		if err := decodeJSON(body, &q); err != nil {
			return nil, err
		}
		return json.Marshal(h.listHere(ctx, q))
	case questionRead, questionCopy:
		return h.answerPage(ctx, question, body)
	case questionHeld:
		return json.Marshal(h.answerHeld(string(body)))
	case questionTake:
		var q takeRequest
		if err := decodeJSON(body, &q); err != nil {
			return nil, err
		}
		return nil, h.take(ctx, q.From, q.Topic)
	case questionPassed:
		return nil, h.answerPassed(ctx, string(body))
	case questionSession:
		return h.giveSession(ctx, body)
	case questionKeep:
		return nil, h.keepSession(body)
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

func (h *Hub) answerHeld(name string) held {
	r, err := h.route(name)
	if err != nil {
		return held{}
	}
	answer := held{Seen: wire.Sequence(r.seen.Load()), Claimed: wire.Sequence(r.claimed.Load())}
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	if r.log.log != nil {
		answer.Holds, answer.Next = true, r.log.log.Bounds().Next
	}
	return answer
}

func (h *Hub) answerPage(ctx context.Context, question string, body []byte) ([]byte, error) {
	if len(body) < 12 {
		return nil, fmt.Errorf("%w: request for a page", wire.ErrMalformed)
	}
	from := wire.Sequence(binary.BigEndian.Uint64(body))
	maxBytes := min(int(binary.BigEndian.Uint32(body[8:])), pageBytes)
	name := string(body[12:])
	var log *history.Log
	if question == questionRead {
		var err error
		if _, log, err = h.ready(ctx, name); err != nil {
			return nil, err
		}
		log.Expire(time.Now())
	} else {
		r, err := h.route(name)
		if err != nil {
			return nil, err
		}
		r.log.mu.Lock()
		log = r.log.log
		r.log.mu.Unlock()
		if log == nil {
			return nil, &wire.Error{Code: wire.CodeUnavailable, Detail: "this node holds nothing of topic " + name}
		}
	}
	return readLog(log, name, from, maxBytes).encode(), nil
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

func (h *Hub) askList(ctx context.Context, node string, q listRequest) ([]topicStart, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var starts []topicStart
	return starts, h.askJSON(ctx, node, questionList, q, &starts)
}

func (h *Hub) askHeld(ctx context.Context, node, name string) (held, error) {
	answer, err := h.remote.Ask(ctx, node, questionHeld, []byte(name))
	if err != nil {
		return held{}, err
	}
	var a held
	return a, decodeJSON(answer, &a)
}

func (h *Hub) askTake(ctx context.Context, node, name string) {
	err := h.askJSON(ctx, node, questionTake, takeRequest{Topic: name, From: h.remote.Self()}, nil)
	if err != nil {
		h.log.Warn("history not handed over", logTopic(name), logNode(node), logError(err))
	}
}

func (h *Hub) askPage(ctx context.Context, node, question, name string, from wire.Sequence, maxBytes int) (*page, error) {
	b := binary.BigEndian.AppendUint64(nil, uint64(from))
	b = binary.BigEndian.AppendUint32(b, uint32(maxBytes))
	answer, err := h.remote.Ask(ctx, node, question, append(b, name...))
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
	return decodeJSON(answer, into)
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
