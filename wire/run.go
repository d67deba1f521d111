package wire

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"
)

// An artifact in a run is
//
//	flags    1 byte, the artifact* constants
//	size     uvarint, bytes that follow
//	id       16 bytes, when artifactID; else the previous artifact's id plus one
//	time     8 bytes, nanoseconds since 1970 UTC, when artifactTime; else the previous one's
//	content  uvarint length and text, when artifactContentType
//	attrs    uvarint count, then key and value each with a uvarint length, when artifactAttributes
//	payload  the rest
//
// The first artifact of a run has both id and time. In a busy run the overhead
// is so two to four bytes for each artifact.
const (
	artifactID = 1 << iota
	artifactTime
	artifactContentType
	artifactAttributes
	artifactKnown = 1<<iota - 1
)

// Run builds the body of a frame: artifacts that share a route. The zero value
// is empty and ready.
type Run struct {
	body  []byte
	count int
	id    ID
	nanos int64
}

// Append adds a to the run. When a has no ID or no Time the caller has to set
// them before. It returns an [ArtifactTooLargeError] when content type,
// attributes and payload are together over limit bytes, and an [Error] when
// one of them is over a limit of this package; the run is then unchanged.
func (r *Run) Append(a *Artifact, limit int) error {
	size, err := contentSize(a)
	if err != nil {
		return err
	}
	if size > limit {
		return &ArtifactTooLargeError{Size: size, Limit: limit}
	}
	if r.count == MaxCount {
		return &Error{Code: CodeInvalidRequest, Detail: fmt.Sprintf("a frame holds at most %d artifacts", MaxCount)}
	}
	var flags byte
	if a.ContentType != "" {
		flags |= artifactContentType
	}
	if len(a.Attributes) > 0 {
		flags |= artifactAttributes
	}
	r.begin(flags, size, a.ID, a.Time.UnixNano())
	b := r.body
	if flags&artifactContentType != 0 {
		b = appendText(b, a.ContentType)
	}
	if flags&artifactAttributes != 0 {
		b = appendAttributes(b, a.Attributes)
	}
	b = append(b, a.Payload...)
	r.body = b
	return nil
}

// begin writes what comes before an artifact's content of size bytes: id and
// time only where they don't follow from the artifact before.
func (r *Run) begin(flags byte, size int, id ID, nanos int64) {
	if r.count == 0 || id != r.id.Next() {
		flags |= artifactID
		size += len(id)
	}
	if r.count == 0 || nanos != r.nanos {
		flags |= artifactTime
		size += 8
	}
	b := r.body
	b = append(b, flags)
	b = binary.AppendUvarint(b, uint64(size)) //nolint:gosec // never negative
	if flags&artifactID != 0 {
		b = append(b, id[:]...)
	}
	if flags&artifactTime != 0 {
		b = binary.BigEndian.AppendUint64(b, uint64(nanos)) //nolint:gosec // two's complement on purpose
	}
	r.body = b
	r.count++
	r.id, r.nanos = id, nanos
}

// Body returns the encoded run, valid until the run is changed.
func (r *Run) Body() []byte { return r.body }

// Count returns the number of artifacts in the run.
func (r *Run) Count() int { return r.count }

// Reset empties the run and keeps its memory.
func (r *Run) Reset() { r.body, r.count = r.body[:0], 0 }

// contentSize returns the encoded size of what the sender chose: content type,
// attributes and payload.
func contentSize(a *Artifact) (int, error) {
	size := len(a.Payload)
	if n := len(a.ContentType); n > 0 {
		if n > MaxContentType {
			return 0, &Error{Code: CodeInvalidRequest, Detail: fmt.Sprintf("content type of %d bytes is over the limit of %d", n, MaxContentType)}
		}
		size += uvarintLen(n) + n
	}
	if n := len(a.Attributes); n > 0 {
		if n > MaxAttributes {
			return 0, &Error{Code: CodeInvalidRequest, Detail: fmt.Sprintf("%d attributes are over the limit of %d", n, MaxAttributes)}
		}
		size += uvarintLen(n)
		for k, v := range a.Attributes {
			if k == "" || len(k) > MaxAttributeKey || len(v) > MaxAttributeValue {
				return 0, &Error{Code: CodeInvalidRequest, Detail: fmt.Sprintf("attribute %.64q: a key has 1 to %d bytes, a value at most %d", k, MaxAttributeKey, MaxAttributeValue)}
			}
			size += uvarintLen(len(k)) + len(k) + uvarintLen(len(v)) + len(v)
		}
	}
	return size, nil
}

func uvarintLen(n int) int {
	size := 1
	for n >= 0x80 {
		n >>= 7
		size++
	}
	return size
}

func appendText(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// appendAttributes writes attributes in the order of their keys, so that equal
// artifacts have equal encodings.
func appendAttributes(b []byte, attributes map[string]string) []byte {
	b = binary.AppendUvarint(b, uint64(len(attributes)))
	if len(attributes) == 1 {
		for k, v := range attributes {
			return appendText(appendText(b, k), v)
		}
	}
	keys := make([]string, 0, len(attributes))
	for k := range attributes {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		b = appendText(appendText(b, k), attributes[k])
	}
	return b
}

// RunReader decodes a run, artifact by artifact.
type RunReader struct {
	rest  []byte
	first bool
	id    ID
	nanos int64
}

// NewRunReader returns a reader of a frame's body.
func NewRunReader(body []byte) RunReader { return RunReader{rest: body, first: true} }

// Next decodes the next artifact into a, whose route and sequence it leaves
// alone, and reports whether there was one. The payload aliases the body; text
// and attributes are copied. The error wraps [ErrMalformed].
func (r *RunReader) Next(a *Artifact) (bool, error) {
	if len(r.rest) == 0 {
		return false, nil
	}
	e, err := r.element()
	if err != nil {
		return false, err
	}
	a.ID, a.Time = r.id, time.Unix(0, r.nanos)
	a.ContentType = string(e.contentType)
	a.Attributes = nil
	if e.attributes != nil {
		a.Attributes = decodeAttributes(e.attributes)
	}
	a.Payload = e.payload
	return true, nil
}

// Peek returns the value of one of the next artifact's attributes, nil when it
// has none of that name or there is no further artifact. The reader stays where
// it is; the value aliases the body. The error wraps [ErrMalformed].
func (r *RunReader) Peek(attribute string) ([]byte, error) {
	if len(r.rest) == 0 {
		return nil, nil
	}
	next := *r
	e, err := next.element()
	if err != nil {
		return nil, err
	}
	return findAttribute(e.attributes, attribute), nil
}

// element is one artifact's parts; all alias the body.
type element struct {
	contentType []byte
	attributes  []byte // the encoded attributes, checked; nil when there are none, flagged or not
	payload     []byte
	content     int // bytes that count against the artifact limit
}

// element takes the next artifact off the run and moves id and time on.
func (r *RunReader) element() (element, error) {
	flags := r.rest[0]
	if flags&^byte(artifactKnown) != 0 {
		return element{}, malformed("unknown artifact flags")
	}
	size, n := binary.Uvarint(r.rest[1:])
	if n <= 0 || size > uint64(len(r.rest)-1-n) { //nolint:gosec // Uvarint read n bytes of it
		return element{}, malformed("artifact is longer than its frame")
	}
	b := r.rest[1+n : 1+n+int(size)] //nolint:gosec // bounded by the line above
	r.rest = r.rest[1+n+int(size):]  //nolint:gosec // bounded above

	switch {
	case flags&artifactID != 0:
		if len(b) < len(r.id) {
			return element{}, malformed("artifact ends inside its id")
		}
		b = b[copy(r.id[:], b):]
	case r.first:
		return element{}, malformed("first artifact without id")
	default:
		r.id = r.id.Next()
	}
	switch {
	case flags&artifactTime != 0:
		if len(b) < 8 {
			return element{}, malformed("artifact ends inside its time")
		}
		r.nanos = int64(binary.BigEndian.Uint64(b)) //nolint:gosec // two's complement on purpose
		b = b[8:]
	case r.first:
		return element{}, malformed("first artifact without time")
	}
	r.first = false

	e := element{content: len(b)}
	if flags&artifactContentType != 0 {
		var ok bool
		if e.contentType, b, ok = cutText(b, MaxContentType); !ok {
			return element{}, malformed("content type")
		}
	}
	if flags&artifactAttributes != 0 {
		count, rest, ok := skipAttributes(b)
		if !ok {
			return element{}, malformed("attributes")
		}
		if count > 0 {
			e.attributes = b[:len(b)-len(rest)]
		}
		b = rest
	}
	e.payload = b
	return e, nil
}

func malformed(what string) error { return fmt.Errorf("%w: %s", ErrMalformed, what) }

// cutText takes a length-prefixed text of at most limit bytes off b.
func cutText(b []byte, limit int) (text, rest []byte, ok bool) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(limit) || size > uint64(len(b)-n) { //nolint:gosec // none of them is negative
		return nil, nil, false
	}
	end := n + int(size) //nolint:gosec // bounded above
	return b[n:end], b[end:], true
}

func skipAttributes(b []byte) (count uint64, rest []byte, ok bool) {
	count, n := binary.Uvarint(b)
	if n <= 0 || count > MaxAttributes {
		return 0, nil, false
	}
	b = b[n:]
	for range count {
		var key []byte
		if key, b, ok = cutText(b, MaxAttributeKey); !ok || len(key) == 0 {
			return 0, nil, false
		}
		if _, b, ok = cutText(b, MaxAttributeValue); !ok {
			return 0, nil, false
		}
	}
	return count, b, true
}

// decodeAttributes decodes what skipAttributes has checked.
func decodeAttributes(b []byte) map[string]string {
	count, n := binary.Uvarint(b)
	b = b[n:]
	attributes := make(map[string]string, count)
	for range count {
		var key, value []byte
		key, b, _ = cutText(b, MaxAttributeKey)
		value, b, _ = cutText(b, MaxAttributeValue)
		attributes[string(key)] = string(value)
	}
	return attributes
}

// findAttribute returns the value of one attribute of those that skipAttributes
// has checked, nil when it is not there.
func findAttribute(b []byte, name string) []byte {
	if b == nil {
		return nil
	}
	count, n := binary.Uvarint(b)
	b = b[n:]
	for range count {
		var key, value []byte
		key, b, _ = cutText(b, MaxAttributeKey)
		value, b, _ = cutText(b, MaxAttributeValue)
		if string(key) == name {
			return value
		}
	}
	return nil
}

// CheckRun walks over a run without decoding payloads and returns nil when it
// is well formed, holds exactly count artifacts and none of them is over limit
// bytes. The error wraps [ErrMalformed] or is an [ArtifactTooLargeError]; the
// frame's other artifacts share its fate unless its sender has set [FlagEach].
func CheckRun(body []byte, count, limit int) error {
	r := NewRunReader(body)
	n, tooLarge := 0, 0
	for len(r.rest) > 0 {
		e, err := r.element()
		if err != nil {
			return err
		}
		if e.content > limit {
			tooLarge = max(tooLarge, e.content)
		}
		n++
	}
	if n != count || n == 0 {
		return fmt.Errorf("%w: header says %d artifacts, %d are there", ErrMalformed, count, n)
	}
	if tooLarge > 0 {
		return &ArtifactTooLargeError{Size: tooLarge, Limit: limit}
	}
	return nil
}

// SkipRun returns the run without its first skip artifacts, as a run that
// stands alone: its first artifact has id and time. It allocates.
func SkipRun(body []byte, skip int) ([]byte, error) {
	if skip <= 0 {
		return body, nil
	}
	r := NewRunReader(body)
	for range skip {
		if len(r.rest) == 0 {
			return nil, nil
		}
		if _, err := r.element(); err != nil {
			return nil, err
		}
	}
	var head Run
	var a Artifact
	ok, err := r.Next(&a)
	if !ok || err != nil {
		return nil, err
	}
	if err := head.Append(&a, len(body)); err != nil {
		return nil, err
	}
	return append(head.body, r.rest...), nil
}

// CutRun returns count artifacts of a run behind its first skip, as a run that
// stands alone. It allocates unless it is the beginning of the run.
func CutRun(body []byte, skip, count int) ([]byte, error) {
	body, err := SkipRun(body, skip)
	if err != nil {
		return nil, err
	}
	r := NewRunReader(body)
	for range count {
		if len(r.rest) == 0 {
			return nil, malformed("run with too few artifacts")
		}
		if _, err := r.element(); err != nil {
			return nil, err
		}
	}
	return slices.Clip(body[:len(body)-len(r.rest)]), nil
}

// AppendNext appends the next artifact of another run and reports whether there
// was one. It copies the content without decoding it. The error wraps
// [ErrMalformed]; the run is then unchanged.
func (r *Run) AppendNext(from *RunReader) (bool, error) {
	if len(from.rest) == 0 {
		return false, nil
	}
	flags, all := from.rest[0], from.rest
	e, err := from.element()
	if err != nil {
		return false, err
	}
	all = all[:len(all)-len(from.rest)]
	r.begin(flags&^(artifactID|artifactTime), e.content, from.id, from.nanos)
	r.body = append(r.body, all[len(all)-e.content:]...)
	return true, nil
}

// AppendPicked appends to the run those artifacts of another run's body that
// pick names by their place in it, counted from 0. It copies their content
// without decoding it. The error wraps [ErrMalformed]; the run then holds those
// before.
func (r *Run) AppendPicked(body []byte, pick func(place int) bool) error {
	from := NewRunReader(body)
	for place := 0; len(from.rest) > 0; place++ {
		var err error
		if pick(place) {
			_, err = r.AppendNext(&from)
		} else {
			_, err = from.element()
		}
		if err != nil {
			return err
		}
	}
	return nil
}
