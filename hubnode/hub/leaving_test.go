package hub_test

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/wire"
)

// visit is one session of a client, and what it was given.
type visit struct {
	conn  net.Conn
	heard chan struct{}    // closed once some artifacts came
	ended chan struct{}    // closed when the connection has ended
	got   map[string][]int // by route and publisher, in the order of arrival
	last  wire.Kind        // of the last frame
	errs  []error
}

func newVisit(conn net.Conn) *visit {
	v := &visit{conn: conn, heard: make(chan struct{}), ended: make(chan struct{}), got: make(map[string][]int)}
	go v.read() // ends with the connection
	return v
}

func (v *visit) read() {
	defer close(v.ended)
	r := wire.NewReader(v.conn, 1<<20)
	defer r.Close()
	for artifacts := 0; ; {
		f, err := r.Next()
		if err != nil {
			_ = v.conn.Close()
			return
		}
		if v.last == wire.KindGoodbye {
			v.errs = append(v.errs, fmt.Errorf("a frame of kind %d came behind the Goodbye", f.Kind()))
		}
		v.last = f.Kind()
		if f.Kind() != wire.KindSend && f.Kind() != wire.KindPublish {
			continue
		}
		for _, text := range (got{f}).payloads() {
			var publisher string
			var n int
			if _, err := fmt.Sscan(text, &publisher, &n); err != nil {
				v.errs = append(v.errs, err)
			}
			v.got[publisher] = append(v.got[publisher], n)
			if artifacts++; artifacts == 20 {
				close(v.heard)
			}
		}
	}
}

// A client that connects again is there all the time.
func TestSendingWhileAClientIsReplaced(t *testing.T) {
	h := start(t)
	arrive := func() {
		hubs, far := net.Pipe()
		v := newVisit(far)
		t.Cleanup(func() { <-v.ended })
		if err := h.RegisterClient("guest", hubs); err != nil {
			t.Fatal(err)
		}
	}
	arrive()
	done := make(chan struct{})
	var sending sync.WaitGroup
	for range 2 {
		sending.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if n, err := h.Route(t.Context(), &wire.Artifact{To: "guest", Payload: []byte("x 1")}); n != 1 || err != nil {
					t.Errorf("Route = %d, %v", n, err)
					return
				}
			}
		})
	}
	for range 300 {
		arrive()
	}
	close(done)
	sending.Wait()
	stop(t, h)
}

// What doc.go says of a client that goes away, under load: what Route counts as
// delivered is in the queue of one session, before its Goodbye, and comes; what
// it doesn't never comes; each session gets each publisher's in order. Time stands
// still while anybody has something to do, so that no client takes too long.
func TestGoingAwayUnderLoad(t *testing.T) { synctest.Test(t, testGoingAwayUnderLoad) }

func testGoingAwayUnderLoad(t *testing.T) {
	h := start(t, hub.WithSettings(hub.Settings{PendingBytes: 100_000, SlowClient: hub.DropNewest}))
	var (
		publishing sync.WaitGroup
		done       = make(chan struct{})
		mu         sync.Mutex // guards delivered
		delivered  = make(map[string][]int)
	)
	publish := func(name string, to wire.Artifact) {
		var taken []int
		for n := 0; ; n++ {
			select {
			case <-done:
				mu.Lock()
				delivered[name] = taken
				mu.Unlock()
				return
			default:
			}
			a := to
			a.Payload = fmt.Append(nil, name, " ", n)
			deliveries, err := h.Route(t.Context(), &a)
			var (
				none   *hub.NoClientError
				slow   *hub.SlowClientError
				missed *hub.UndeliveredError
			)
			switch {
			case deliveries == 1 && err == nil:
				taken = append(taken, n)
			case deliveries > 1, err != nil && !errors.As(err, &none) && !errors.As(err, &slow) && !errors.As(err, &missed):
				t.Errorf("%s: Route = %d, %v", name, deliveries, err)
			}
		}
	}
	for i := range 2 {
		publishing.Go(func() { publish(fmt.Sprint("direct-", i), wire.Artifact{To: "guest"}) })
		publishing.Go(func() { publish(fmt.Sprint("topic-", i), wire.Artifact{Topic: "t"}) })
	}
	var visits []*visit
	for i := range 60 {
		hubs, far := net.Pipe()
		v := newVisit(far)
		visits = append(visits, v)
		if err := h.RegisterClient("guest", hubs); err != nil { // replaces the one before, or doesn't
			t.Fatal(err)
		}
		if err := h.Subscribe("guest", "t"); err != nil {
			t.Fatal(err)
		}
		<-v.heard
		if i%2 == 1 {
			if err := h.UnregisterClient("guest"); err != nil {
				t.Error(err)
			}
		}
	}
	close(done)
	publishing.Wait()
	stop(t, h)

	got := make(map[string][]int)
	for i, v := range visits {
		<-v.ended
		if v.last != wire.KindGoodbye || len(v.errs) > 0 {
			t.Errorf("visit %d ended with a frame of kind %d, want Goodbye; %v", i, v.last, v.errs)
		}
		for publisher, numbers := range v.got {
			if !slices.IsSorted(numbers) {
				t.Errorf("visit %d: %s came out of order", i, publisher)
			}
			got[publisher] = append(got[publisher], numbers...)
		}
	}
	for publisher, want := range delivered {
		slices.Sort(got[publisher]) // a session may still read while the next one does
		if !slices.Equal(got[publisher], want) {
			t.Errorf("%s: %d artifacts came, %d were delivered", publisher, len(got[publisher]), len(want))
		}
	}
}
