package strangers_test

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/switchboardhub/switchboard/hubnode/strangers"
)

// noted is a connection that knows whether it was ended.
type noted struct {
	net.Conn
	from  string
	ended bool
}

func (c *noted) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.from))
}

func (c *noted) Close() error {
	c.ended = true
	return nil
}

func TestOneMoreEndsTheOldestStranger(t *testing.T) {
	crowd := strangers.NewCrowd(3)
	var conns [6]*noted
	var places [6]*strangers.Place
	enter := func(i int) {
		conns[i] = new(noted)
		places[i] = crowd.Enter(conns[i])
	}
	for i := range 3 {
		enter(i)
	}
	places[0].Known()
	places[1].Leave()
	enter(3) // has the place of 1
	enter(4) // ends 2: 0 is known
	places[2].Leave()
	places[3].Known()
	places[4].Known()
	enter(5) // nobody is a stranger any more but itself
	for i, want := range [6]bool{2: true} {
		if conns[i].ended != want {
			t.Errorf("number %d was ended: %v, want %v", i, conns[i].ended, want)
		}
	}
	if n := crowd.Ended(); n != 1 {
		t.Errorf("%d were ended, want 1", n)
	}

	crowd.Close()
	for i, want := range [6]bool{true, false, true, true, true, true} {
		if conns[i].ended != want {
			t.Errorf("after Close number %d was ended: %v, want %v", i, conns[i].ended, want)
		}
	}
	late := new(noted)
	if crowd.Enter(late) != nil || !late.ended {
		t.Error("a closed crowd takes one more")
	}
}

func TestOneMoreFromAnAddressEndsTheOldestIdleFromThere(t *testing.T) {
	crowd := strangers.NewCrowdOf(4, 2)
	var conns []*noted
	var places []*strangers.Place
	enter := func(from string) {
		conns = append(conns, &noted{from: from})
		places = append(places, crowd.Enter(conns[len(conns)-1]))
	}
	expect := func(why string, ended ...int) {
		t.Helper()
		var got []int
		for i, c := range conns {
			if c.ended {
				got = append(got, i)
			}
		}
		if !slices.Equal(got, ended) {
			t.Errorf("%s: %v are ended, want %v", why, got, ended)
		}
	}
	enter("10.0.0.1:1") // 0
	enter("10.0.0.2:1") // 1
	enter("10.0.0.2:2") // 2
	places[1].Busy()
	enter("10.0.0.2:3") // 3
	expect("the older one is busy", 2)
	places[3].Busy()
	enter("10.0.0.2:4") // 4
	expect("all from there are busy", 1, 2)
	enter("10.0.0.3:1") // 5
	places[0].Busy()
	places[0].Idle()
	enter("10.0.0.4:1") // 6
	expect("the crowd is full, and 0 was busy last", 1, 2, 4)
	places[4].Idle()
	places[0].Leave()
	enter("10.0.0.5:1") // 7
	expect("one has left", 1, 2, 4)
}
