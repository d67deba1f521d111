package shard

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/switchboardhub/switchboard/wire"
)

// The calls that replicas make, as the first byte of a frame's body. A call and
// its answer have the same.
const (
	callAppend byte = iota + 1
	callVote
	callPreVote
	callSnapshot
	callTimeout
	callFailed // only as an answer: the text says why
)

// apart is the least data of an entry that is sent as a part of its own, not copied.
const apart = 4 << 10

// encodeAppend encodes what a leader sends all the time, in parts. The data of large
// entries is among them as it is.
func encodeAppend(a *raft.AppendEntriesRequest) [][]byte {
	size := 1 + 4*8 + 4 + 3*2 + 1 + len(a.ID) + len(a.Addr)
	for _, e := range a.Entries {
		size += entryHead + len(e.Extensions)
		if len(e.Data) < apart {
			size += len(e.Data)
		}
	}
	var parts [][]byte
	b := make([]byte, 0, size) // never grown: parts are pieces of it
	b = append(b, callAppend, byte(a.ProtocolVersion))
	b = appendBytes(b, a.ID)
	b = appendBytes(b, a.Addr)
	for _, n := range []uint64{a.Term, a.PrevLogEntry, a.PrevLogTerm, a.LeaderCommitIndex} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(a.Entries)))
	for _, e := range a.Entries {
		b = binary.BigEndian.AppendUint64(b, e.Index)
		b = binary.BigEndian.AppendUint64(b, e.Term)
		b = append(b, byte(e.Type))
		b = binary.BigEndian.AppendUint64(b, uint64(e.AppendedAt.UnixNano()))
		b = binary.BigEndian.AppendUint32(b, uint32(len(e.Data)))
		b = binary.BigEndian.AppendUint32(b, uint32(len(e.Extensions)))
		if len(e.Data) < apart {
			b = append(b, e.Data...)
		} else {
			parts = append(parts, b, e.Data)
			b = b[len(b):]
		}
		b = append(b, e.Extensions...)
	}
	return append(parts, b)
}

func appendBytes(b, s []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

// fields are taken off the front of an encoding; bad once it was too short.
type fields struct {
	rest []byte
	bad  bool
}

func (f *fields) take(n uint64) []byte {
	if f.bad || n > uint64(len(f.rest)) {
		f.bad = true
		return nil
	}
	b := f.rest[:n:n]
	f.rest = f.rest[n:]
	return b
}

func (f *fields) byte() byte {
	if b := f.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (f *fields) uint16() uint16 {
	if b := f.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (f *fields) uint32() uint32 {
	if b := f.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (f *fields) uint64() uint64 {
	if b := f.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

const entryHead = 8 + 8 + 1 + 8 + 4 + 4

// decodeAppend decodes what encodeAppend made, but for its first byte. The
// entries alias b.
func decodeAppend(b []byte) (*raft.AppendEntriesRequest, error) {
	f := &fields{rest: b}
	a := &raft.AppendEntriesRequest{}
	a.ProtocolVersion = raft.ProtocolVersion(f.byte())
	a.ID = f.take(uint64(f.uint16()))
	a.Addr = f.take(uint64(f.uint16()))
	a.Leader = a.Addr //nolint:staticcheck // Raft reads it where Addr is empty
	for _, n := range []*uint64{&a.Term, &a.PrevLogEntry, &a.PrevLogTerm, &a.LeaderCommitIndex} {
		*n = f.uint64()
	}
	n := f.uint32()
	if uint64(n)*entryHead > uint64(len(f.rest)) {
		f.bad = true
	}
	if !f.bad {
		a.Entries = make([]*raft.Log, 0, n)
	}
	for range n {
		if f.bad {
			break
		}
		e := &raft.Log{Index: f.uint64(), Term: f.uint64(), Type: raft.LogType(f.byte())}
		e.AppendedAt = time.Unix(0, int64(f.uint64()))
		data, extensions := f.uint32(), f.uint32()
		e.Data, e.Extensions = f.take(uint64(data)), f.take(uint64(extensions))
		a.Entries = append(a.Entries, e)
	}
	if f.bad || len(f.rest) > 0 {
		return nil, fmt.Errorf("%w: entries between replicas", wire.ErrMalformed)
	}
	return a, nil
}

// isHeartbeat reports whether a call only says that the leader is there.
func isHeartbeat(a *raft.AppendEntriesRequest) bool {
	return len(a.Entries) == 0 && a.PrevLogEntry == 0 && a.PrevLogTerm == 0 && a.LeaderCommitIndex == 0
}

func encodeAppended(a *raft.AppendEntriesResponse) []byte {
	b := []byte{callAppend, byte(a.ProtocolVersion), bit(a.Success) | bit(a.NoRetryBackoff)<<1}
	b = binary.BigEndian.AppendUint64(b, a.Term)
	return binary.BigEndian.AppendUint64(b, a.LastLog)
}

func bit(on bool) byte {
	if on {
		return 1
	}
	return 0
}

func decodeAppended(b []byte, a *raft.AppendEntriesResponse) error {
	f := &fields{rest: b}
	a.ProtocolVersion = raft.ProtocolVersion(f.byte())
	flags := f.byte()
	a.Success, a.NoRetryBackoff = flags&1 != 0, flags&2 != 0
	a.Term, a.LastLog = f.uint64(), f.uint64()
	if f.bad {
		return fmt.Errorf("%w: answer between replicas", wire.ErrMalformed)
	}
	return nil
}

// encodeRare encodes what is seldom said, with what follows it.
func encodeRare(call byte, v any, data []byte) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	b := append(make([]byte, 0, 5+len(text)+len(data)), call)
	b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
	return append(append(b, text...), data...), nil
}

// decodeRare decodes what encodeRare made, but for its first byte.
func decodeRare(b []byte, v any) (data []byte, err error) {
	f := &fields{rest: b}
	text := f.take(uint64(f.uint32()))
	if f.bad {
		return nil, fmt.Errorf("%w: call between replicas", wire.ErrMalformed)
	}
	if err := json.Unmarshal(text, v); err != nil {
		return nil, fmt.Errorf("%w: call between replicas", wire.ErrMalformed)
	}
	return f.rest, nil
}

// decodeCall decodes a call to this replica. What it returns aliases body.
func decodeCall(body []byte) (raft.RPC, error) {
	if len(body) == 0 {
		return raft.RPC{}, fmt.Errorf("%w: empty call between replicas", wire.ErrMalformed)
	}
	rest := body[1:]
	var rpc raft.RPC
	var err error
	switch body[0] {
	case callAppend:
		rpc.Command, err = decodeAppend(rest)
	case callVote:
		var v raft.RequestVoteRequest
		_, err = decodeRare(rest, &v)
		rpc.Command = &v
	case callPreVote:
		var v raft.RequestPreVoteRequest
		_, err = decodeRare(rest, &v)
		rpc.Command = &v
	case callTimeout:
		var v raft.TimeoutNowRequest
		_, err = decodeRare(rest, &v)
		rpc.Command = &v
	case callSnapshot:
		var v raft.InstallSnapshotRequest
		var data []byte
		data, err = decodeRare(rest, &v)
		rpc.Command, rpc.Reader = &v, bytes.NewReader(data)
	default:
		err = fmt.Errorf("%w: call %d between replicas", wire.ErrMalformed, body[0])
	}
	return rpc, err
}

// encodeAnswer encodes what Raft says to a call.
func encodeAnswer(call byte, r raft.RPCResponse) []byte {
	if r.Error == nil {
		if a, ok := r.Response.(*raft.AppendEntriesResponse); ok {
			return encodeAppended(a)
		}
		b, err := encodeRare(call, r.Response, nil)
		if err == nil {
			return b
		}
		r.Error = err
	}
	return append([]byte{callFailed}, r.Error.Error()...)
}

// decodeAnswer decodes an answer into what the caller expects.
func decodeAnswer(body []byte, into any) error {
	if len(body) == 0 {
		return fmt.Errorf("%w: empty answer between replicas", wire.ErrMalformed)
	}
	switch body[0] {
	case callFailed:
		return &refusedError{string(body[1:])}
	case callAppend:
		if a, ok := into.(*raft.AppendEntriesResponse); ok {
			return decodeAppended(body[1:], a)
		}
		return fmt.Errorf("%w: answer to another call", wire.ErrMalformed)
	}
	_, err := decodeRare(body[1:], into)
	return err
}

// refusedError is what another replica answered.
type refusedError struct{ text string }

func (e *refusedError) Error() string { return e.text }
