package hub

import (
	"reflect"
	"testing"

	"github.com/switchboardhub/switchboard/wire"
)

func FuzzFetched(f *testing.F) {
	some := &fetched{Fetched: wire.Fetched{Given: []wire.Work{{Range: wire.Range{From: 1, To: 3}, Deliveries: 2}}, Lost: []wire.Range{{From: 4, To: 5}}}, frames: []byte("frames")}
	b, err := some.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{0, 0, 0, 9, '{'})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decodeFetched(b)
		if err != nil {
			return
		}
		again, err := got.encode()
		if err != nil {
			t.Fatal(err)
		}
		if third, err := decodeFetched(again); err != nil || !reflect.DeepEqual(got.Given, third.Given) || string(got.frames) != string(third.frames) {
			t.Errorf("%+v became %+v, %v", got, third, err)
		}
	})
}

func TestSplitWork(t *testing.T) {
	given := []wire.Work{{Range: wire.Range{From: 2, To: 4}, Deliveries: 1}, {Range: wire.Range{From: 7, To: 9}, Deliveries: 2}}
	for at, want := range map[wire.Sequence]struct {
		kept []wire.Work
		rest []wire.Range
	}{
		0:  {nil, []wire.Range{{From: 2, To: 4}, {From: 7, To: 9}}},
		3:  {[]wire.Work{{Range: wire.Range{From: 2, To: 2}, Deliveries: 1}}, []wire.Range{{From: 3, To: 4}, {From: 7, To: 9}}},
		7:  {given[:1], []wire.Range{{From: 7, To: 9}}},
		10: {given, nil},
	} {
		if kept, rest := split(given, at); !reflect.DeepEqual(kept, want.kept) || !reflect.DeepEqual(rest, want.rest) {
			t.Errorf("at %d: got %v, %v", at, kept, rest)
		}
	}
}
