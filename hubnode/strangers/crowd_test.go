package strangers_test

import (
	"net"
	"testing"

	"github.com/switchboardhub/switchboard/hubnode/strangers"
)

// noted is a connection that knows whether it was ended.
type noted struct {
	net.Conn
	ended bool
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
