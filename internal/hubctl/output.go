package hubctl

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/switchboardhub/switchboard/wire"
)

// artifactJSON is an artifact as one line of JSON, a contract with scripts.
type artifactJSON struct {
	ID            string            `json:"id"`
	From          string            `json:"from"`
	To            string            `json:"to,omitempty"`
	Topic         string            `json:"topic,omitempty"`
	Sequence      wire.Sequence     `json:"sequence,omitempty"`
	Time          string            `json:"time"`
	ContentType   string            `json:"contentType,omitempty"`
	Attributes    map[string]string `json:"attributes,omitempty"`
	Payload       *string           `json:"payload,omitempty"`
	PayloadBase64 string            `json:"payloadBase64,omitempty"`
}

// appendJSON appends an artifact as a line of JSON.
func appendJSON(b *bytes.Buffer, a *wire.Artifact) error {
	line := artifactJSON{
		ID: a.ID.String(), From: a.From, To: a.To, Topic: a.Topic, Sequence: a.Sequence,
		Time: a.Time.UTC().Format(time.RFC3339Nano), ContentType: a.ContentType, Attributes: a.Attributes,
	}
	if utf8.Valid(a.Payload) {
		text := string(a.Payload)
		line.Payload = &text
	} else {
		line.PayloadBase64 = base64.StdEncoding.EncodeToString(a.Payload)
	}
	return EncodeJSON(b, line)
}

// EncodeJSON writes v as a line of JSON.
func EncodeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// appendText appends an artifact as people like to read it:
//
//	#12 orders.new from agent-7: {"x":1}
//
// Further lines of a payload are indented, so that none looks like an artifact.
func appendText(b *bytes.Buffer, a *wire.Artifact) {
	if a.Sequence != 0 {
		fmt.Fprintf(b, "#%d ", a.Sequence)
	}
	if a.Topic != "" {
		b.WriteString(a.Topic)
		b.WriteByte(' ')
	}
	from := a.From
	if from == "" {
		from = "the hub"
	}
	b.WriteString("from ")
	b.WriteString(from)
	if len(a.Attributes) > 0 {
		b.WriteString(" [")
		for i, k := range slices.Sorted(maps.Keys(a.Attributes)) {
			if i > 0 {
				b.WriteByte(' ')
			}
			b.WriteString(readable([]byte(k)) + "=" + readable([]byte(a.Attributes[k])))
		}
		b.WriteByte(']')
	}
	b.WriteString(": ")
	b.WriteString(strings.ReplaceAll(strings.TrimSuffix(readable(a.Payload), "\n"), "\n", "\n    "))
	b.WriteByte('\n')
}

// readable returns text as it is, and what would upset a terminal quoted.
func readable(payload []byte) string {
	const preview = 32
	if !utf8.Valid(payload) {
		if len(payload) > preview {
			return fmt.Sprintf("%d bytes: %x…", len(payload), payload[:preview])
		}
		return fmt.Sprintf("%d bytes: %x", len(payload), payload)
	}
	text := string(payload)
	for _, r := range text {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return strconv.Quote(text)
		}
	}
	return text
}

// harmless returns text with what would upset a terminal as in a quoted text: errors of
// other clients are in it.
func harmless(text string) string {
	upsets := func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }
	if !strings.ContainsFunc(text, upsets) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if upsets(r) {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// cell returns what others chose as it is, or quoted if it would not stay in the cell of
// a table.
func cell(text string) string {
	if strings.ContainsFunc(text, unicode.IsControl) || !utf8.ValidString(text) {
		return strconv.Quote(text)
	}
	return text
}

// printer writes artifacts, one at a time, until it has written enough.
type printer struct {
	out    io.Writer
	asJSON bool
	done   chan struct{} // closed after the last one, or when writing failed

	mu    sync.Mutex // guards the fields below
	left  int        // negative: no end
	buf   bytes.Buffer
	err   error
	ended bool
}

// newPrinter returns a printer of count artifacts; 0 means no end.
func (a *App) newPrinter(count int) *printer {
	if count == 0 {
		count = -1
	}
	return &printer{out: a.Out, asJSON: a.JSON(), done: make(chan struct{}), left: count}
}

// print writes an artifact, unless enough were written. It reports whether it did.
func (p *printer) print(a *wire.Artifact) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return false
	}
	p.buf.Reset()
	if p.asJSON {
		p.err = appendJSON(&p.buf, a)
	} else {
		appendText(&p.buf, a)
	}
	if p.err == nil {
		_, p.err = p.out.Write(p.buf.Bytes())
	}
	if p.left > 0 {
		p.left--
	}
	if p.err != nil || p.left == 0 {
		p.ended = true
		close(p.done)
	}
	return p.err == nil
}

// failure returns why writing failed, once done is closed.
func (p *printer) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}
