package hub_test

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/wire"
)

// These are about artifacts of one client to another while one of them, or both, move:
// each test makes one way slow, and the newer artifact has every chance to come first.

// inOrder checks what comes next, until the last ref.
func (g *guest) inOrder(from, last uint32) {
	g.t.Helper()
	for ref := from; ref <= last; ref++ {
		g.expect(wire.KindSend, ref)
	}
}

// bothAcknowledged checks that the first two are, in whichever order.
func (p *peer) bothAcknowledged() {
	p.t.Helper()
	first, second := p.next(), p.next()
	for _, f := range []got{first, second} {
		if f.Kind() != wire.KindAck || f.Ref() != 1 && f.Ref() != 2 {
			p.t.Errorf("got %v, want an acknowledgement", f)
		}
	}
	if first.Ref() == second.Ref() {
		p.t.Errorf("got %v twice", first)
	}
}

// onceGiven calls f when c is about to say that it gives the session of "to".
func (r *roads) onceGiven(f func()) {
	var once sync.Once
	r.onAnswer(func(node, question string) {
		if node == "c" && question == "session.take" {
			once.Do(f)
		}
	})
}

// sentLate lets from send its first one when c is about to say that it gives the session,
// by a way from a to c that is slow until it is freed.
func (r *roads) sentLate(from *peer) (free func()) {
	slow := func() {}
	r.onceGiven(func() {
		_, slow = r.block("a", "c")
		from.send(1)
		from.quiet()
	})
	return func() { slow() }
}

// refuse makes a node refuse a question as often.
func (r *roads) refuse(times int, node, question string, code wire.Code) {
	r.onQuestionRefuse(func(by, asked string) error {
		if by != node || asked != question || times == 0 {
			return nil
		}
		times--
		return &wire.Error{Code: code, Detail: "the test refuses this"}
	})
}

// onceAsked calls f when a node is asked a question.
func (r *roads) onceAsked(node, question string, f func()) {
	var once sync.Once
	r.onQuestion(func(to, asked string) {
		if to == node && asked == question {
			once.Do(f)
		}
	})
}

// The receiver has moved, and what is for it waits on the sender's node until that is
// known to be in order. Then the sender moves as well.
func TestWhatWaitsForAClientThatMovedIsNotOvertakenByItsSender(t *testing.T) {
	r := newRoads(t, "a", "b", "c")
	from := r.visitAs("from", "a", hub.Resume{})
	to := r.visit("c", hub.Resume{})
	r.knows("a", "c")
	free := func() {}
	r.onceGiven(func() { _, free = r.block("b", "c") }) // so a goes on waiting
	to = r.visit("b", to.resume)
	r.knows("a", "b")
	from.send(1)
	from.quiet()

	from = r.visitAs("from", "b", from.resume)
	from.send(2)
	to.inOrder(1, 2)
	free()
	from.bothAcknowledged()
}

// What the receiver's old node passes on is still on its way when the sender moves to
// where the receiver is.
func TestWhatIsPassedOnIsNotOvertakenByItsSender(t *testing.T) {
	r := newRoads(t, "a", "b", "c")
	from := r.visitAs("from", "a", hub.Resume{})
	to := r.visit("c", hub.Resume{})
	r.knows("a", "c")
	late := r.sentLate(from.peer)
	to = r.visit("b", to.resume)
	passed, free := r.block("c", "b")
	late()
	<-passed

	r.onceAsked("c", "link.settled", free)
	from = r.visitAs("from", "b", from.resume)
	from.send(2)
	to.inOrder(1, 2)
	from.bothAcknowledged()
}

// The receiver moves twice while something is on its way to where it was first.
func TestWhatIsOnItsWayIsNotOvertakenWhenItsReceiverMovesTwice(t *testing.T) {
	r := newRoads(t, "a", "b", "c", "d")
	from := join(t, r.nodes["a"].Hub, "from")
	to := r.visit("c", hub.Resume{})
	r.knows("a", "c")
	late := r.sentLate(from)
	to = r.visit("b", to.resume)
	r.knows("a", "b")

	r.onceAsked("a", "link.settled", late)
	to = r.visit("d", to.resume)
	_, free := r.block("b", "d")
	late()
	from.send(2)
	to.inOrder(1, 1)
	free()
	to.inOrder(2, 2)
	from.bothAcknowledged()
}

// The receiver moves and comes back while something is on its way to where it is again.
func TestWhatIsOnItsWayIsNotOvertakenWhenItsReceiverComesBack(t *testing.T) {
	r := newRoads(t, "a", "b", "c")
	from := join(t, r.nodes["a"].Hub, "from")
	to := r.visit("c", hub.Resume{})
	r.knows("a", "c")
	late := r.sentLate(from)
	to = r.visit("b", to.resume)
	r.knows("a", "b")
	from.send(2)
	from.quiet()

	r.onceAsked("a", "link.settled", late)
	to = r.visit("c", to.resume)
	to.inOrder(1, 2)
	from.bothAcknowledged()
}

// A node that gave the session away passes on at once what still comes, though it may
// have heard of an older move only now.
func TestTheNodeThatGaveASessionHoldsNothingBack(t *testing.T) {
	r := newRoads(t, "a", "b", "c", "d")
	from := join(t, r.nodes["d"].Hub, "from")
	to := r.visit("c", r.visit("a", hub.Resume{}).resume)
	r.knows("d", "c")
	eventually(t, "c has heard that the client left a", func() bool {
		_, ok := r.locate(r.nodes["c"], "to")
		return !ok
	})
	late := func() {}
	r.onceGiven(func() {
		r.block("a", "b")
		_, late = r.block("d", "c")
		from.send(1)
		from.quiet()
	})
	to = r.visit("b", to.resume)
	r.knows("d", "b")
	r.knows("c", "b")
	late()
	from.send(2)
	to.inOrder(1, 2)
	from.bothAcknowledged()
}

// A slow way is waited for as long as it takes, also where a node has no room for the
// question whether it is free.
func TestASlowWayIsNotOvertaken(t *testing.T) {
	for name, refusals := range map[string]int{"": 0, "the question is refused for now": 3} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRoads(t, "a", "b", "c")
				from := join(t, r.nodes["a"].Hub, "from")
				to := r.visit("c", hub.Resume{})
				r.knows("a", "c")
				late := r.sentLate(from)
				to = r.visit("b", to.resume)
				r.knows("a", "b")
				_, free := r.block("c", "b")
				r.refuse(refusals, "c", "link.passed", wire.CodeOverloaded)
				late()
				from.send(2)
				time.Sleep(time.Minute)
				free()
				to.inOrder(1, 2)
				from.bothAcknowledged()
			})
		})
	}
}

// A session is given only when all that its client sent is where it belongs. Until then
// the client is told to try again.
func TestASessionIsNotGivenBeforeWhatItsClientSentHasArrived(t *testing.T) {
	for name, refusals := range map[string]int{"": 0, "to a node of the version before": 1000} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRoads(t, "a", "b", "c")
				from := r.visitAs("from", "a", hub.Resume{})
				to := r.visit("c", hub.Resume{})
				r.knows("a", "c")
				r.refuse(refusals, "c", "link.settled", wire.CodeInvalidRequest)
				_, free := r.block("a", "c")
				from.send(1)
				from.quiet()
				for range 2 {
					_, err := r.tryVisit("from", "b", from.resume)
					var refused *wire.Error
					if !errors.As(err, &refused) || refused.Code != wire.CodeUnavailable {
						t.Fatalf("RegisterClient = %v, want a refusal for now", err)
					}
					from.resume.Attempt++
				}
				free()
				from = r.visitAs("from", "b", from.resume)
				from.send(2)
				to.inOrder(1, 2)
				from.bothAcknowledged()
			})
		})
	}
}

// What had arrived when a link broke may be on its way from there: it is asked about again
// once the link is back.
func TestABrokenLinkDoesNotEndTheWaitForWhatIsBehindIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoads(t, "a", "b", "c")
		r.members = true
		from := r.visitAs("from", "a", hub.Resume{})
		to := r.visit("c", hub.Resume{})
		r.knows("a", "c")
		late := r.sentLate(from.peer)
		to = r.visit("b", to.resume)
		r.knows("a", "b")
		passed, free := r.block("c", "b")
		late()
		<-passed
		r.disconnect(r.nodes["a"], r.nodes["c"])
		from.expectFault(wire.KindError, 1, wire.CodeUnavailable)
		from.send(2)
		time.Sleep(time.Second)
		r.connect(r.nodes["a"], r.nodes["c"])
		r.connect(r.nodes["c"], r.nodes["a"])
		if _, err := r.tryVisit("from", "b", from.resume); err == nil {
			t.Fatal("the session was given, though c has not answered")
		}
		time.Sleep(20 * time.Second)
		free()
		to.inOrder(1, 2)
		from.resume.Attempt++
		from = r.visitAs("from", "a", from.resume)
		from.expectFault(wire.KindError, 1, wire.CodeUnavailable) // once more: it never said that it has it
		from.bothAcknowledged()
	})
}

// What waits for its receiver is sent all the same when the session of its sender is not
// given after all, and its sender comes back to where it was.
func TestWhatWaitsIsSentWhenTheSessionOfItsSenderStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoads(t, "a", "b", "c")
		from := r.visitAs("from", "a", hub.Resume{})
		to := r.visit("c", hub.Resume{})
		r.knows("a", "c")
		free := func() {}
		r.onceGiven(func() { _, free = r.block("b", "c") })
		to = r.visit("b", to.resume)
		r.knows("a", "b")
		from.send(1)
		from.quiet()
		_, late := r.block("a", "c")
		if _, err := r.tryVisit("from", "b", from.resume); err == nil {
			t.Fatal("the session was given, though c has not answered")
		}
		from.resume.Attempt++
		from = r.visitAs("from", "a", from.resume)
		from.send(2)
		late()
		free()
		to.inOrder(1, 2)
		from.bothAcknowledged()
	})
}

// A node that stops gives its sessions away in any case: what they keep is worth more.
func TestANodeThatStopsGivesSessionsThatAreLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoads(t, "a", "b", "c")
		to := r.visit("a", hub.Resume{})
		from := join(t, r.nodes["b"].Hub, "from")
		r.knows("b", "a")
		from.send(1)
		to.inOrder(1, 1)
		from.expect(wire.KindAck, 1)
		r.block("a", "c")
		r.nodes["a"].HandOverSessions(t.Context(), []string{"b"})
		r.visit("b", to.resume).inOrder(1, 1)
	})
}
