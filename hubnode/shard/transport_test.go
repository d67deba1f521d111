package shard

import (
	"errors"
	"testing"

	"github.com/hashicorp/raft"
)

// A pipeline that was full when its link was lost ends. Raft reads the first answer
// that is none, and may have sent more before it notices.
func TestAFullPipelineEndsWithItsLink(t *testing.T) {
	tr := newTransport(0, "n-0/1", "n-0", newBundles(Config{Carrier: everywhere{}, Bundles: func(string) bool { return true }}))
	defer func() { _ = tr.Close() }()
	p, err := tr.AppendEntriesPipeline("n-1/1", "")
	if err != nil {
		t.Fatal(err)
	}
	for range windowCalls {
		if _, err := p.AppendEntries(&raft.AppendEntriesRequest{}, &raft.AppendEntriesResponse{}); err != nil {
			t.Fatal(err)
		}
	}
	tr.fail("n-1", errNoLink)
	if f := <-p.Consumer(); !errors.Is(f.Error(), errNoLink) {
		t.Errorf("the first answer is %v", f.Error())
	}
	for range 2 * windowCalls {
		if _, err := p.AppendEntries(&raft.AppendEntriesRequest{}, &raft.AppendEntriesResponse{}); err == nil {
			t.Fatal("it takes more")
		}
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func TestLargeEntriesAreSentAsTheyAre(t *testing.T) {
	small, large := make([]byte, apart-1), make([]byte, apart)
	a := &raft.AppendEntriesRequest{Entries: []*raft.Log{{Data: small}, {Data: large}, {Data: large}}}
	references := 0
	for _, part := range encodeAppend(a) {
		if len(part) > 0 && &part[0] == &large[0] {
			references++
		}
	}
	if references != 2 {
		t.Errorf("%d of 2 large entries are parts of the call", references)
	}
}

// everywhere is a Carrier to whom every node is linked, and none answers.
type everywhere struct{}

func (everywhere) Carry(string, ...[]byte) bool { return true }
