package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

// FuzzReadBackup checks that whatever is not a whole backup is refused, and that what
// is visited is frames.
func FuzzReadBackup(f *testing.F) {
	var whole bytes.Buffer
	b := &backupWriter{to: bufio.NewWriter(&whole), sum: crc32.New(crc32.MakeTable(crc32.Castagnoli))}
	b.write([]byte(backupMagic))
	b.write(wire.AppendFrame(nil, wire.Header{Kind: wire.KindRestore, Sequence: 7}, "t", "", nil))
	b.write(wire.AppendFrame(nil, wire.Header{Kind: wire.KindPublish, Count: 1, Sequence: 7}, "t", "me", []byte("run")))
	b.total.Checksum = b.sum.Sum32()
	b.write(wire.AppendControl(nil, wire.Header{Kind: wire.KindGoodbye}, "", b.total))
	if err := b.to.Flush(); err != nil {
		f.Fatal(err)
	}
	f.Add(whole.Bytes())
	f.Add(whole.Bytes()[:whole.Len()-3])
	f.Add([]byte(backupMagic))
	f.Fuzz(func(t *testing.T, file []byte) {
		bytesOfFrames := int64(len(backupMagic))
		total, err := readBackup(bytes.NewReader(file), func(frame wire.Frame) error {
			bytesOfFrames += int64(len(frame))
			return nil
		})
		switch {
		case err == nil && total.Bytes != bytesOfFrames:
			t.Errorf("%d bytes were visited of a backup of %d", bytesOfFrames, total.Bytes)
		case err != nil && !errors.Is(err, ErrBadBackup):
			t.Errorf("got %v", err)
		}
	})
}

// tell answers a question to the hub.
func (p *peer) tell(question, answer string) {
	p.t.Helper()
	f := p.want(wire.KindSend)
	if string(f.Target()) != question {
		p.t.Fatalf("the client asks %q, want %q", f.Target(), question)
	}
	p.artifacts(wire.Header{Kind: wire.KindReply, Ref: f.Ref()}, "me", question, answer)
}

// A list that may lack something is no list of all: a backup by it would lack that, too.
func TestBackupAsksUntilTheListsAreComplete(t *testing.T) {
	c, p := connect(t, newNetwork("a:1"))
	type result struct {
		total BackupSummary
		err   error
	}
	done := background(func() result {
		total, err := c.Backup(t.Context(), io.Discard, nil)
		return result{total, err}
	})
	for _, list := range []string{"topics", "durables"} {
		p.tell("$hub."+list, `{"`+list+`":[],"incomplete":true}`)
		p.tell("$hub."+list, `{"`+list+`":[],"incomplete":true}`)
		p.tell("$hub."+list, `{"`+list+`":[]}`)
	}
	if r := got(t, done); r.err != nil || r.total.Topics != 0 {
		t.Errorf("Backup = %+v, %v", r.total, r.err)
	}
}

func TestBackupFailsWhenTheListsStayIncomplete(t *testing.T) {
	for name, limit := range map[string]time.Duration{"by itself": time.Hour, "at the caller's deadline": 10 * time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, p := connect(t, newNetwork("a:1"))
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				done := background(func() error {
					_, err := c.Backup(ctx, io.Discard, nil)
					return err
				})
				for {
					synctest.Wait()
					select {
					case err := <-done:
						if err == nil || !strings.Contains(err.Error(), "not all topics can be listed") || errors.Is(err, context.DeadlineExceeded) != (limit < wholeTime) {
							t.Errorf("Backup = %v", err)
						}
						return
					default:
						_ = p.conn.SetReadDeadline(time.Now().Add(time.Second))
						f, err := p.r.Next()
						if err == nil {
							p.artifacts(wire.Header{Kind: wire.KindReply, Ref: f.Ref()}, "me", "$hub.topics", `{"topics":[],"incomplete":true}`)
						}
					}
				}
			})
		})
	}
}

// What is larger than the node takes would cost the connection, at each try.
func TestWhatTheNodeDoesNotTakeIsNotSent(t *testing.T) {
	c, p := connectAs(t, newNetwork("a:1"), []func(*wire.Welcome){func(w *wire.Welcome) { w.MaxFrame = 70_000 }})
	f := wire.Frame(wire.AppendFrame(nil, wire.Header{Kind: wire.KindPublish, Count: 1, Sequence: 1}, "t", "me", make([]byte, 70_000)))
	err := c.resend(t.Context(), "t", 0, f)
	var coded *Error
	if !errors.As(err, &coded) || coded.Code != wire.CodeFrameTooLarge || !strings.Contains(err.Error(), "limits.maxArtifactSize") {
		t.Errorf("got %v, want FrameTooLarge, and what to do", err)
	}
	p.behave()
	if err := c.Flush(t.Context()); err != nil {
		t.Error(err)
	}
}
