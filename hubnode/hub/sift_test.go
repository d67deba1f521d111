package hub_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/wire"
)

// TestARefusedArtifactLeavesItsNeighbours is for publishers that ask for it; for others
// see TestTopicFilterRefusesWithAReason.
func TestARefusedArtifactLeavesItsNeighbours(t *testing.T) {
	type refusal struct {
		Code      wire.Code
		Artifacts []int // none: the frame's answer
	}
	large := strings.Repeat("x", 2000)
	for name, test := range map[string]struct {
		sent    []string
		refused []refusal
		passes  []string
	}{
		"all pass":           {[]string{"good", "good"}, nil, []string{"good", "good"}},
		"one in the middle":  {[]string{"good 1", "bad", "good 2"}, []refusal{{wire.CodeRefused, []int{1}}}, []string{"good 1", "good 2"}},
		"the first and last": {[]string{"bad", "good", "bad"}, []refusal{{wire.CodeRefused, []int{0, 2}}}, []string{"good"}},
		"one that is too large": {
			[]string{"good 1", "good" + large, "good 2"}, []refusal{{wire.CodeArtifactTooLarge, []int{1}}}, []string{"good 1", "good 2"},
		},
		"for both reasons": {
			[]string{"good" + large, "good", "bad"},
			[]refusal{{wire.CodeArtifactTooLarge, []int{0}}, {wire.CodeRefused, []int{2}}},
			[]string{"good"},
		},
		"all of them":                {[]string{"bad", "bad"}, []refusal{{Code: wire.CodeRefused}}, nil},
		"all of them, for both":      {[]string{"good" + large, "bad"}, []refusal{{wire.CodeArtifactTooLarge, []int{0}}, {Code: wire.CodeRefused}}, nil},
		"all of them, as too large":  {[]string{"good" + large, "good" + large}, []refusal{{Code: wire.CodeArtifactTooLarge}}, nil},
		"the only one in its frame":  {[]string{"bad"}, []refusal{{Code: wire.CodeRefused}}, nil},
		"the only one, as too large": {[]string{large}, []refusal{{Code: wire.CodeArtifactTooLarge}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			filter := func(a *wire.Artifact) bool { return strings.HasPrefix(string(a.Payload), "good") }
			h := start(t, hub.WithSettings(hub.Settings{MaxArtifact: 1000}), hub.WithTopicFilter("orders.>", filter), hub.WithHistory("orders.kept", 10))
			a, pub := join(t, h, "a"), join(t, h, "pub")
			a.subscribe(1, ">", wire.Subscription{})
			for _, topic := range []string{"orders.live", "orders.kept"} {
				pub.write(frame(wire.KindPublish, wire.FlagAck|wire.FlagEach, 2, topic, "pub", test.sent...))
				var told []refusal
				for range test.refused {
					f := pub.expect(wire.KindError, 2)
					told = append(told, refusal{f.fault().Code, f.fault().Artifacts})
					if some := f.Flags()&wire.FlagEach != 0; some != (f.fault().Artifacts != nil) {
						t.Errorf("FlagEach is %t on an error of artifacts %v", some, f.fault().Artifacts)
					}
				}
				if diff := cmp.Diff(test.refused, told); diff != "" {
					t.Errorf("refused (-want +got):\n%s", diff)
				}
				if test.passes == nil {
					continue
				}
				if f := pub.expect(wire.KindAck, 2); f.Count() != len(test.passes) || (f.Sequence() != 0) != (topic == "orders.kept") {
					t.Errorf("acknowledged as %v of %d artifacts, want %d", f, f.Count(), len(test.passes))
				}
				if diff := cmp.Diff(test.passes, a.expect(wire.KindPublish, 1).payloads()); diff != "" {
					t.Errorf("delivered (-want +got):\n%s", diff)
				}
			}
			a.quiet()
			pub.quiet()
		})
	}
}

func TestWhatMayHaveBeenDeliveredIsNotDeliveredAgain(t *testing.T) {
	h := start(t, hub.WithHistory("kept", 10))
	a, pub := join(t, h, "a"), join(t, h, "pub")
	a.subscribe(1, ">", wire.Subscription{})
	pub.write(frame(wire.KindPublish, wire.FlagAck|wire.FlagAgain, 2, "live", "pub", "x"))
	if fault := pub.expectFault(wire.KindError, 2, wire.CodeUnknownFate); !strings.Contains(fault.Detail, "live") {
		t.Errorf("refused with %q, want the topic's name in it", fault.Detail)
	}
	pub.write(frame(wire.KindPublish, wire.FlagAck|wire.FlagAgain, 3, "kept", "pub", "x"))
	if f := pub.expect(wire.KindAck, 3); f.Sequence() != 1 {
		t.Errorf("acknowledged as %v, want sequence 1", f)
	}
	a.expectPayload(1, "x")
	a.quiet()
}
