package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTypedErrorsCrossTheWire(t *testing.T) {
	for _, want := range []error{
		&NoClientError{ID: "b"},
		&SessionReplacedError{ID: "b"},
		&HistoryGapError{Topic: "t", From: 3, To: 9},
		&ArtifactTooLargeError{Size: 100, Limit: 10},
		&ArtifactDiffersError{Topic: "t", Sequence: 3},
		&SlowClientError{ID: "b", Pending: 100, Limit: 10},
		&Error{Code: CodeUnavailable, Detail: "later"},
		&Error{Code: CodeOverloaded, Detail: "there", Elsewhere: []string{"b:7400", "c:7400"}},
	} {
		t.Run(fmt.Sprintf("%T", want), func(t *testing.T) {
			text, err := json.Marshal(FaultOf(fmt.Errorf("while doing something: %w", want), CodeInvalidRequest))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, ParseFault(text).Err()); diff != "" {
				t.Errorf("after the wire (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOtherErrorsBecomeTheFallback(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		want Code
	}{
		"unknown error":   {errors.New("boom"), CodeInvalidRequest},
		"frame too large": {fmt.Errorf("x: %w", ErrFrameTooLarge), CodeFrameTooLarge},
		"malformed frame": {fmt.Errorf("x: %w", ErrMalformed), CodeMalformed},
	} {
		if got := FaultOf(tt.err, CodeInvalidRequest); got.Code != tt.want || got.Detail != tt.err.Error() {
			t.Errorf("%s: FaultOf = %+v, want code %d with the error's text", name, got, tt.want)
		}
	}
}

func TestCodesFromOneHundredAreTemporary(t *testing.T) {
	if (&Error{Code: CodeRemoved}).Temporary() || !(&Error{Code: CodeUnavailable}).Temporary() {
		t.Error("Temporary does not follow the code's number")
	}
}

func TestFaultThatCantBeDecodedIsAFault(t *testing.T) {
	if got := ParseFault([]byte("{")); got.Code != CodeMalformed {
		t.Errorf("ParseFault = %+v, want code Malformed", got)
	}
}

// A gap has two causes, and the frame does not say which: its text is true of both.
func TestGapNamesBothCauses(t *testing.T) {
	gap := &HistoryGapError{Topic: "orders", From: 3, To: 9}
	want := `topic "orders": artifacts 3 to 9 are no longer kept, or this client may not read them`
	if got := gap.Error(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
