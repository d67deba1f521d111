package hub

import "github.com/switchboardhub/switchboard/wire"

// Admission says which clients a hub takes.
type Admission uint8

// The admissions.
const (
	AdmitAll   Admission = iota // the default
	AdmitKnown                  // those that have a session here, or connect again
	AdmitNone
)

// entrance is what holds for clients that come.
type entrance struct {
	admits Admission
	why    func() error // the others are refused
}

// Admit says which clients the hub takes from now on, and why it refuses the others: what
// they are told is asked for each. Clients that are there stay.
func (h *Hub) Admit(who Admission, why func() error) { h.entrance.Store(&entrance{who, why}) }

// enter returns why a client may not come in. It is asked before its session is fetched
// from another node, which would be lost with it.
func (h *Hub) enter(id wire.ClientID) error {
	e := h.entrance.Load()
	if e == nil || e.admits == AdmitAll || e.admits == AdmitKnown && h.knows(id) {
		return nil
	}
	h.metrics.refused[refusedMemory].Add(1)
	return e.why()
}

// knows reports whether a client is here, or may come back to its session here.
func (h *Hub) knows(id wire.ClientID) bool {
	if _, here := h.Client(id); here {
		return true
	}
	s := h.awaySession(id)
	return s != nil && s.movedTo() == ""
}

// Reasons for clients that were refused; the keys of Metrics.ClientsRefused.
const (
	refusedMemory     = iota // by Admit
	refusedMaxClients        // by Settings.MaxClients
	refusedIdentity          // by Settings.PerIdentity
	refusals                 // how many there are
)

var refusalNames = [refusals]string{refusedMemory: "memory", refusedMaxClients: "max_clients", refusedIdentity: "per_identity"}

func (m *counters) refusedByName() map[string]uint64 {
	counts := make(map[string]uint64, refusals)
	for i, name := range refusalNames {
		counts[name] = m.refused[i].Load()
	}
	return counts
}
