package directory

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/switchboardhub/switchboard/wire"
)

// samples are announcements of every shape.
func samples() map[string]Announcement {
	return map[string]Announcement{
		"no changes": {Owner: nodeA, From: 9, To: 9},
		"every kind of change": {
			Owner: Owner{Node: "agents-node-0", Incarnation: math.MaxUint64}, From: 1 << 40, To: 1<<40 + 4,
			Changes: []Change{{ClientUp, 0, "c", math.MaxUint64}, {ClientDown, wire.LeaveSlow, "c", 0}, {InterestUp, 0, "orders.>", 0}, {InterestDown, 0, strings.Repeat("x", MaxName), 0}},
		},
		"an empty snapshot": {Owner: nodeA, Snapshot: true, Parts: 1},
		"a part of a snapshot": {
			Owner: nodeA, To: math.MaxUint64, Snapshot: true, Part: math.MaxUint32 - 1, Parts: math.MaxUint32, Offset: 1 << 50,
			Changes: []Change{{ClientUp, 0, "c", 7}, {InterestUp, 0, "*", 0}},
		},
	}
}

func TestAnnouncementRoundTrip(t *testing.T) {
	for name, want := range samples() {
		t.Run(name, func(t *testing.T) {
			got, err := ParseAnnouncement(want.AppendTo(nil))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("after a round trip (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseAnnouncementRefuses(t *testing.T) {
	tests := map[string][]byte{
		"nothing":                              nil,
		"an unknown format":                    {9, 1, 'a', 1, 0, 0},
		"an owner without a name":              {formatChanges, 0, 1, 0, 0},
		"a name longer than what follows":      {formatChanges, 200, 'a', 1, 0, 0},
		"more changes than bytes":              {formatChanges, 1, 'a', 1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f},
		"a number over 64 bits":                append([]byte{formatChanges, 1, 'a'}, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"...),
		"versions that wrap around":            append([]byte{formatChanges, 1, 'a', 1}, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01\x03\x01n"...),
		"a change without a name":              {formatChanges, 1, 'a', 1, 0, 1, byte(InterestUp), 0, 0},
		"an unknown operation":                 {formatChanges, 1, 'a', 1, 0, 1, 99, 1, 'n'},
		"something behind the end":             {formatChanges, 1, 'a', 1, 0, 0, 0},
		"a snapshot's part beyond the last":    {formatSnapshot, 1, 'a', 1, 0, 1, 1, 0, 0},
		"a snapshot without parts":             {formatSnapshot, 1, 'a', 1, 0, 0, 0, 0, 0},
		"a client that leaves in a snapshot":   {formatSnapshot, 1, 'a', 1, 0, 0, 1, 0, 1, byte(ClientDown), 1, 'c', 1},
		"more parts than their number can say": append([]byte{formatSnapshot, 1, 'a', 1, 0, 0}, "\xff\xff\xff\xff\x1f\x00\x00"...),
	}
	for name, b := range tests {
		t.Run(name, func(t *testing.T) {
			if a, err := ParseAnnouncement(b); !errors.Is(err, ErrMalformed) {
				t.Errorf("ParseAnnouncement = %+v, %v; want ErrMalformed", a, err)
			}
		})
	}
	for name, a := range samples() {
		t.Run(name+" cut short anywhere", func(t *testing.T) {
			b := a.AppendTo(nil)
			for n := range b {
				if _, err := ParseAnnouncement(b[:n:n]); !errors.Is(err, ErrMalformed) {
					t.Errorf("the first %d of %d bytes: %v, want ErrMalformed", n, len(b), err)
				}
			}
		})
	}
}

func TestApplyIgnoresWhatIsMalformed(t *testing.T) {
	tests := map[string]Announcement{
		"no owner":                       {To: 1, Changes: []Change{{ClientUp, 0, "c", 1}}},
		"a version without its change":   {Owner: nodeA, To: 2, Changes: []Change{{ClientUp, 0, "c", 1}}},
		"a departure in a snapshot":      {Owner: nodeA, To: 1, Snapshot: true, Parts: 1, Changes: []Change{{ClientDown, 0, "c", 1}}},
		"a snapshot without parts":       {Owner: nodeA, To: 1, Snapshot: true},
		"changes that say they're parts": {Owner: nodeA, Parts: 1},
		"an offset that wraps around":    {Owner: nodeA, To: 1, Snapshot: true, Parts: 1, Offset: math.MaxUint64, Changes: []Change{{ClientUp, 0, "c", 1}}},
	}
	for name, a := range tests {
		t.Run(name, func(t *testing.T) {
			table := NewTable("self")
			if diff := cmp.Diff(Result{}, table.Apply(a)); diff != "" {
				t.Errorf("Apply (-want +got):\n%s", diff)
			}
			if len(table.Versions()) != 0 || table.Len() != 0 {
				t.Error("something is in the table")
			}
		})
	}
}

func FuzzParseAnnouncement(f *testing.F) {
	for _, a := range samples() {
		f.Add(a.AppendTo(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ParseAnnouncement(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("error %v, want ErrMalformed", err)
			}
			return
		}
		again, err := ParseAnnouncement(a.AppendTo(nil))
		if err != nil {
			t.Fatalf("what was parsed is refused after encoding: %v", err)
		}
		if diff := cmp.Diff(a, again, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("after a round trip (-want +got):\n%s", diff)
		}
		NewTable("self").Apply(a) // must not panic
	})
}

// What nodes of different versions say to each other must not change unnoticed.
func TestAnnouncementOfADepartureAsBytes(t *testing.T) {
	a := Announcement{Owner: nodeA, From: 4, To: 5, Changes: []Change{{ClientDown, wire.LeaveSlow, "cl", 7}}}
	want := append([]byte{formatChanges, 1, 'a', byte(nodeA.Incarnation), 4, 1}, 2, 2, 'c', 'l', 7, 5)
	if got := a.AppendTo(nil); !bytes.Equal(got, want) {
		t.Errorf("encoded: %v, want %v", got, want)
	}
}
