package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// standIn answers reviews without a network.
type standIn struct {
	*reviews
	asked  atomic.Int64
	answer func(ctx context.Context, n int64) (refusal, failure error)
}

func newStandIn(answer func(context.Context, int64) (refusal, failure error)) *standIn {
	s := &standIn{reviews: newReviews(slog.New(slog.DiscardHandler), time.Now), answer: answer}
	s.post = func(ctx context.Context, _ question) (refusal, failure error) { return s.answer(ctx, s.asked.Add(1)) }
	return s
}

func about(token string) question { return question{audiences: []string{"hub"}, token: token} }

func TestAnswersAreRememberedForAWhile(t *testing.T) {
	for name, test := range map[string]struct {
		refusal, failure error
		life             time.Duration
	}{
		"accepted":       {life: acceptedFor},
		"refused":        {refusal: errNotTaken, life: refusedFor},
		"nobody to tell": {failure: errors.New("away")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStandIn(func(context.Context, int64) (error, error) { return test.refusal, test.failure })
				expect := func(asked int64) {
					t.Helper()
					want := test.refusal
					if test.failure != nil {
						want = errNoReview
					}
					if err := s.ask(t.Context(), "a", about("x")); !errors.Is(err, want) || (err == nil) != (want == nil) {
						t.Errorf("got %v, want %v", err, want)
					}
					if n := s.asked.Load(); n != asked {
						t.Errorf("asked %d times, want %d", n, asked)
					}
				}
				expect(1)
				if test.life > 0 {
					time.Sleep(test.life - time.Nanosecond)
					expect(1)
					time.Sleep(time.Nanosecond)
				}
				expect(2)
				counted := map[string]uint64{"accepted": s.accepted.Load(), "refused": s.refused.Load(), "nobody to tell": s.failed.Load()}
				if counted[name] != 2 || counted["accepted"]+counted["refused"]+counted["nobody to tell"] != 2 {
					t.Errorf("counted are %v, want 2 of %s", counted, name)
				}
				_ = s.ask(t.Context(), "a", about("y"))
				if n := s.asked.Load(); n != 3 {
					t.Errorf("asked %d times: the answer for one token is another's", n)
				}
				time.Sleep(test.life)
				_ = s.ask(t.Context(), "a", about("z"))
				if test.life > 0 && len(s.known) != 1 {
					t.Errorf("%d answers are kept, of which one counts", len(s.known))
				}
			})
		})
	}
}

func TestAnswersForOthersAreNotTaken(t *testing.T) {
	q := about("x")
	server, audience := q, q
	server.to.Server = "https://other"
	audience.audiences = []string{"hu", "b"}
	for name, other := range map[string]question{"server": server, "audiences": audience} {
		if q.sum() == other.sum() {
			t.Errorf("another %s makes no difference", name)
		}
	}
}

func TestHowManyAreAskedAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := newStandIn(func(context.Context, int64) (error, error) { <-release; return nil, nil })
		done := make(chan error, reviewsAtATime)
		for i := range reviewsAtATime {
			go func() { done <- s.ask(t.Context(), fmt.Sprint(i), about(fmt.Sprint(i))) }()
		}
		synctest.Wait()
		if err := s.ask(t.Context(), "more", about("more")); !errors.Is(err, errReviewsBusy) {
			t.Errorf("one more: got %v", err)
		}
		if n := s.asked.Load(); n != reviewsAtATime {
			t.Errorf("asked %d times", n)
		}
		close(release)
		for range reviewsAtATime {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if err := s.ask(t.Context(), "more", about("more")); err != nil {
			t.Errorf("once they are answered: %v", err)
		}
	})
}

func TestHowManyAreAskedInASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStandIn(func(context.Context, int64) (error, error) { return nil, nil })
		var busy int
		for i := range reviewsPerSecond + 5 {
			if err := s.ask(t.Context(), "a", about(fmt.Sprint(i))); errors.Is(err, errReviewsBusy) {
				busy++
			} else if err != nil {
				t.Error(err)
			}
		}
		if n := s.asked.Load(); n != reviewsPerSecond || busy != 5 || s.busy.Load() != 5 || s.accepted.Load() != reviewsPerSecond {
			t.Errorf("asked %d times, and %d were told to come again; counted are %d accepted and %d busy", n, busy, s.accepted.Load(), s.busy.Load())
		}
		time.Sleep(time.Second)
		if err := s.ask(t.Context(), "a", about("later")); err != nil {
			t.Errorf("a second later: %v", err)
		}
	})
}

// A pod has many clients, which show one token: one of them asks.
func TestOneOfThoseFromOnePlaceAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStandIn(func(context.Context, int64) (error, error) { time.Sleep(time.Second); return nil, nil })
		done := make(chan error)
		for range 50 {
			go func() { done <- s.ask(t.Context(), "10.0.0.1:1", about("x")) }()
		}
		for range 50 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if n := s.asked.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
	})
}

func TestASlowAnswerIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStandIn(func(ctx context.Context, _ int64) (error, error) { <-ctx.Done(); return nil, ctx.Err() })
		begin := time.Now()
		if err := s.ask(t.Context(), "a", about("x")); !errors.Is(err, errNoReview) || time.Since(begin) != reviewTime {
			t.Errorf("got %v after %v", err, time.Since(begin))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second) // of one that waits behind another
		defer cancel()
		go func() { _ = s.ask(context.WithoutCancel(ctx), "a", about("y")) }()
		synctest.Wait()
		if err := s.ask(ctx, "a", about("z")); !errors.Is(err, errNoReview) {
			t.Errorf("got %v", err)
		}
		synctest.Wait()
	})
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	s := newStandIn(nil)
	for i := range verdictsMax + 10 {
		s.remember(about(fmt.Sprint(i)).sum(), nil)
	}
	if len(s.known) != verdictsMax {
		t.Errorf("%d are remembered", len(s.known))
	}
}
