package directory

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/wire"
)

var nodeA = Owner{Node: "a", Incarnation: 1}

func TestLog(t *testing.T) {
	tests := map[string]struct {
		do   func(*Log)
		want []Change
	}{
		"a client that connects and goes": {
			do:   func(l *Log) { l.ClientUp("c", 1); l.ClientDown("c", 1, wire.LeaveGoodbye) },
			want: []Change{{ClientUp, 0, "c", 1}, {ClientDown, wire.LeaveGoodbye, "c", 1}},
		},
		"saying the same again changes nothing": {
			do: func(l *Log) {
				l.ClientUp("c", 1)
				l.ClientUp("c", 1)
				l.InterestUp("news")
				l.InterestUp("news")
			},
			want: []Change{{ClientUp, 0, "c", 1}, {InterestUp, 0, "news", 0}},
		},
		"a newer session takes the place of the older": {
			do:   func(l *Log) { l.ClientUp("c", 1); l.ClientUp("c", 2) },
			want: []Change{{ClientUp, 0, "c", 1}, {ClientUp, 0, "c", 2}},
		},
		"the end of an older session leaves the newer": {
			do:   func(l *Log) { l.ClientUp("c", 2); l.ClientDown("c", 1, wire.LeaveGoodbye) },
			want: []Change{{ClientUp, 0, "c", 2}},
		},
		"an older session does not take the place of a newer": {
			do:   func(l *Log) { l.ClientUp("c", 2); l.ClientUp("c", 1) },
			want: []Change{{ClientUp, 0, "c", 2}},
		},
		"what was not there can't go": {
			do: func(l *Log) { l.ClientDown("c", 1, wire.LeaveGoodbye); l.InterestDown("news") },
		},
		"an interest comes and goes": {
			do:   func(l *Log) { l.InterestUp("news"); l.InterestDown("news"); l.InterestDown("news") },
			want: []Change{{InterestUp, 0, "news", 0}, {InterestDown, 0, "news", 0}},
		},
		"names that nobody would take are not recorded": {
			do: func(l *Log) { l.ClientUp("", 1); l.InterestUp(string(make([]byte, MaxName+1))) },
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := NewLog(nodeA, 100)
			tt.do(l)
			got, ok := l.Since(0, 1<<20)
			want := Announcement{Owner: nodeA, To: Version(len(tt.want)), Changes: tt.want}
			if diff := cmp.Diff(want, got); diff != "" || !ok {
				t.Errorf("Since(0) = ok %t (-want +got):\n%s", ok, diff)
			}
			if got := l.Version(); got != want.To {
				t.Errorf("Version = %d, want %d", got, want.To)
			}
		})
	}
}

func TestLogKnowsItsClients(t *testing.T) {
	l := NewLog(nodeA, 0)
	l.ClientUp("c", 7)
	l.ClientUp("d", 8)
	l.ClientDown("d", 8, wire.LeaveGoodbye)
	if epoch, ok := l.Client("c"); epoch != 7 || !ok {
		t.Errorf("Client(c) = %d, %t; want 7, true", epoch, ok)
	}
	if _, ok := l.Client("d"); ok {
		t.Error("a client that went is there")
	}
	if got := l.Clients(); got != 1 {
		t.Errorf("Clients = %d, want 1", got)
	}
	if l.Owner() != nodeA {
		t.Errorf("Owner = %v, want %v", l.Owner(), nodeA)
	}
}

func TestSince(t *testing.T) {
	l := NewLog(nodeA, 3)
	for i := range 5 {
		l.ClientUp(fmt.Sprint("c", i), 1) // versions 1 to 5, of which 3 to 5 are kept
	}
	two := headSize(nodeA) + 2*5 // operation, length, name, epoch
	tests := map[string]struct {
		since    Version
		maxBytes int
		ok       bool
		to       Version
		names    []string
	}{
		"all that is kept":                 {2, 1000, true, 5, []string{"c2", "c3", "c4"}},
		"some of it":                       {3, 1000, true, 5, []string{"c3", "c4"}},
		"nothing since the newest":         {5, 1000, true, 5, nil},
		"older than what is kept":          {1, 1000, false, 0, nil},
		"a version that never was":         {6, 1000, false, 0, nil},
		"as many as fit":                   {2, two, true, 4, []string{"c2", "c3"}},
		"one less when a byte is missing":  {2, two - 1, true, 3, []string{"c2"}},
		"one at least, whatever its size ": {2, 0, true, 3, []string{"c2"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, ok := l.Since(tt.since, tt.maxBytes)
			want := Announcement{}
			if tt.ok {
				want = Announcement{Owner: nodeA, From: tt.since, To: tt.to}
			}
			for _, name := range tt.names {
				want.Changes = append(want.Changes, Change{ClientUp, 0, name, 1})
			}
			if diff := cmp.Diff(want, got); diff != "" || ok != tt.ok {
				t.Errorf("Since(%d) = ok %t, want %t (-want +got):\n%s", tt.since, ok, tt.ok, diff)
			}
		})
	}
}

func TestALogThatKeepsNothingOffersSnapshotsOnly(t *testing.T) {
	l := NewLog(nodeA, 0)
	l.ClientUp("c", 1)
	if _, ok := l.Since(0, 1000); ok {
		t.Error("Since(0) gave changes that the log does not keep")
	}
	if a, ok := l.Since(1, 1000); !ok || a.To != 1 {
		t.Errorf("Since(1) = to %d, %t; want the version now", a.To, ok)
	}
}

func TestSnapshot(t *testing.T) {
	l := NewLog(nodeA, 0)
	if diff := cmp.Diff([]Announcement{{Owner: nodeA, Snapshot: true, Parts: 1, Changes: []Change{}}}, l.Snapshot(1000)); diff != "" {
		t.Errorf("snapshot of an empty log (-want +got):\n%s", diff)
	}
	l.ClientUp("d", 300)
	l.ClientUp("gone", 2)
	l.ClientDown("gone", 2, wire.LeaveGoodbye)
	l.InterestUp("news")
	l.ClientUp("c", 2)
	want := []Announcement{
		{Owner: nodeA, To: 5, Snapshot: true, Part: 0, Parts: 2, Changes: []Change{{ClientUp, 0, "c", 2}, {ClientUp, 0, "d", 300}}},
		{Owner: nodeA, To: 5, Snapshot: true, Part: 1, Parts: 2, Offset: 2, Changes: []Change{{InterestUp, 0, "news", 0}}},
	}
	if diff := cmp.Diff(want, l.Snapshot(headSize(nodeA)+9)); diff != "" {
		t.Errorf("snapshot in two parts (-want +got):\n%s", diff)
	}
	if got := len(l.Snapshot(0)); got != 3 {
		t.Errorf("a snapshot of 3 entries without room has %d parts, want one for each", got)
	}
}

func TestAnnouncementsStayWithinTheirBytes(t *testing.T) {
	l := NewLog(Owner{Node: "agents-node-0", Incarnation: 1 << 60}, 1000)
	for i := range uint64(1000) {
		l.ClientUp(fmt.Sprint("client-", i), 1<<(i%64))
	}
	for maxBytes := 100; maxBytes < 2000; maxBytes += 37 {
		a, _ := l.Since(0, maxBytes)
		for _, a := range append(l.Snapshot(maxBytes), a) {
			if got := len(a.AppendTo(nil)); got > maxBytes {
				t.Fatalf("announcement of %d bytes, want at most %d", got, maxBytes)
			}
		}
	}
}
