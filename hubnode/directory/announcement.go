package directory

import (
	"errors"
	"fmt"
	"math"

	"github.com/switchboardhub/switchboard/wire"
)

// Version counts the changes of one owner's part; zero is before the first.
type Version uint64

// Owner is one life of a node. A restarted node has a higher incarnation.
type Owner struct {
	Node        string
	Incarnation uint64
}

// Op says what a change does to its owner's part.
type Op uint8

// The operations. Their numbers travel between nodes: never reuse one.
const (
	ClientUp Op = iota + 1
	ClientDown
	InterestUp
	InterestDown
)

// Change is one step of an owner's log.
type Change struct {
	Op     Op
	Reason wire.LeaveReason // of ClientDown
	Name   string           // the client's id, or the pattern
	Epoch  uint64           // the session's; zero for interests
}

// Limits of what an announcement may say, in bytes; what is longer is not
// taken into a log and not parsed.
const (
	MaxNode = 255
	// MaxName is the longer of a client's id and an interest: a pattern, a byte
	// between, and a group.
	MaxName = wire.MaxTopic + 1 + wire.MaxGroup
)

// Announcement is a piece of an owner's log: the changes of versions From+1 to
// To, one for each version. Changes may be none; it then tells the version.
//
// A snapshot is a whole part as of version To, in Parts announcements that
// may arrive in any order; it takes effect when all have arrived. From is zero
// and Changes hold ClientUp and InterestUp only.
type Announcement struct {
	Owner    Owner
	From, To Version
	Changes  []Change

	Snapshot    bool
	Part, Parts uint32 // Part counts from zero
	Offset      uint64 // how many changes the snapshot's parts before this one hold
}

// ErrMalformed reports an announcement that no owner can have sent.
var ErrMalformed = errors.New("malformed announcement")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// check returns an error that wraps ErrMalformed when the fields contradict
// each other.
func (a *Announcement) check() error {
	switch {
	case a.Owner.Node == "" || len(a.Owner.Node) > MaxNode:
		return malformed("owner's name has %d bytes, want 1 to %d", len(a.Owner.Node), MaxNode)
	case a.Snapshot && (a.From != 0 || a.Part >= a.Parts):
		return malformed("part %d of %d of a snapshot from version %d", a.Part, a.Parts, a.From)
	case a.Snapshot && a.Offset > math.MaxUint64-uint64(len(a.Changes)):
		return malformed("snapshot's offset %d", a.Offset)
	case !a.Snapshot && (a.Part != 0 || a.Parts != 0 || a.Offset != 0):
		return malformed("changes in parts")
	case !a.Snapshot && (a.To < a.From || uint64(a.To-a.From) != uint64(len(a.Changes))):
		return malformed("%d changes for versions %d to %d", len(a.Changes), a.From, a.To)
	}
	for i := range a.Changes {
		c := &a.Changes[i]
		switch {
		case c.Op < ClientUp || c.Op > InterestDown:
			return malformed("operation %d", c.Op)
		case a.Snapshot && (c.Op == ClientDown || c.Op == InterestDown):
			return malformed("operation %d in a snapshot", c.Op)
		case c.Name == "" || len(c.Name) > MaxName:
			return malformed("name has %d bytes, want 1 to %d", len(c.Name), MaxName)
		}
	}
	return nil
}

// Newer is the rule for two sessions of one client id on two nodes: it reports
// whether session a, of epoch aEpoch on node aNode, stays and b goes. The
// higher epoch wins, then the greater node name, so that all nodes agree
// without a clock. A session is not newer than itself.
func Newer(aEpoch uint64, aNode string, bEpoch uint64, bNode string) bool {
	if aEpoch != bEpoch {
		return aEpoch > bEpoch
	}
	return aNode > bNode
}
