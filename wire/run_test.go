package wire

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	someID   = ID{0: 0xa1, 15: 0xfe}
	someTime = time.Unix(1_700_000_000, 123_456_789)
)

// someRuns are runs that use each part of the encoding.
func someRuns() map[string][]Artifact {
	attributes := make(map[string]string, MaxAttributes)
	for i := range MaxAttributes {
		attributes[fmt.Sprintf("key-%d", i)] = strings.Repeat("v", i)
	}
	return map[string][]Artifact{
		"one plain artifact":           {{ID: someID, Time: someTime, Payload: []byte("hello")}},
		"nothing but id and time":      {{ID: someID, Time: someTime}},
		"content type and attributes":  {{ID: someID, Time: someTime, ContentType: "application/json", Attributes: map[string]string{"b": "2", "a": ""}, Payload: []byte("{}")}},
		"as many attributes as may be": {{ID: someID, Time: someTime, Attributes: attributes}},
		"ids that follow, equal times": {
			{ID: someID, Time: someTime, Payload: []byte("1")},
			{ID: someID.Next(), Time: someTime, Payload: []byte("2")},
			{ID: someID.Next().Next(), Time: someTime, Payload: []byte("3")}, // carries into the next byte
		},
		"ids and times that jump": {
			{ID: someID, Time: someTime, Payload: []byte("1")},
			{ID: ID{1}, Time: someTime.Add(-time.Hour), ContentType: "text/plain"},
			{ID: ID{0: 1, 15: 1}, Time: someTime.Add(-time.Hour), Payload: bytes.Repeat([]byte("x"), 300)},
		},
		"a time before 1970": {{ID: someID, Time: time.Unix(-5, 0)}},
	}
}

func encode(tb testing.TB, artifacts []Artifact) *Run {
	tb.Helper()
	var run Run
	for i := range artifacts {
		if err := run.Append(&artifacts[i], DefaultMaxArtifact); err != nil {
			tb.Fatal(err)
		}
	}
	return &run
}

func decode(tb testing.TB, body []byte) []Artifact {
	tb.Helper()
	var all []Artifact
	for r := NewRunReader(body); ; {
		var a Artifact
		ok, err := r.Next(&a)
		if err != nil {
			tb.Fatal(err)
		}
		if !ok {
			return all
		}
		all = append(all, a)
	}
}

// sameArtifacts compares what a run carries.
func sameArtifacts(want, got []Artifact) string {
	return cmp.Diff(want, got, cmp.Transformer("text", func(b []byte) string { return string(b) }), cmp.Comparer(time.Time.Equal))
}

func TestRunRoundTrip(t *testing.T) {
	for name, artifacts := range someRuns() {
		t.Run(name, func(t *testing.T) {
			run := encode(t, artifacts)
			if run.Count() != len(artifacts) {
				t.Errorf("Count = %d, want %d", run.Count(), len(artifacts))
			}
			if diff := sameArtifacts(artifacts, decode(t, run.Body())); diff != "" {
				t.Errorf("decoded run differs (-want +got):\n%s", diff)
			}
			if err := CheckRun(run.Body(), len(artifacts), DefaultMaxArtifact); err != nil {
				t.Errorf("CheckRun = %v", err)
			}
		})
	}
}

// runOfNoAttributes is a run of one artifact that is flagged to have attributes
// and then has none, as no client of ours writes it.
func runOfNoAttributes() []byte {
	content := append([]byte{0}, "hello"...) // a count of 0, then the payload
	body := []byte{artifactID | artifactTime | artifactAttributes, byte(len(someID) + 8 + len(content))}
	body = append(body, someID[:]...)
	body = append(body, 0, 0, 0, 0, 0, 0, 0, 1)
	return append(body, content...)
}

func TestNoAttributesAreNil(t *testing.T) {
	body := runOfNoAttributes()
	if err := CheckRun(body, 1, DefaultMaxArtifact); err != nil {
		t.Fatal(err)
	}
	got := decode(t, body)
	want := []Artifact{{ID: someID, Time: time.Unix(0, 1), Payload: []byte("hello")}}
	if diff := sameArtifacts(want, got); diff != "" {
		t.Errorf("decoded (-want +got):\n%s", diff)
	}
}

func TestArtifactThatFollowsCostsTwoBytes(t *testing.T) {
	run := encode(t, []Artifact{{ID: someID, Time: someTime, Payload: make([]byte, 16)}})
	before := len(run.Body())
	if err := run.Append(&Artifact{ID: someID.Next(), Time: someTime, Payload: make([]byte, 16)}, 100); err != nil {
		t.Fatal(err)
	}
	if got := len(run.Body()) - before - 16; got != 2 {
		t.Errorf("the second artifact costs %d bytes beyond its payload, want 2", got)
	}
}

func TestRunRefusesWhatIsOverALimit(t *testing.T) {
	many := make(map[string]string)
	for i := range MaxAttributes + 1 {
		many[fmt.Sprint(i)] = ""
	}
	var large *ArtifactTooLargeError
	var coded *Error
	for name, tt := range map[string]struct {
		a    Artifact
		kind any
	}{
		"payload over the artifact limit":    {Artifact{Payload: make([]byte, 101)}, &large},
		"content type counts to the limit":   {Artifact{ContentType: "text/plain", Payload: make([]byte, 95)}, &large},
		"attributes count to the limit":      {Artifact{Attributes: map[string]string{"key": "value"}, Payload: make([]byte, 95)}, &large},
		"content type over its own limit":    {Artifact{ContentType: strings.Repeat("x", MaxContentType+1)}, &coded},
		"too many attributes":                {Artifact{Attributes: many}, &coded},
		"attribute with an empty key":        {Artifact{Attributes: map[string]string{"": "v"}}, &coded},
		"attribute key over its own limit":   {Artifact{Attributes: map[string]string{strings.Repeat("k", MaxAttributeKey+1): ""}}, &coded},
		"attribute value over its own limit": {Artifact{Attributes: map[string]string{"k": strings.Repeat("v", MaxAttributeValue+1)}}, &coded},
	} {
		t.Run(name, func(t *testing.T) {
			run := encode(t, []Artifact{{ID: someID, Time: someTime}})
			before := bytes.Clone(run.Body())
			if err := run.Append(&tt.a, 100); !errors.As(err, tt.kind) {
				t.Errorf("Append = %v, want %T", err, tt.kind)
			}
			if !bytes.Equal(run.Body(), before) || run.Count() != 1 {
				t.Error("the refused artifact changed the run")
			}
		})
	}
}

func TestRunTakesAtMostMaxCount(t *testing.T) {
	var run Run
	a := Artifact{ID: someID, Time: someTime}
	for range MaxCount {
		if err := run.Append(&a, 100); err != nil {
			t.Fatal(err)
		}
		a.ID = a.ID.Next()
	}
	var coded *Error
	if err := run.Append(&a, 100); !errors.As(err, &coded) {
		t.Errorf("Append of one more = %v, want an Error", err)
	}
	run.Reset()
	if err := run.Append(&a, 100); err != nil || run.Count() != 1 {
		t.Errorf("after Reset: Append = %v, Count = %d", err, run.Count())
	}
}

func TestCheckRunRefuses(t *testing.T) {
	two := encode(t, []Artifact{
		{ID: someID, Time: someTime, ContentType: "text/plain", Attributes: map[string]string{"k": "v"}, Payload: []byte("one")},
		{ID: someID.Next(), Time: someTime, Payload: make([]byte, 50)},
	}).Body()
	for name, tt := range map[string]struct {
		body         []byte
		count, limit int
		want         error
	}{
		"fewer than the header says":  {two, 3, 100, ErrMalformed},
		"more than the header says":   {two, 1, 100, ErrMalformed},
		"an empty run":                {nil, 0, 100, ErrMalformed},
		"a cut run":                   {two[:len(two)-1], 2, 100, ErrMalformed},
		"unknown artifact flags":      {[]byte{0x80, 0}, 1, 100, ErrMalformed},
		"first artifact without id":   {[]byte{artifactTime, 8, 0, 0, 0, 0, 0, 0, 0, 0}, 1, 100, ErrMalformed},
		"first artifact without time": {append([]byte{artifactID, 16}, make([]byte, 16)...), 1, 100, ErrMalformed},
		"an id that is cut":           {[]byte{artifactID, 1, 0}, 1, 100, ErrMalformed},
		"a size that never ends":      {bytes.Repeat([]byte{0xff}, 20), 1, 100, ErrMalformed},
		"attributes without end":      {append(append([]byte{artifactID | artifactTime | artifactAttributes, 26}, make([]byte, 24)...), 1, 9), 1, 100, ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			if err := CheckRun(tt.body, tt.count, tt.limit); !errors.Is(err, tt.want) {
				t.Errorf("CheckRun = %v, want %v", err, tt.want)
			}
		})
	}
	var large *ArtifactTooLargeError
	if err := CheckRun(two, 2, 49); !errors.As(err, &large) || large.Size != 50 || large.Limit != 49 {
		t.Errorf("CheckRun with a limit of 49 = %v, want ArtifactTooLargeError{50, 49}", err)
	}
}

func TestSkipRunStandsAlone(t *testing.T) {
	for name, artifacts := range someRuns() {
		body := encode(t, artifacts).Body()
		for skip := range artifacts {
			rest, err := SkipRun(body, skip)
			if err != nil {
				t.Fatalf("%s: SkipRun(%d) = %v", name, skip, err)
			}
			if diff := sameArtifacts(artifacts[skip:], decode(t, rest)); diff != "" {
				t.Errorf("%s: after %d skipped (-want +got):\n%s", name, skip, diff)
			}
		}
		if rest, err := SkipRun(body, len(artifacts)); len(rest) != 0 || err != nil {
			t.Errorf("%s: SkipRun of all = %x, %v; want nothing", name, rest, err)
		}
	}
}

func TestPickedArtifactsAreThoseOfTheRun(t *testing.T) {
	for name, artifacts := range someRuns() {
		t.Run(name, func(t *testing.T) {
			body := encode(t, artifacts).Body()
			for set := range 1 << len(artifacts) {
				pick := func(place int) bool { return set>>place&1 == 1 }
				var want []Artifact
				for i := range artifacts {
					if pick(i) {
						want = append(want, artifacts[i])
					}
				}
				var picked Run
				if err := picked.AppendPicked(body, pick); err != nil {
					t.Fatal(err)
				}
				if diff := sameArtifacts(want, decode(t, picked.Body())); diff != "" || picked.Count() != len(want) {
					t.Errorf("picked %b: %d artifacts, differ (-want +got):\n%s", set, picked.Count(), diff)
				}
				if again := encode(t, want).Body(); !bytes.Equal(picked.Body(), again) {
					t.Errorf("picked %b: encoded in %d bytes, anew in %d", set, len(picked.Body()), len(again))
				}
			}
		})
	}
	var picked Run
	if err := picked.AppendPicked([]byte{0xff, 0}, func(int) bool { return true }); !errors.Is(err, ErrMalformed) {
		t.Errorf("AppendPicked of a malformed run = %v, want ErrMalformed", err)
	}
}

func TestPeekFindsOneAttributeAndStays(t *testing.T) {
	artifacts := []Artifact{
		{ID: someID, Time: someTime, Attributes: map[string]string{"key": "one", "a": "b", "z": ""}, Payload: []byte("1")},
		{ID: someID.Next(), Time: someTime, Attributes: map[string]string{"a": "key", "key": ""}, ContentType: "text/plain"},
		{ID: someID, Time: someTime, Attributes: map[string]string{"keys": "x"}},
		{ID: someID, Time: someTime, Payload: []byte("key")},
	}
	r := NewRunReader(encode(t, artifacts).Body())
	for i, a := range artifacts {
		value, err := r.Peek("key")
		if err != nil {
			t.Fatal(err)
		}
		if want, ok := a.Attributes["key"]; string(value) != want || (value != nil) != ok {
			t.Errorf("Peek found %q (nil: %v), want %q, %v", value, value == nil, want, ok)
		}
		var one Run
		if more, err := one.AppendNext(&r); !more || err != nil {
			t.Fatalf("AppendNext = %v, %v", more, err)
		}
		if diff := sameArtifacts(artifacts[i:i+1], decode(t, one.Body())); diff != "" {
			t.Errorf("artifact %d alone (-want +got):\n%s", i, diff)
		}
	}
	var none Run
	if more, err := none.AppendNext(&r); more || err != nil {
		t.Errorf("AppendNext at the end = %v, %v", more, err)
	}
	if value, err := r.Peek("key"); value != nil || err != nil {
		t.Errorf("Peek at the end = %q, %v", value, err)
	}
	r = NewRunReader([]byte{0xff, 0})
	if _, err := r.Peek("key"); !errors.Is(err, ErrMalformed) {
		t.Errorf("Peek into a malformed run = %v, want ErrMalformed", err)
	}
	if _, err := none.AppendNext(&r); !errors.Is(err, ErrMalformed) || none.Count() != 0 {
		t.Errorf("AppendNext of a malformed run = %v with %d artifacts, want ErrMalformed, 0", err, none.Count())
	}
}

func TestIDsFollowEachOtherAndSourcesDiffer(t *testing.T) {
	var a, b IDs
	first := a.Next()
	if second := a.Next(); second != first.Next() {
		t.Errorf("ids of one source are %s and %s, want the second to follow", first, second)
	}
	if other := b.Next(); bytes.Equal(other[:8], first[:8]) {
		t.Errorf("two sources share the prefix of %s", other)
	}
}

func BenchmarkRunAppend(b *testing.B) {
	for _, size := range []int{16, 128, 1024} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			var run Run
			a := Artifact{ID: someID, Time: someTime, Payload: make([]byte, size)}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if len(run.Body()) > RunSize {
					run.Reset()
				}
				a.ID = a.ID.Next()
				if err := run.Append(&a, DefaultMaxArtifact); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// benchmarkRun is a run of n artifacts of 128 bytes.
func benchmarkRun(b *testing.B, n int) []byte {
	b.Helper()
	var run Run
	a := Artifact{ID: someID, Time: someTime, Payload: make([]byte, 128)}
	for range n {
		if err := run.Append(&a, DefaultMaxArtifact); err != nil {
			b.Fatal(err)
		}
		a.ID = a.ID.Next()
	}
	return run.Body()
}

func BenchmarkCheckRun(b *testing.B) {
	const n = 400
	body := benchmarkRun(b, n)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if err := CheckRun(body, n, DefaultMaxArtifact); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/artifact")
}

func BenchmarkRunReader(b *testing.B) {
	const n = 400
	body := benchmarkRun(b, n)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	var a Artifact
	for b.Loop() {
		r := NewRunReader(body)
		for {
			if ok, err := r.Next(&a); err != nil {
				b.Fatal(err)
			} else if !ok {
				break
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/artifact")
}
