package hubnode

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/switchboardhub/switchboard/wire"
)

func TestDiskThatIsNearlyFullRefusesUntilThereIsRoom(t *testing.T) {
	var free uint64
	var failing error
	r := newRoom("/data", "n-0", 16, slog.New(slog.DiscardHandler))
	r.usage = func(string) (uint64, uint64, error) { return free, 10 << 30, failing }
	const reserve = 512 * mib
	for _, step := range []struct {
		free    uint64
		failing error
		refuses bool
	}{
		{free: 5 << 30},
		{free: reserve},
		{free: reserve - 1, refuses: true},
		{free: reserve + reopenMargin - 1, refuses: true},
		{free: 5 << 30, failing: errors.New("no such disk"), refuses: true},
		{free: reserve + reopenMargin},
		{free: 0, failing: errors.New("no such disk")},
		{free: 0, refuses: true},
	} {
		free, failing = step.free, step.failing
		r.look()
		err := r.take(0)
		if full := r.full.Load() != nil; full != step.refuses {
			t.Errorf("with %d bytes free: full is %v, want %v", free, full, step.refuses)
		}
		var coded *wire.Error
		switch {
		case !step.refuses && err != nil:
			t.Errorf("with %d bytes free: %v", free, err)
		case step.refuses && (!errors.As(err, &coded) || coded.Code != wire.CodeStorageFull || !strings.Contains(coded.Detail, "node n-0")):
			t.Errorf("with %d bytes free: %v, want it refused", free, err)
		}
	}
}

func TestReserveFitsTheDisk(t *testing.T) {
	r := newRoom("/data", "n-0", 16, slog.New(slog.DiscardHandler))
	for total, want := range map[uint64]uint64{
		512 * mib:  256 * mib,
		1 << 30:    256 * mib,
		1600 * mib: 400 * mib,
		1 << 40:    512 * mib,
	} {
		if got := r.reserve(total); got != want {
			t.Errorf("reserve of %d MiB = %d MiB, want %d", total/mib, got/mib, want/mib)
		}
	}
}

func TestReserveIsTold(t *testing.T) {
	r := newRoom("/data", "n-0", 16, slog.New(slog.DiscardHandler))
	if got := r.reserved(); got != 0 {
		t.Errorf("reserve of a disk that was not looked at = %d", got)
	}
	r.usage = func(string) (uint64, uint64, error) { return 1 << 30, 2 << 30, nil }
	r.look()
	if got := r.reserved(); got != 512*mib {
		t.Errorf("reserve of 2 GiB = %d MiB, want 512", got/mib)
	}
}

func TestDiskIsLookedAtAgainBeforeMuchIsWritten(t *testing.T) {
	free := uint64(600 * mib)
	r := newRoom("/data", "n-0", 16, slog.New(slog.DiscardHandler))
	r.usage = func(string) (uint64, uint64, error) { return free, 10 << 30, nil }
	r.look()
	free = 100 * mib
	for range 21 {
		if err := r.take(mib); err != nil {
			t.Fatalf("refused before the disk was looked at again: %v", err)
		}
	}
	if r.take(2*mib) == nil {
		t.Error("a fourth of what was free is written, and the disk was not looked at")
	}
}
