package wire

import (
	"encoding/binary"
	"fmt"
)

// Kind says what a frame is for.
type Kind uint8

// The kinds that clients and nodes exchange. From KindMesh on they are between
// nodes only and are refused from a client.
const (
	KindHello       Kind = 1  // client → node: who I am
	KindWelcome     Kind = 2  // node → client: what holds here
	KindSubscribe   Kind = 3  // client → node
	KindUnsubscribe Kind = 4  // client → node
	KindPublish     Kind = 5  // both: artifacts on a topic
	KindSend        Kind = 6  // both: artifacts for one client
	KindReply       Kind = 7  // both: the answer to a Send with FlagRequest
	KindAck         Kind = 8  // node → client: done
	KindError       Kind = 9  // node → client: not done, and why
	KindPing        Kind = 10 // both: answer with Pong and the same ref
	KindPong        Kind = 11 // both
	KindDrain       Kind = 12 // node → client: go to another node
	KindGoodbye     Kind = 13 // both: the last frame, and why
	KindGap         Kind = 14 // node → client: retention took what you asked for
	KindSettings    Kind = 15 // node → client: forget what FlagLive told you
	KindLost        Kind = 16 // node → client: you were too slow, Sequence live artifacts were dropped
	KindReceived    Kind = 17 // client → node: I have Sequence frames with FlagKept of this session
	KindRead        Kind = 18 // client → node: a page of a topic's history
	KindFetch       Kind = 19 // client → node: what became of a durable subscription's artifacts, and more of them
	KindRestore     Kind = 20 // client → node: artifacts of a backup; Sequence is where they were
	KindRenew       Kind = 21 // client → node: a new token

	KindMesh     Kind = 64 // the first kind between nodes: who I am
	KindStore    Kind = 65 // to a topic's home: keep these artifacts and publish them
	KindAnnounce Kind = 66 // a part of the sender's directory
	KindRepair   Kind = 67 // send me your directory after the version in Sequence
	KindAsk      Kind = 68 // a question; target says which
	KindAnswer   Kind = 69 // its answer
	KindRaft     Kind = 70 // a call between replicas of the shard in Sequence; target and from are their ids
	KindRafted   Kind = 71 // its answer
	KindLeads    Kind = 72 // the shards that the sender leads
	KindBundle   Kind = 73 // calls between replicas, or answers, that travel together: the body is their frames
)

// Flags qualify a frame. Unknown ones are ignored.
type Flags uint8

// The flags.
const (
	FlagAck     Flags = 1 << iota // the sender wants an Ack or Error for this frame
	FlagRequest                   // on Send: the receiver is asked to Reply; Sequence is the time it has, in milliseconds
	FlagLive                      // on Ack: this topic keeps no history and has no filter, publishes to it need no Ack
	FlagFailed                    // on Reply: the handler failed, the payload says how
	FlagHop                       // between nodes: passed on once already
	FlagKept                      // node → client: the session keeps this frame until the client has it
	FlagOldest                    // on Publish: the publisher has no answer to wait for that is older, on this topic
	FlagCheck                     // on Restore: compare with what is there, and store nothing
)

// What bits mean that other kinds use otherwise.
const (
	FlagEach  = FlagFailed // on Publish: its artifacts need not share their fate; on Error: only those of the frame that [Fault].Artifacts names are refused
	FlagAgain = FlagCheck  // on Publish: it may have been taken before, in a session that was lost
)

// Header is a frame's fixed part.
//
//	offset  size
//	0       4     length of what follows this field
//	4       1     kind
//	5       1     flags
//	6       2     count: artifacts in the run
//	8       8     sequence of the first artifact
//	16      4     ref: what an answer names
//	20      2     length of target
//	22      2     length of from
//	24            target, from, body
//
// All numbers are big-endian.
type Header struct {
	Kind     Kind
	Flags    Flags
	Count    uint16
	Sequence Sequence
	Ref      uint32
}

// Frame is one whole frame with its length field, as received or to be sent.
// Its methods may be called only on what [AppendFrame] made or [ParseFrame]
// accepted. Target is a topic, a pattern or a client id; From is a client id.
type Frame []byte

// AppendFrame appends a frame to b and returns it. Target and from must be
// shorter than 64 KiB.
func AppendFrame[S string | []byte](b []byte, h Header, target, from S, body []byte) []byte {
	n := HeaderSize - 4 + len(target) + len(from) + len(body)
	b = binary.BigEndian.AppendUint32(b, uint32(n)) //nolint:gosec // callers stay below MaxFrame
	b = append(b, byte(h.Kind), byte(h.Flags))
	b = binary.BigEndian.AppendUint16(b, h.Count)
	b = binary.BigEndian.AppendUint64(b, uint64(h.Sequence))
	b = binary.BigEndian.AppendUint32(b, h.Ref)
	b = binary.BigEndian.AppendUint16(b, uint16(len(target))) //nolint:gosec // stated above
	b = binary.BigEndian.AppendUint16(b, uint16(len(from)))   //nolint:gosec // stated above
	b = append(b, target...)
	b = append(b, from...)
	return append(b, body...)
}

// ParseFrame checks that b is exactly one frame with consistent lengths. It
// does not look into the body.
func ParseFrame(b []byte) (Frame, error) {
	if len(b) < HeaderSize {
		return nil, fmt.Errorf("%w: %d bytes, a header has %d", ErrMalformed, len(b), HeaderSize)
	}
	if n := binary.BigEndian.Uint32(b); uint64(n)+4 != uint64(len(b)) {
		return nil, fmt.Errorf("%w: length says %d, %d follow", ErrMalformed, n, len(b)-4)
	}
	f := Frame(b)
	if f.bodyOffset() > len(b) {
		return nil, fmt.Errorf("%w: target and from are longer than the frame", ErrMalformed)
	}
	return f, nil
}

// FrameSize returns the size of the frame that b begins with, its length field included;
// 0 when b is too short to tell.
func FrameSize(b []byte) int {
	if len(b) < 4 {
		return 0
	}
	return 4 + int(binary.BigEndian.Uint32(b))
}

// Header returns the fixed part.
func (f Frame) Header() Header {
	return Header{Kind: f.Kind(), Flags: f.Flags(), Count: f.count16(), Sequence: f.Sequence(), Ref: f.Ref()}
}

// Kind returns the frame's kind.
func (f Frame) Kind() Kind { return Kind(f[4]) }

// Flags returns the frame's flags.
func (f Frame) Flags() Flags { return Flags(f[5]) }

// Count returns the number of artifacts that the frame claims to hold.
func (f Frame) Count() int { return int(f.count16()) }

func (f Frame) count16() uint16 { return binary.BigEndian.Uint16(f[6:]) }

// Sequence returns the first artifact's sequence, or what the kind keeps there.
func (f Frame) Sequence() Sequence { return Sequence(binary.BigEndian.Uint64(f[8:])) }

// Ref returns the number that an answer to this frame names.
func (f Frame) Ref() uint32 { return binary.BigEndian.Uint32(f[16:]) }

// Target returns the topic, pattern or client id; it aliases the frame.
func (f Frame) Target() []byte { return f[HeaderSize : HeaderSize+f.targetLen()] }

// From returns the sender's client id; it aliases the frame.
func (f Frame) From() []byte {
	at := HeaderSize + f.targetLen()
	return f[at : at+f.fromLen()]
}

// RouteSize returns how many bytes the frame has before its body. The fixed part is enough to
// know it.
func (f Frame) RouteSize() int { return f.bodyOffset() }

// Body returns what follows the route; it aliases the frame.
func (f Frame) Body() []byte { return f[f.bodyOffset():] }

func (f Frame) targetLen() int  { return int(binary.BigEndian.Uint16(f[20:])) }
func (f Frame) fromLen() int    { return int(binary.BigEndian.Uint16(f[22:])) }
func (f Frame) bodyOffset() int { return HeaderSize + f.targetLen() + f.fromLen() }

// Extended returns the frame with a length that counts size bytes to follow: the
// rest of its body, which is written behind it.
func (f Frame) Extended(size int) []byte {
	n := binary.BigEndian.Uint32(f) + uint32(size) //nolint:gosec // callers stay below MaxFrame
	binary.BigEndian.PutUint32(f, n)
	return f
}

// SetFlags overwrites the flags in place.
func (f Frame) SetFlags(flags Flags) { f[5] = byte(flags) }

// Stamp overwrites kind, flags, sequence and ref in place; the route, the
// count and the body stay.
func (f Frame) Stamp(kind Kind, flags Flags, seq Sequence, ref uint32) {
	f[4], f[5] = byte(kind), byte(flags)
	binary.BigEndian.PutUint64(f[8:], uint64(seq))
	binary.BigEndian.PutUint32(f[16:], ref)
}
