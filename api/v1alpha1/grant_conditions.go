package v1alpha1

// Reasons of a Grant's conditions, beside those of a Topic; each comment names the
// condition that uses it. The types are those of a Topic: Accepted and Applied.
const (
	// ReasonNotDelegated (Accepted): a rule goes beyond what the Hub delegates to the
	// Grant's namespace; the message says what to ask for.
	ReasonNotDelegated = "NotDelegated"
	// ReasonInvalidRule (Accepted): a rule's condition does not compile.
	ReasonInvalidRule = "InvalidRule"
)
