package wire

import (
	"fmt"
	"time"
)

// Range is the artifacts From to To of a topic, both included.
type Range struct {
	From Sequence `json:"from"`
	To   Sequence `json:"to"`
}

// Bounds of durable subscriptions.
const (
	DefaultAckWait  = 30 * time.Second
	MinAckWait      = 100 * time.Millisecond
	MaxAckWait      = 12 * time.Hour
	MaxFetch        = 4096 // artifacts of one Fetch
	MaxFetchWait    = 10 * time.Second
	maxFetchRanges  = 8192
	maxDurableTries = 1 << 20
)

// The attributes that artifacts get on a dead-letter topic.
const (
	AttributeDeadTopic      = "switchboard-dead-topic"      // where it was
	AttributeDeadSequence   = "switchboard-dead-sequence"   // which one it was there
	AttributeDeadDurable    = "switchboard-dead-durable"    // the subscription that gave it up
	AttributeDeadDeliveries = "switchboard-dead-deliveries" // how often it was given out
)

// DurablePolicy says how a durable subscription gives out its topic's artifacts.
// That of the latest request counts.
type DurablePolicy struct {
	// Shared lets several members work at a time, each on artifacts of its own.
	// Otherwise one has the subscription to itself, and others wait until it has
	// left or has not been heard of for AckWait.
	Shared bool `json:"shared,omitempty"`
	// AckWait is how long a member has artifacts without a word of it. 0: 30 s.
	AckWait time.Duration `json:"ackWaitNanos,omitempty"`
	// MaxDeliveries is how often an artifact is given out before it is given up.
	// 0: there is no limit.
	MaxDeliveries int `json:"maxDeliveries,omitempty"`
	// DeadLetter is the topic that artifacts are published to that are given up.
	// Empty: they are dropped.
	DeadLetter string `json:"deadLetter,omitempty"`
	// Filter is a CEL expression: artifacts that don't match are settled without
	// being given out. It never changes. Empty: all match.
	Filter string `json:"filter,omitempty"`
}

// WithDefaults returns the policy with its defaults filled in.
func (p DurablePolicy) WithDefaults() DurablePolicy {
	if p.AckWait == 0 {
		p.AckWait = DefaultAckWait
	}
	return p
}

// Fetch is the body of a client's frame of that kind: what became of artifacts that
// a durable subscription of the topic in the frame's target gave it, and how many
// more it wants. The node answers with frames of KindPublish with the same ref and
// then an Ack whose body is [Fetched].
type Fetch struct {
	Name   string        `json:"name"`
	Policy DurablePolicy `json:"policy"`

	// Since is where the subscription begins when it is new; the zero value is
	// SinceAll. With it a Fetch makes the subscription even when Max is 0.
	Since    Since         `json:"since,omitempty"`
	Sequence Sequence      `json:"sequence,omitempty"`
	Age      time.Duration `json:"ageNanos,omitempty"`

	Acked  []Range `json:"acked,omitempty"`  // done
	Failed []Range `json:"failed,omitempty"` // not done: to be given out again, after a rest
	Held   []Range `json:"held,omitempty"`   // still at work on it: it stays with me for AckWait from now
	// Released was not begun: it is given out again as if it had not been.
	Released []Range `json:"released,omitempty"`
	// Max is how many artifacts are wanted, at most [MaxFetch]. 0: none, the frame
	// only says what became of others. With more, Held is all that the client has:
	// what else it was given was lost on the way and is given out again.
	Max   int           `json:"max,omitempty"`
	Wait  time.Duration `json:"waitNanos,omitempty"` // how long to wait for the first one, at most [MaxFetchWait]
	Leave bool          `json:"leave,omitempty"`     // the client goes: what it holds is given to others at once
}

// Fetched is the body of the Ack of Fetch: what the frames before it hold. They may
// hold less when retention took some in between.
type Fetched struct {
	Given []Work  `json:"given,omitempty"`
	Lost  []Range `json:"lost,omitempty"` // retention took it before it was done
}

// Work is artifacts that were given to a client.
type Work struct {
	Range
	Deliveries int `json:"deliveries"` // how often they were given out, this time included
}

// DurableInfo is a durable subscription in the answer to "$hub.durables".
type DurableInfo struct {
	Topic       string        `json:"topic"`
	Name        string        `json:"name"`
	Policy      DurablePolicy `json:"policy"`
	Position    Sequence      `json:"position"`    // everything before it is settled
	Pending     uint64        `json:"pending"`     // artifacts that wait to be given out
	InFlight    int           `json:"inFlight"`    // artifacts that members are at work on
	Redelivered int           `json:"redelivered"` // of what is not settled: given out more than once
	Lost        uint64        `json:"lost"`        // artifacts that retention took before they were done
	Members     []string      `json:"members"`     // the clients that have some of them
	Used        time.Time     `json:"used"`        // of the latest request
}

// Check returns an [Error] for what a hub does not take.
func (f *Fetch) Check() error {
	invalid := func(format string, args ...any) error {
		return &Error{Code: CodeInvalidRequest, Detail: "durable subscription: " + fmt.Sprintf(format, args...)}
	}
	p := f.Policy
	at, why := wordFault(f.Name, MaxGroup)
	switch {
	case why != "":
		return invalid("name %.64q: %s at byte %d", f.Name, why, at)
	case p.AckWait != 0 && (p.AckWait < MinAckWait || p.AckWait > MaxAckWait):
		return invalid("ackWait %s: want %s to %s", p.AckWait, MinAckWait, MaxAckWait)
	case p.MaxDeliveries < 0 || p.MaxDeliveries > maxDurableTries:
		return invalid("maxDeliveries %d: want 0 to %d", p.MaxDeliveries, maxDurableTries)
	case p.DeadLetter != "" && p.MaxDeliveries == 0:
		return invalid("deadLetter %q has no meaning without maxDeliveries", p.DeadLetter)
	case f.Max < 0 || f.Max > MaxFetch:
		return invalid("max %d: want 0 to %d", f.Max, MaxFetch)
	case f.Wait < 0 || f.Wait > MaxFetchWait:
		return invalid("wait %s: want 0 to %s", f.Wait, MaxFetchWait)
	case len(f.Acked)+len(f.Failed)+len(f.Held)+len(f.Released) > maxFetchRanges:
		return invalid("more than %d ranges", maxFetchRanges)
	}
	return nil
}
