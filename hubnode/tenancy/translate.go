package tenancy

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"

	"github.com/switchboardhub/switchboard/wire"
)

// translator changes the names in frames. It is for one goroutine.
type translator struct {
	tenant       Tenant
	target, from []byte
}

// appendIn appends a frame of the tenant's client as it is to the hub.
func (t *translator) appendIn(b []byte, f wire.Frame) []byte {
	target := t.target[:0]
	body := f.Body()
	switch f.Kind() {
	case wire.KindSend, wire.KindReply:
		target = appendID(t.tenant, target, f.Target())
		if string(target) == durableDelete {
			body = retopic(body, t.tenant.Topic)
		}
	case wire.KindPublish, wire.KindRead, wire.KindRestore:
		target = appendTopic(t.tenant, target, f.Target())
	case wire.KindSubscribe:
		target = appendTopic(t.tenant, target, f.Target())
		body = recode(body, func(s *wire.Subscription) bool { return rename(&s.Positions, t.tenant.Topic) })
	case wire.KindFetch:
		target = appendTopic(t.tenant, target, f.Target())
		body = recode(body, func(w *wire.Fetch) bool {
			letters := &w.Policy.DeadLetter
			*letters = t.tenant.Topic(*letters)
			return *letters != ""
		})
	default:
		target = append(target, f.Target()...)
	}
	t.target, t.from = target, appendID(t.tenant, t.from[:0], f.From())
	return wire.AppendFrame(b, f.Header(), t.target, t.from, body)
}

// appendOut appends a frame of the hub as it is to the tenant's client.
func (t *translator) appendOut(b []byte, f wire.Frame) []byte {
	target := t.target[:0]
	body := f.Body()
	switch f.Kind() {
	case wire.KindSend, wire.KindReply:
		target = appendOwnID(t.tenant, target, f.Target())
		if string(f.From()) == durableDelete {
			body = retopic(body, t.tenant.OwnTopic)
		}
	case wire.KindPublish, wire.KindGap:
		target = appendOwnTopic(t.tenant, target, f.Target())
	case wire.KindAck:
		if bytes.HasPrefix(body, positions) { // else it has no names
			body = recode(body, func(s *wire.Subscribed) bool { return rename(&s.Positions, t.tenant.OwnTopic) })
		}
	case wire.KindError, wire.KindGoodbye:
		body = recode(body, t.tenant.rename)
	default:
		target = append(target, f.Target()...)
	}
	t.target, t.from = target, appendOwnID(t.tenant, t.from[:0], f.From())
	return wire.AppendFrame(b, f.Header(), t.target, t.from, body)
}

// durableDelete is the question to the hub that tenants may ask about topics of their own. It
// and its answer name the topic.
const durableDelete = "$hub.durables.delete"

// retopic changes the topic in the question, or the answer, that a run of one artifact is.
// What is none stays as it is.
func retopic(run []byte, to func(string) string) []byte {
	var a wire.Artifact
	r := wire.NewRunReader(run)
	if ok, err := r.Next(&a); !ok || err != nil {
		return run
	}
	if more, err := r.Next(&wire.Artifact{}); more || err != nil {
		return run
	}
	type names struct {
		Topic string `json:"topic,omitempty"`
		Name  string `json:"name,omitempty"`
	}
	changed := recode(a.Payload, func(q *names) bool {
		q.Topic = to(q.Topic)
		return q.Topic != ""
	})
	var all wire.Run
	a.Payload = changed
	if err := all.Append(&a, math.MaxInt); err != nil {
		return run // it was in a run
	}
	return all.Body()
}

// positions is what the body of Subscribe's Ack begins with.
var positions = []byte(`{"positions":`)

// recode changes a body, unless change says that there is nothing to. One that can't be
// decoded stays as it is, for whoever reads it to find.
func recode[T any](body []byte, change func(*T) bool) []byte {
	if len(body) == 0 {
		return body
	}
	var v T
	if err := json.Unmarshal(body, &v); err != nil {
		return body
	}
	if !change(&v) {
		return body
	}
	changed, err := json.Marshal(&v)
	if err != nil {
		return body // it was decoded from JSON
	}
	return changed
}

// rename changes the names of positions, and reports whether there are any.
func rename(positions *map[string]wire.Sequence, to func(string) string) bool {
	all := make(map[string]wire.Sequence, len(*positions))
	for name, seq := range *positions {
		all[to(name)] = seq
	}
	*positions = all
	return len(all) > 0
}

// rename makes the names in a fault the tenant's. Those in its text are to be read by
// people: where the text has the prefix, it goes.
func (t Tenant) rename(f *wire.Fault) bool {
	if f.Client != "" {
		f.Client = t.OwnID(f.Client)
	}
	f.Topic = t.OwnTopic(f.Topic)
	switch f.Action {
	case wire.ActionConnect, wire.ActionSend:
		f.Target = t.OwnID(f.Target)
	case wire.ActionPublish, wire.ActionSubscribe, wire.ActionHistory:
		f.Target = t.OwnTopic(f.Target)
	case wire.ActionView, wire.ActionManage, wire.ActionPurge: // questions, which have the names of whoever asked
	}
	if f.Action != "" {
		f.Tenant = string(t)
	}
	for _, before := range []string{` `, `"`} {
		for _, end := range []string{`/`, `.`} {
			f.Detail = strings.ReplaceAll(f.Detail, before+string(t)+end, before)
		}
	}
	return true
}
