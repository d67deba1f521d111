package wire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// The bodies of control frames are JSON objects: they are rare, and any
// language reads them. Receivers ignore fields that they don't know.

// Hello is the first frame of a client.
type Hello struct {
	MinVersion  int               `json:"minVersion"`
	MaxVersion  int               `json:"maxVersion"`
	ID          ClientID          `json:"id"`
	Name        string            `json:"name,omitempty"`    // of the client library or program
	Version     string            `json:"version,omitempty"` // of the client library or program
	Token       string            `json:"token,omitempty"`
	NoBroadcast bool              `json:"noBroadcast,omitempty"` // don't subscribe me to "broadcast"
	Labels      map[string]string `json:"labels,omitempty"`
	Epoch       uint64            `json:"epoch,omitempty"` // of my session before, when I come back

	Resumable bool   `json:"resumable,omitempty"` // my session may outlive this connection
	Session   string `json:"session,omitempty"`   // that I come back to: what Welcome named
	Received  uint64 `json:"received,omitempty"`  // frames with FlagKept that I have of it
	Node      string `json:"node,omitempty"`      // where it was
	Attempt   uint64 `json:"attempt,omitempty"`   // rises with each try of mine to connect: a late one takes nothing from a newer one

	// Publisher is a number by which the frames of this life of the client are
	// told from those of its other lives. 0: they are not numbered. Else Sequence of each
	// Publish counts those to its topic, from 1 on.
	Publisher uint64 `json:"publisher,omitempty"`
}

// Welcome answers Hello.
type Welcome struct {
	Version      int      `json:"version"`
	Hub          string   `json:"hub"`
	Node         string   `json:"node"`
	Epoch        uint64   `json:"epoch"`               // of this session; higher than that of any one before
	MaxArtifact  int      `json:"maxArtifactSize"`     // bytes
	MaxFrame     int      `json:"maxFrameSize"`        // bytes, with the length field
	PingInterval int64    `json:"pingIntervalMillis"`  // how long the node waits in silence before it pings; 0: never
	PingTimeout  int64    `json:"pingTimeoutMillis"`   // silence after which it gives up altogether; 0: never
	Addresses    []string `json:"addresses,omitempty"` // client addresses of all nodes, this one included

	ResumeWindow int64  `json:"resumeWindowMillis,omitempty"` // how long the session waits for the client when the connection is lost; 0: it doesn't
	Session      string `json:"session,omitempty"`            // to come back to; known to nobody else
	Resumed      bool   `json:"resumed,omitempty"`            // the session that Hello names goes on
	Expires      int64  `json:"expiresMillis,omitempty"`      // when the client is disconnected unless it has sent a new token; 0: never
	// MaxSubscribe is how many bytes the frames of one Subscribe may have together; see
	// More of [Subscription]. 0: it has to be one frame, and this node knows neither
	// Others nor Incomplete.
	MaxSubscribe int    `json:"maxSubscribeSize,omitempty"`
	Received     uint64 `json:"received,omitempty"` // Publish, Send and Reply frames of it that were taken from the client; what came behind them is lost
}

// Renew is the body of a client's frame of that kind.
type Renew struct {
	Token string `json:"token"`
}

// Renewed is the body of the Ack of Renew.
type Renewed struct {
	Expires int64 `json:"expiresMillis,omitempty"` // as in [Welcome]
}

// Since says where a subscription to topics with history starts.
type Since string

// Where a subscription may start. The zero value is SinceNew.
const (
	SinceNew      Since = "new"      // what is published from now on
	SinceAll      Since = "all"      // everything that is kept
	SinceLast     Since = "last"     // the newest one that is kept, then what follows
	SinceSequence Since = "sequence" // Sequence and what follows
	SinceAge      Since = "age"      // what is not older than Age
)

// Subscription is the body of Subscribe; the pattern is the frame's target and
// the subscription's id its ref.
type Subscription struct {
	Since    Since         `json:"since,omitempty"`
	Sequence Sequence      `json:"sequence,omitempty"`
	Age      time.Duration `json:"ageNanos,omitempty"`
	Filter   string        `json:"filter,omitempty"` // CEL
	Group    string        `json:"group,omitempty"`
	// Again says that the client had this subscription before its connection was lost.
	// If it may not read the history, it goes on from now, and hears what it has missed.
	Again bool `json:"again,omitempty"`
	// Positions resumes a subscription: the next sequence wanted of each topic
	// that it knows. Topics that are not in it are new and start at their
	// first artifact. When it is not nil, Since is not looked at, but for Others.
	Positions map[string]Sequence `json:"positions,omitempty"`
	// Others makes topics that are not in Positions start where Since says. When Age is not
	// 0, SinceLast means what was the last one that long ago, and SinceSequence starts
	// earlier where something before is not older than that.
	Others bool `json:"others,omitempty"`
	// More says that another Subscribe of the same id follows, with more positions: what
	// this one has of them is added to those. The last one says the rest. Together they
	// are at most as large as [Welcome] says.
	More bool `json:"more,omitempty"`
}

// Subscribed is the body of the Ack of Subscribe: for each topic with history
// that the pattern matches now, the sequence that comes next.
type Subscribed struct {
	Positions map[string]Sequence `json:"positions,omitempty"`
	// Incomplete says that there may be more: not every leader could be asked. The node
	// goes on asking.
	Incomplete bool `json:"incomplete,omitempty"`
}

// Read is the body of a client's frame of that kind: which part of a topic's
// history it wants. The node sends a page of it, as frames of KindPublish with the
// same ref, and then an Ack whose sequence is where the next page begins and whose
// body is a [Page]. A page holds whole frames as they were stored: it may begin
// before what was asked for. From, Age and Last narrow each other.
type Read struct {
	From Sequence      `json:"from,omitempty"`     // the first one wanted
	Age  time.Duration `json:"ageNanos,omitempty"` // what is not older; 0: of any age
	Last int           `json:"last,omitempty"`     // the newest so many; 0: all
	// End is the sequence to read up to, itself not included: the page's before,
	// for the pages that follow the first. Nothing else than From counts then.
	// 0: all that is there now.
	End Sequence `json:"end,omitempty"`
}

// Page is the body of the Ack of Read: what the page is a part of.
type Page struct {
	Start Sequence `json:"start"`           // where reading starts
	First Sequence `json:"first,omitempty"` // the first one that is kept: what lies before is gone, also when a frame still holds it
	End   Sequence `json:"end"`             // the sequence after the last one, when the first page was made
}

// Redirect is the body of Drain: where to go instead, best first.
type Redirect struct {
	Addresses []string `json:"addresses"`
}

// AppendControl appends a frame whose body is the JSON form of body; nil means
// an empty one.
func AppendControl(b []byte, h Header, target string, body any) []byte {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			panic("wire: control body can't be encoded: " + err.Error()) // only a type of this package without JSON form
		}
	}
	return AppendFrame(b, h, target, "", text)
}

// DecodeControl decodes a control frame's body into one of this package's
// types. An empty body leaves it as it is. The error wraps [ErrMalformed].
func DecodeControl(f Frame, into any) error {
	if len(f.Body()) == 0 {
		return nil
	}
	if err := DecodeJSON(f.Body(), into); err != nil {
		return fmt.Errorf("body of kind %d: %w", f.Kind(), err)
	}
	return nil
}

// DecodeJSON decodes what a client or a node sent as JSON. The error wraps
// [ErrMalformed] and repeats nothing of it: it may be a token, in a place or of a kind that is
// wrong.
func DecodeJSON(b []byte, into any) error {
	err := json.Unmarshal(b, into)
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		wrong.Value, _, _ = strings.Cut(wrong.Value, " ") // behind "number" comes the number
	}
	if err != nil {
		return fmt.Errorf("%w: %s", ErrMalformed, err.Error())
	}
	return nil
}

// AppendGap appends the frame that tells a subscription which artifacts of a
// topic, from and to included, it does not get.
func AppendGap(b []byte, subscription uint32, topic string, from, to Sequence) []byte {
	h := Header{Kind: KindGap, Sequence: from, Ref: subscription}
	return AppendFrame(b, h, topic, "", binary.BigEndian.AppendUint64(nil, uint64(to)))
}

// ParseGap returns the gap that a frame of KindGap tells of.
func ParseGap(f Frame) (*HistoryGapError, error) {
	if len(f.Body()) != 8 {
		return nil, malformed("gap without its end")
	}
	return &HistoryGapError{
		Topic: string(f.Target()),
		From:  f.Sequence(),
		To:    Sequence(binary.BigEndian.Uint64(f.Body())),
	}, nil
}

// NegotiateVersion returns the protocol version for a peer that knows minimum
// to maximum, or an [Error] that names both ranges.
func NegotiateVersion(minimum, maximum int) (int, error) {
	if minimum > Version || maximum < Version {
		return 0, &Error{Code: CodeUnsupportedVersion, Detail: fmt.Sprintf("peer speaks protocol versions %d to %d, this node speaks %d", minimum, maximum, Version)}
	}
	return Version, nil
}
