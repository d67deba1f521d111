package v1alpha1

// Condition types of a Topic. Accepted and Applied are always present once the
// operator has seen a Topic; the others only while they have something to say.
// Reconciling and Stalled, as of a Hub, are among these.
const (
	// ConditionAccepted is True when the hub takes the Topic as it is.
	ConditionAccepted = "Accepted"
	// ConditionApplied is True when every ready node of the hub runs settings that
	// have the Topic as it is.
	ConditionApplied = "Applied"
	// ConditionConflicted is True while other Topics were refused because of this
	// one.
	ConditionConflicted = "Conflicted"
	// ConditionPurged is False while a Topic that is being deleted waits for its
	// artifacts to be deleted.
	ConditionPurged = "Purged"
)

// Reasons of a Topic's conditions, beside those of a Hub; each comment names the
// condition that uses it.
const (
	// ReasonAccepted (Accepted): the hub takes the Topic.
	ReasonAccepted = "Accepted"
	// ReasonHubNotFound (Accepted): there is no such Hub, it is being deleted, or the
	// operator does not look at its namespace.
	ReasonHubNotFound = "HubNotFound"
	// ReasonNamespaceNotAllowed (Accepted): the Hub does not take Topics of this
	// namespace.
	ReasonNamespaceNotAllowed = "NamespaceNotAllowed"
	// ReasonConflict (Accepted): the pattern overlaps one of the Hub's own or of an
	// older Topic.
	ReasonConflict = "Conflict"
	// ReasonInvalidFilter (Accepted): the filter does not compile.
	ReasonInvalidFilter = "InvalidFilter"
	// ReasonNoRoom (Accepted): the hub's settings are full.
	ReasonNoRoom = "NoRoom"
	// ReasonNotAccepted (Applied): the hub does not take the Topic.
	ReasonNotAccepted = "NotAccepted"
	// ReasonTopicsRefused (Conflicted): other Topics overlap this one, which is older.
	ReasonTopicsRefused = "TopicsRefused"
	// ReasonPurgeFailed (Purged): the hub could not delete what the Topic's topics
	// keep.
	ReasonPurgeFailed = "PurgeFailed"
	// ReasonHubPaused (Purged): the Hub asks the operator to change nothing.
	ReasonHubPaused = "HubPaused"
)

// Reasons of events about Topics that no condition carries.
const (
	// ReasonPurged: what the Topic's topics kept is deleted.
	ReasonPurged = "Purged"
	// ReasonNotPurged: the Topic goes and nothing was deleted.
	ReasonNotPurged = "NotPurged"
)
