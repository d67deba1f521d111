package wire

import (
	"bytes"
	"encoding/json"
	"testing"
)

func addGolden(f *testing.F) {
	f.Helper()
	for _, g := range goldenFrames() {
		f.Add([]byte(g.frame))
	}
}

func FuzzParseFrame(f *testing.F) {
	addGolden(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, err := ParseFrame(b)
		if err != nil {
			return
		}
		again := AppendFrame(nil, frame.Header(), frame.Target(), frame.From(), frame.Body())
		if !bytes.Equal(again, b) {
			t.Errorf("encoding what was parsed gives\n%x, not\n%x", again, b)
		}
	})
}

func FuzzReader(f *testing.F) {
	addGolden(f)
	_, all := stream()
	f.Add(all)
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 100_000
		r := NewReader(bytes.NewReader(b), limit)
		defer r.Close()
		for read := 0; ; {
			frame, err := r.Next()
			if err != nil {
				return
			}
			if len(frame) > limit || !bytes.Equal(frame, b[read:read+len(frame)]) {
				t.Fatalf("the frame at %d is not what was there", read)
			}
			read += len(frame)
		}
	})
}

func FuzzRun(f *testing.F) {
	for _, artifacts := range someRuns() {
		f.Add(encode(f, artifacts).Body(), len(artifacts))
	}
	f.Add(runOfNoAttributes(), 1)
	f.Fuzz(func(t *testing.T, body []byte, count int) {
		if CheckRun(body, count, DefaultMaxArtifact) != nil {
			return
		}
		artifacts := decode(t, body) // fails the test where CheckRun was wrong
		if len(artifacts) != count {
			t.Fatalf("CheckRun accepts %d artifacts, %d are decoded", count, len(artifacts))
		}
		var run Run
		for i := range artifacts {
			if err := run.Append(&artifacts[i], len(body)); err != nil {
				t.Fatalf("artifact %d can't be encoded again: %v", i, err)
			}
		}
		if diff := sameArtifacts(artifacts, decode(t, run.Body())); diff != "" {
			t.Errorf("encoded again (-want +got):\n%s", diff)
		}
		skip := count / 2
		rest, err := SkipRun(body, skip)
		if err != nil {
			t.Fatalf("SkipRun(%d) = %v", skip, err)
		}
		if diff := sameArtifacts(artifacts[skip:], decode(t, rest)); diff != "" {
			t.Errorf("after %d skipped (-want +got):\n%s", skip, diff)
		}
		var picked Run
		if err := picked.AppendPicked(body, func(place int) bool { return place >= skip }); err != nil {
			t.Fatalf("AppendPicked = %v", err)
		}
		if diff := sameArtifacts(artifacts[skip:], decode(t, picked.Body())); diff != "" {
			t.Errorf("picked behind %d (-want +got):\n%s", skip, diff)
		}
	})
}

func FuzzControl(f *testing.F) {
	addGolden(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, err := ParseFrame(b)
		if err != nil {
			return
		}
		for _, body := range []any{&Hello{}, &Welcome{}, &Subscription{}, &Subscribed{}, &Read{}, &Page{}, &Redirect{}} {
			if DecodeControl(frame, body) != nil {
				continue
			}
			if _, err := json.Marshal(body); err != nil {
				t.Errorf("%T can't be encoded again: %v", body, err)
			}
		}
		if gap, err := ParseGap(frame); err == nil {
			again := Frame(AppendGap(nil, frame.Ref(), gap.Topic, gap.From, gap.To))
			if got, err := ParseGap(again); err != nil || *got != *gap {
				t.Errorf("gap %+v becomes %+v, %v", gap, got, err)
			}
		}
	})
}

func FuzzFault(f *testing.F) {
	f.Add([]byte(`{"code":9,"detail":"too large","a":100,"b":10}`))
	f.Add([]byte(`{"code":13,"topic":"t","a":18446744073709551615}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		err := ParseFault(b).Err()
		if err == nil || err.Error() == "" {
			t.Error("a fault without an error")
		}
		if again := FaultOf(err, CodeMalformed).Err(); again.Error() != err.Error() {
			t.Errorf("%q becomes %q", err, again)
		}
	})
}
