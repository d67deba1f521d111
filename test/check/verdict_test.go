package check

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestJudge(t *testing.T) {
	const a, r, u = Acknowledged, Refused, Unknown
	for name, test := range map[string]struct {
		sent     []Outcome
		received []uint64
		want     Verdict
		fault    string // of Err; empty: none
	}{
		"all is well":                       {[]Outcome{a, a, a}, []uint64{0, 1, 2}, Verdict{Sent: 3, Acknowledged: 3, Received: 3}, ""},
		"what is unknown may come":          {[]Outcome{a, u, a}, []uint64{0, 1, 2}, Verdict{Sent: 3, Acknowledged: 2, Unknown: 1, Received: 3}, ""},
		"or not":                            {[]Outcome{a, u, a}, []uint64{0, 2}, Verdict{Sent: 3, Acknowledged: 2, Unknown: 1, Received: 2}, ""},
		"what is refused need not come":     {[]Outcome{a, r}, []uint64{0}, Verdict{Sent: 2, Acknowledged: 1, Received: 1}, ""},
		"one is lost":                       {[]Outcome{a, a, a}, []uint64{0, 2}, Verdict{Sent: 3, Acknowledged: 3, Received: 2, Lost: 1, First: Firsts{Lost: "x → y: number 1 was acknowledged and never came"}}, "1 lost, 0 allowed"},
		"one is doubled":                    {[]Outcome{a, a}, []uint64{0, 1, 1}, Verdict{Sent: 2, Acknowledged: 2, Received: 3, Doubled: 1, First: Firsts{Doubled: "x → y: number 1 came twice"}}, "1 doubled"},
		"one that is doubled is not late":   {[]Outcome{a, a}, []uint64{0, 1, 0}, Verdict{Sent: 2, Acknowledged: 2, Received: 3, Doubled: 1, First: Firsts{Doubled: "x → y: number 0 came twice"}}, "1 doubled"},
		"one is late":                       {[]Outcome{a, a, a}, []uint64{0, 2, 1}, Verdict{Sent: 3, Acknowledged: 3, Received: 3, OutOfOrder: 1, First: Firsts{OutOfOrder: "x → y: number 1 came after 2"}}, "1 out of order"},
		"one that was refused comes":        {[]Outcome{a, r}, []uint64{0, 1}, Verdict{Sent: 2, Acknowledged: 1, Received: 2, Invented: 1, First: Firsts{Invented: "x → y: number 1 came, and was refused or never sent"}}, "1 invented"},
		"one that was never sent comes":     {[]Outcome{a}, []uint64{0, 7}, Verdict{Sent: 1, Acknowledged: 1, Received: 2, Invented: 1, First: Firsts{Invented: "x → y: number 7 came, and was refused or never sent"}}, "1 invented"},
		"nothing at all is not a good sign": {nil, nil, Verdict{}, "nothing was delivered"},
	} {
		t.Run(name, func(t *testing.T) {
			got := Judge(map[Route]*Record{{"x", "y"}: {Sent: test.sent, Received: test.received}}, nil)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("verdict (-want +got):\n%s", diff)
			}
			err := got.Err(Allowed{})
			if (err == nil) != (test.fault == "") || (err != nil && !strings.Contains(err.Error(), test.fault)) {
				t.Errorf("Err = %v, want %q", err, test.fault)
			}
		})
	}
}

func TestJudgeMisdelivery(t *testing.T) {
	fine := map[Route]*Record{{"x", "y"}: {Sent: []Outcome{Acknowledged}, Received: []uint64{0}}}
	v := Judge(fine, []Misdelivery{{Route{"x", "y"}, 3, "z"}})
	if v.Misdelivered != 1 || v.First.Misdelivered != "x → y: number 3 came to z" || v.Err(Allowed{}) == nil {
		t.Errorf("%+v, %v", v, v.Err(Allowed{}))
	}
}

func TestLossMayBeAllowed(t *testing.T) {
	v := Judge(map[Route]*Record{{"x", "y"}: {Sent: []Outcome{Acknowledged, Acknowledged}, Received: []uint64{1}}}, nil)
	if v.Err(Allowed{Lost: 1}) != nil || v.Err(Allowed{}) == nil {
		t.Errorf("%+v: %v, %v", v, v.Err(Allowed{Lost: 1}), v.Err(Allowed{}))
	}
}
