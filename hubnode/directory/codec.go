package directory

import (
	"encoding/binary"
	"math"

	"github.com/switchboardhub/switchboard/wire"
)

// An announcement is
//
//	format     1 byte, formatChanges or formatSnapshot
//	node       uvarint length and text
//	then these uvarints: incarnation, the version From of changes or To of a
//	snapshot, and of a snapshot only part, parts and offset
//	changes    uvarint count, then for each the operation, 1 byte; the name,
//	           uvarint length and text; for clients the epoch, uvarint; for
//	           clients that leave the reason, 1 byte
//
// The count gives the version To of changes. Nothing follows.
const (
	formatSnapshot = 2
	formatChanges  = 3 // 1 were changes without reasons
)

// minChange is the size of the smallest change: operation, length, one byte of
// name.
const minChange = 3

// AppendTo appends a's encoding to b and returns the result. What
// [ParseAnnouncement] would refuse must not be encoded.
func (a *Announcement) AppendTo(b []byte) []byte {
	if a.Snapshot {
		b = append(b, formatSnapshot)
	} else {
		b = append(b, formatChanges)
	}
	b = appendText(b, a.Owner.Node)
	b = binary.AppendUvarint(b, a.Owner.Incarnation)
	if a.Snapshot {
		b = binary.AppendUvarint(b, uint64(a.To))
		b = binary.AppendUvarint(b, uint64(a.Part))
		b = binary.AppendUvarint(b, uint64(a.Parts))
		b = binary.AppendUvarint(b, a.Offset)
	} else {
		b = binary.AppendUvarint(b, uint64(a.From))
	}
	b = binary.AppendUvarint(b, uint64(len(a.Changes)))
	for i := range a.Changes {
		c := &a.Changes[i]
		b = append(b, byte(c.Op))
		b = appendText(b, c.Name)
		if c.Op.ofClient() {
			b = binary.AppendUvarint(b, c.Epoch)
		}
		if c.Op == ClientDown {
			b = append(b, byte(c.Reason))
		}
	}
	return b
}

// ParseAnnouncement decodes what [Announcement.AppendTo] made; nothing may
// follow it. It keeps no reference to b and takes memory in proportion to what
// b holds, whatever lengths b claims. The error wraps [ErrMalformed].
func ParseAnnouncement(b []byte) (Announcement, error) {
	d := decoder{rest: b}
	var a Announcement
	switch format := d.byte(); format {
	case formatChanges:
	case formatSnapshot:
		a.Snapshot = true
	default:
		d.fail("format %d", format)
	}
	a.Owner.Node = d.text(MaxNode)
	a.Owner.Incarnation = d.uvarint(math.MaxUint64)
	if a.Snapshot {
		a.To = Version(d.uvarint(math.MaxUint64))
		a.Part = uint32(d.uvarint(math.MaxUint32))
		a.Parts = uint32(d.uvarint(math.MaxUint32))
		a.Offset = d.uvarint(math.MaxUint64)
	} else {
		a.From = Version(d.uvarint(math.MaxUint64))
	}
	count := d.uvarint(uint64(len(d.rest) / minChange))
	if !a.Snapshot {
		a.To = a.From + Version(count) // check refuses it when it wraps around
	}
	if d.err == nil && count > 0 {
		a.Changes = make([]Change, count)
	}
	for i := range a.Changes {
		c := &a.Changes[i]
		c.Op = Op(d.byte())
		c.Name = d.text(MaxName)
		if c.Op.ofClient() {
			c.Epoch = d.uvarint(math.MaxUint64)
		}
		if c.Op == ClientDown {
			c.Reason = wire.LeaveReason(d.byte())
		}
	}
	if len(d.rest) > 0 {
		d.fail("%d bytes follow", len(d.rest))
	}
	if d.err == nil {
		d.err = a.check()
	}
	if d.err != nil {
		return Announcement{}, d.err
	}
	return a, nil
}

// ofClient reports whether a change of that kind carries a session's epoch.
func (op Op) ofClient() bool { return op == ClientUp || op == ClientDown }

// size returns how many bytes c takes in an announcement.
func (c *Change) size() int {
	n := 1 + uvarintSize(uint64(len(c.Name))) + len(c.Name)
	if c.Op.ofClient() {
		n += uvarintSize(c.Epoch)
	}
	if c.Op == ClientDown {
		n++ // the reason
	}
	return n
}

// headSize returns the most that an announcement of owner takes beyond its
// changes.
func headSize(owner Owner) int {
	return 1 + uvarintSize(uint64(len(owner.Node))) + len(owner.Node) +
		uvarintSize(owner.Incarnation) + 3*binary.MaxVarintLen64 + 2*binary.MaxVarintLen32
}

func uvarintSize(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

func appendText(b []byte, text string) []byte {
	b = binary.AppendUvarint(b, uint64(len(text)))
	return append(b, text...)
}

// decoder reads fields off rest until the first fault, which stays in err;
// from then on every field is zero.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = malformed(format, args...)
	}
	d.rest = nil
}

func (d *decoder) byte() byte {
	if len(d.rest) == 0 {
		d.fail("ends too early")
		return 0
	}
	v := d.rest[0]
	d.rest = d.rest[1:]
	return v
}

func (d *decoder) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(d.rest)
	switch {
	case n <= 0:
		d.fail("number cut short or over 64 bits")
		return 0
	case v > limit:
		d.fail("number %d, want at most %d", v, limit)
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

// text returns a copy: a name must not keep a whole packet alive.
func (d *decoder) text(limit int) string {
	n := d.uvarint(uint64(limit))
	if n > uint64(len(d.rest)) {
		d.fail("ends too early")
		return ""
	}
	text := string(d.rest[:n])
	d.rest = d.rest[n:]
	return text
}
