package wire

import "fmt"

// Action is what a client asks to do.
type Action string

// The actions, as rules name them.
const (
	ActionConnect   Action = "connectAs" // under a client id
	ActionSend      Action = "sendTo"    // to a client id
	ActionPublish   Action = "publish"   // on a topic
	ActionSubscribe Action = "subscribe" // to a topic or pattern
	ActionHistory   Action = "history"   // of a topic or pattern, to read it
	ActionView      Action = "view"      // what the hub says of itself
	ActionManage    Action = "manage"    // what changes the hub
	ActionPurge     Action = "purge"     // deleting what a topic keeps
)

// PermissionError says that no rule allows a client what it asked for.
type PermissionError struct {
	Identity string // who the client has proved to be
	Action   Action
	Target   string // client id, topic, pattern, or question to the hub
	Tenant   string // the namespace whose names these are; empty: they are the hub's
}

func (e *PermissionError) Error() string {
	ask := fmt.Sprintf("%s: [%q]", e.Action, e.Target)
	switch {
	case e.Tenant != "" && (e.Action == ActionView || e.Action == ActionManage || e.Action == ActionPurge):
		return fmt.Sprintf("%q is not allowed to %s %q: it is a client of namespace %q, which has names of its own in this hub; ask as somebody who is of no namespace, or over HTTP", e.Identity, e.verb(), e.Target, e.Tenant)
	case e.Action == ActionView:
		ask = "admin: View"
	case e.Action == ActionManage, e.Action == ActionPurge:
		ask = "admin: Manage"
	}
	return fmt.Sprintf("%q is not allowed to %s %q: ask for a rule with %s", e.Identity, e.verb(), e.Target, ask)
}

func (e *PermissionError) verb() string {
	switch e.Action {
	case ActionConnect:
		return "connect as"
	case ActionSend:
		return "send to"
	case ActionPublish:
		return "publish on"
	case ActionSubscribe:
		return "subscribe to"
	case ActionHistory:
		return "read the history of"
	case ActionView, ActionManage:
		return "ask the hub for"
	case ActionPurge:
		return "purge"
	}
	return string(e.Action)
}
