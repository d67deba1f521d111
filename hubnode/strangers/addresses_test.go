package strangers

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

func from(address string) net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address))
}

func TestOneAddressHasSoManyConnections(t *testing.T) {
	var a Addresses
	limits := PerAddress{Connections: 2}
	enter := func(address string) (func(), error) { return a.Enter(from(address), limits, time.Now()) }
	first, err := enter("10.0.0.1:1000")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := enter("10.0.0.1:1001"); err != nil {
		t.Fatal(err)
	}
	for _, same := range []string{"10.0.0.1:1002", "[::ffff:10.0.0.1]:1003"} {
		if _, err := enter(same); !errors.Is(err, ErrNumber) {
			t.Errorf("a third one from %s: %v", same, err)
		}
	}
	if _, err := enter("10.0.0.2:1000"); err != nil {
		t.Errorf("another address is refused: %v", err)
	}
	first()
	if _, err := enter("10.0.0.1:1004"); err != nil {
		t.Errorf("after one has ended: %v", err)
	}
	if n, _ := a.Refused(); n != 2 {
		t.Errorf("%d were refused, want 2", n)
	}

	for i, address := range []string{"[2001:db8::1]:1", "[2001:db8::2:0:0:1]:1", "[2001:db8::3]:1"} {
		if _, err := enter(address); (err != nil) != (i == 2) {
			t.Errorf("number %d from one network: %v", i+1, err)
		}
	}
	if _, err := enter("[2001:db8:0:1::1]:1"); err != nil {
		t.Errorf("another network is refused: %v", err)
	}
}

func TestOneAddressConnectsSoOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a Addresses
		enter := func() error {
			left, err := a.Enter(from("10.0.0.1:1"), PerAddress{ConnectionsPerSecond: 10}, time.Now())
			if err == nil {
				left() // that it has ended gives the address no new one
			}
			return err
		}
		for i := range 10 {
			if err := enter(); err != nil {
				t.Fatalf("number %d at once: %v", i+1, err)
			}
		}
		if err := enter(); !errors.Is(err, ErrRate) {
			t.Errorf("number 11 at once: %v", err)
		}
		time.Sleep(200 * time.Millisecond) // of the bubble
		for i := range 3 {
			if err := enter(); (err != nil) != (i == 2) {
				t.Errorf("number %d after 200 ms: %v", i+1, err)
			}
		}
		if _, n := a.Refused(); n != 2 {
			t.Errorf("%d were refused, want 2", n)
		}
	})
}

func TestAddressesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a Addresses
		for i := range 3 * addressesIdle {
			ip := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
			left, err := a.Enter(net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, 1)), PerAddress{ConnectionsPerSecond: 1}, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			left()
			time.Sleep(10 * time.Millisecond) // of the bubble
		}
		if n := len(a.known); n > addressesIdle {
			t.Errorf("%d addresses are remembered", n)
		}
	})
}

func TestWithoutLimitsNothingIsCounted(t *testing.T) {
	var a Addresses
	for range 100 {
		if _, err := a.Enter(from("10.0.0.1:1"), PerAddress{}, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if len(a.known) != 0 {
		t.Errorf("%d addresses are remembered", len(a.known))
	}
}
