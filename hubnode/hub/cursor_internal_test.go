package hub

import (
	"testing"

	"github.com/switchboardhub/switchboard/wire"
)

// What a client may have without the right to history is told from what it may not, also
// where not all leaders could be asked.
func TestWhatIsHistoryToASubscription(t *testing.T) {
	all, fresh := wire.Subscription{Since: wire.SinceAll}, wire.Subscription{}
	resumed := wire.Subscription{Positions: map[string]wire.Sequence{"t": 4}}
	listed := []topicStart{{Topic: "t", Start: 2, End: 10}}
	for name, test := range map[string]struct {
		want     wire.Subscription
		starts   []topicStart
		complete bool
		during   wire.Sequence // heard while the topics were listed
		after    wire.Sequence // and after it; 0: nothing
		past     wire.Sequence
		replays  bool
	}{
		"all that there is":                               {all, listed, true, 0, 0, 10, true},
		"all, and more came during the listing":           {all, listed, true, 8, 0, 8, true},
		"what is new":                                     {fresh, []topicStart{{Topic: "t", Start: 10, End: 10}}, true, 0, 12, 10, false},
		"what is new, and more came during the listing":   {fresh, []topicStart{{Topic: "t", Start: 10, End: 10}}, true, 8, 12, 8, false},
		"a newer topic":                                   {fresh, nil, true, 0, 3, 1, false},
		"a newer topic during the listing":                {fresh, nil, true, 3, 0, 1, false},
		"a topic of which its leader has not told":        {fresh, nil, false, 3, 0, 3, false},
		"all, of which its leader has not told":           {all, nil, false, 0, 0, unknownPast, true},
		"all, of which its leader has told by publishing": {all, nil, false, 0, 7, 7, true},
		"a position, of which its leader has not told":    {resumed, nil, false, 0, 0, unknownPast, true},
		"a position that it publishes behind":             {resumed, nil, false, 7, 0, 7, true},
		"a position that it publishes at":                 {resumed, nil, false, 4, 0, 4, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSubscription(nil, "t")
			s.past, s.running = !isLive(test.want), true // nobody reads
			if s.replays() != s.past {
				t.Errorf("replays before it knows where it begins: %v, want %v", s.replays(), s.past)
			}
			hear := func(seq wire.Sequence) {
				if seq > 0 {
					s.deliverStored(nil, "t", &parcel{frame: wire.AppendFrame(nil, wire.Header{Kind: wire.KindPublish, Count: 1}, "t", "x", nil), seq: seq})
				}
			}
			hear(test.during)
			s.startAt(test.starts, test.complete, test.want)
			hear(test.after)
			if got := s.cursors["t"].past; got != test.past {
				t.Errorf("what is before %d is history to it, want %d", got, test.past)
			}
			if got := s.replays(); got != test.replays {
				t.Errorf("replays: %v, want %v", got, test.replays)
			}
		})
	}
}
