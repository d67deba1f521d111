package history

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStore(t *testing.T) {
	var s Store
	if _, ok := s.Log("news"); ok {
		t.Error("an empty store has a log")
	}
	news := s.Open("news", Limits{MaxArtifacts: 2})
	if again := s.Open("news", Limits{MaxArtifacts: 9}); again != news || again.Limits().MaxArtifacts != 2 {
		t.Error("opening a topic again made another log or changed its limits")
	}
	if l, ok := s.Log("news"); !ok || l != news {
		t.Error("the log that was opened is not found")
	}
	news.Append(after(0), "a", 3, []byte("three"))
	s.Open("orders.new", Limits{MaxArtifacts: 9}).Append(after(0), "a", 1, []byte("one"))
	if artifacts, size := s.Totals(); artifacts != 3 || size != 8 {
		t.Errorf("Totals = %d artifacts and %d bytes, want 3 and 8", artifacts, size)
	}

	seen := map[string]bool{}
	s.Each(func(topic string, _ *Log) bool { seen[topic] = true; return true })
	if diff := cmp.Diff([]string{"news", "orders.new"}, slices.Sorted(maps.Keys(seen))); diff != "" {
		t.Errorf("Each (-want +got):\n%s", diff)
	}
	visits := 0
	s.Each(func(string, *Log) bool { visits++; return false })
	if visits != 1 {
		t.Errorf("Each went on %d times after false", visits-1)
	}

	s.Delete("news")
	if _, ok := s.Log("news"); ok {
		t.Error("a deleted topic has a log")
	}
	if got := s.Open("news", Limits{}).Bounds().Next; got != 1 {
		t.Errorf("a topic opened again goes on at %d, want 1", got)
	}
}
