package wire

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFrameRoundTrip(t *testing.T) {
	for name, tt := range map[string]struct {
		h            Header
		target, from string
		body         []byte
	}{
		"empty control frame":   {h: Header{Kind: KindPing}},
		"everything set":        {h: Header{Kind: KindPublish, Flags: FlagAck | FlagHop, Count: 3, Sequence: 1 << 40, Ref: 7}, target: "orders.new", from: "agent-7", body: []byte("run")},
		"largest fixed fields":  {h: Header{Kind: 255, Flags: 255, Count: MaxCount, Sequence: 1<<64 - 1, Ref: 1<<32 - 1}},
		"body without a route":  {h: Header{Kind: KindWelcome}, body: []byte("{}")},
		"route without a body":  {h: Header{Kind: KindSubscribe, Ref: 1}, target: ">"},
		"longest target fields": {h: Header{Kind: KindSend}, target: strings.Repeat("t", 1<<16-1), from: strings.Repeat("f", 1<<16-1)},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := ParseFrame(AppendFrame(nil, tt.h, tt.target, tt.from, tt.body))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.h, f.Header()); diff != "" {
				t.Errorf("header differs (-want +got):\n%s", diff)
			}
			if got := string(f.Target()); got != tt.target {
				t.Errorf("target = %.20q, want %.20q", got, tt.target)
			}
			if got := string(f.From()); got != tt.from {
				t.Errorf("from = %.20q, want %.20q", got, tt.from)
			}
			if !bytes.Equal(f.Body(), tt.body) {
				t.Errorf("body = %q, want %q", f.Body(), tt.body)
			}
		})
	}
}

func TestParseFrameRefusesLengthsThatContradictEachOther(t *testing.T) {
	good := AppendFrame(nil, Header{Kind: KindSend}, "target", "from", []byte("body"))
	for name, spoil := range map[string]func([]byte) []byte{
		"nothing":                  func([]byte) []byte { return nil },
		"part of a header":         func(b []byte) []byte { return b[:HeaderSize-1] },
		"length above what is":     func(b []byte) []byte { b[3]++; return b },
		"length below what is":     func(b []byte) []byte { b[3]--; return b },
		"target beyond the frame":  func(b []byte) []byte { b[20] = 0xff; return b },
		"from beyond the frame":    func(b []byte) []byte { b[22] = 0xff; return b },
		"both just beyond the end": func(b []byte) []byte { b[21] += 5; return b },
	} {
		t.Run(name, func(t *testing.T) {
			if f, err := ParseFrame(spoil(bytes.Clone(good))); !errors.Is(err, ErrMalformed) {
				t.Errorf("ParseFrame = %v, %v; want ErrMalformed", f, err)
			}
		})
	}
}

func TestStampChangesOnlyWhatDiffersBetweenReceivers(t *testing.T) {
	f := Frame(AppendFrame(nil, Header{Kind: KindPublish, Flags: FlagAck, Count: 2, Ref: 1}, "t", "c", []byte("body")))
	f.Stamp(KindStore, FlagHop, 42, 9)
	want := Frame(AppendFrame(nil, Header{Kind: KindStore, Flags: FlagHop, Count: 2, Sequence: 42, Ref: 9}, "t", "c", []byte("body")))
	if !bytes.Equal(f, want) {
		t.Errorf("stamped frame is\n%x, want\n%x", f, want)
	}
}

func TestCheckClientID(t *testing.T) {
	for id, want := range map[string]string{
		"agent-7":                          "",
		"a":                                "",
		"ünïcode/with:all@kinds_of.mark":   "",
		strings.Repeat("x", MaxClientID):   "",
		"":                                 "nothing there at byte 0",
		strings.Repeat("x", MaxClientID+1): "longer than 128 bytes",
		"$hub.clients":                     "reserved for the hub at byte 0",
		"a b":                              "white space at byte 1",
		"a\x00":                            "control character at byte 1",
		"ab\xff":                           "not UTF-8 at byte 2",
	} {
		err := CheckClientID(id)
		var coded *Error
		switch {
		case want == "" && err != nil:
			t.Errorf("CheckClientID(%.20q) = %v, want nil", id, err)
		case want != "" && (!errors.As(err, &coded) || coded.Code != CodeInvalidClientID || !strings.Contains(coded.Detail, want)):
			t.Errorf("CheckClientID(%.20q) = %v, want one that says %q", id, err, want)
		}
	}
}

func TestCheckGroup(t *testing.T) {
	for name, want := range map[string]string{
		"workers":                       "",
		"$any":                          "",
		strings.Repeat("x", MaxGroup):   "",
		"":                              "nothing there at byte 0",
		strings.Repeat("x", MaxGroup+1): "longer than 128 bytes at byte 128",
		"night shift":                   "white space at byte 5",
		"a\x00b":                        "control character at byte 1",
	} {
		err := CheckGroup(name)
		var coded *Error
		switch {
		case want == "" && err != nil:
			t.Errorf("CheckGroup(%.20q) = %v, want nil", name, err)
		case want != "" && (!errors.As(err, &coded) || coded.Code != CodeInvalidRequest || !strings.Contains(coded.Detail, want)):
			t.Errorf("CheckGroup(%.20q) = %v, want one that says %q", name, err, want)
		}
	}
}

func TestNegotiateVersion(t *testing.T) {
	for name, tt := range map[string]struct {
		minimum, maximum int
		ok               bool
	}{
		"only this version":        {Version, Version, true},
		"a range around it":        {Version - 1, Version + 5, true},
		"only later versions":      {Version + 1, Version + 2, false},
		"only versions before":     {0, Version - 1, false},
		"nothing said":             {0, 0, false},
		"a range that is reversed": {Version + 1, Version - 1, false},
	} {
		got, err := NegotiateVersion(tt.minimum, tt.maximum)
		var coded *Error
		if tt.ok && (got != Version || err != nil) {
			t.Errorf("%s: NegotiateVersion = %d, %v; want %d", name, got, err, Version)
		}
		if !tt.ok && (!errors.As(err, &coded) || coded.Code != CodeUnsupportedVersion) {
			t.Errorf("%s: NegotiateVersion = %d, %v; want code UnsupportedVersion", name, got, err)
		}
	}
}

func TestErrorsOfJSONRepeatNothingOfIt(t *testing.T) {
	for body, want := range map[string]string{
		`{"token":123456789012}`:            "cannot unmarshal number into Go struct field Hello.token of type string",
		`{"epoch":-123456789012}`:           "cannot unmarshal number into Go struct field Hello.epoch of type uint64",
		`{"epoch":"123456789012"}`:          "cannot unmarshal string into Go struct field Hello.epoch of type uint64",
		`{"labels":{"123456789012":1e400}}`: "cannot unmarshal number into Go struct field Hello.labels of type string",
		`{"token":["123456789012"]}`:        "cannot unmarshal array",
		`{"token":"123456789012`:            "unexpected end",
		`123456789012`:                      "cannot unmarshal number",
	} {
		var hello Hello
		err := DecodeJSON([]byte(body), &hello)
		if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "1234") {
			t.Errorf("%s: %v, want one that says %q", body, err, want)
		}
	}
}
