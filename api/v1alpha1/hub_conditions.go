package v1alpha1

// Condition types of a Hub. Available, Progressing, Degraded and ConfigApplied
// are always present once the operator has seen a Hub. Reconciling and Stalled
// are present only while they are True, which is what tools that follow the
// kstatus convention wait for; so is UpdateAvailable.
const (
	// ConditionAvailable is True while a majority of the wanted nodes is ready
	// to serve clients.
	ConditionAvailable = "Available"
	// ConditionProgressing is True while the nodes are not yet what the spec
	// asks for and the operator or Kubernetes is working on it.
	ConditionProgressing = "Progressing"
	// ConditionDegraded is True while something is wrong that does not pass by
	// waiting for a rollout.
	ConditionDegraded = "Degraded"
	// ConditionConfigApplied is True when every ready node runs the settings of
	// the observed generation; Unknown when the nodes can't be asked.
	ConditionConfigApplied = "ConfigApplied"
	// ConditionUpdateAvailable is True while the nodes run as an earlier version of
	// the operator started them and this one would start them differently.
	ConditionUpdateAvailable = "UpdateAvailable"
	// ConditionTopicsAccepted is True when the hub has taken every Topic that refers
	// to it. It is present only while there are any.
	ConditionTopicsAccepted = "TopicsAccepted"
	// ConditionCertificatesReady is True while nodes have a certificate that clients
	// can verify. It is present only while clients use TLS.
	ConditionCertificatesReady = "CertificatesReady"
	// ConditionGrantsAccepted is True when the hub has taken every Grant that refers to
	// it. It is present only while there are any.
	ConditionGrantsAccepted = "GrantsAccepted"
	// ConditionAuthenticationReady is True while nodes have all that they know clients
	// by. It is present only while clients are asked who they are.
	ConditionAuthenticationReady = "AuthenticationReady"
	// ConditionLinksEncrypted is True while nodes link to each other by TLS only.
	ConditionLinksEncrypted = "LinksEncrypted"
	// ConditionGossipKeyRotated is False while the key that encrypts gossip gives way to
	// another, and True when it has. It is not there before that is asked for.
	ConditionGossipKeyRotated = "GossipKeyRotated"
	// ConditionReconciling mirrors Progressing for kstatus.
	ConditionReconciling = "Reconciling"
	// ConditionStalled mirrors the reasons of Degraded that need a person.
	ConditionStalled = "Stalled"
)

// Reasons of the conditions; each comment names the condition that uses it.
const (
	// ReasonMajorityReady (Available): enough nodes are ready.
	ReasonMajorityReady = "MajorityReady"
	// ReasonTooFewNodesReady (Available): less than a majority is ready.
	ReasonTooFewNodesReady = "TooFewNodesReady"
	// ReasonScaledToZero (Available): the spec asks for no nodes.
	ReasonScaledToZero = "ScaledToZero"

	// ReasonComplete (Progressing): the nodes are what the spec asks for.
	ReasonComplete = "Complete"
	// ReasonScaling (Progressing): nodes are being added or removed.
	ReasonScaling = "Scaling"
	// ReasonRollingOut (Progressing): nodes are being replaced by updated ones.
	ReasonRollingOut = "RollingOut"
	// ReasonNodesStarting (Progressing): all nodes exist, some are not ready.
	ReasonNodesStarting = "NodesStarting"
	// ReasonRolloutStuck (Progressing): a replaced node does not come to work, or to be
	// there at all; no further one is replaced.
	ReasonRolloutStuck = "RolloutStuck"
	// ReasonAwaitingDeletion (Progressing): nodes run an earlier pod template until
	// somebody deletes their pods.
	ReasonAwaitingDeletion = "AwaitingDeletion"
	// ReasonVolumesGrowing (Progressing): volumes are not yet as large as the spec
	// asks for.
	ReasonVolumesGrowing = "VolumesGrowing"
	// ReasonAwaitingCertificates (Progressing): nodes are not started or changed before
	// there is a certificate for them; CertificatesReady says what is missing.
	ReasonAwaitingCertificates = "AwaitingCertificates"
	// ReasonAwaitingKeys (Progressing): nothing is started or changed before the cluster's
	// keys are known by which nodes know clients; AuthenticationReady says what is missing.
	ReasonAwaitingKeys = "AwaitingKeys"
	// ReasonPaused (Progressing): the spec asks the operator to change nothing.
	ReasonPaused = "Paused"
	// ReasonBlocked (Progressing): the operator can't go on; Degraded says why.
	ReasonBlocked = "Blocked"

	// ReasonAsExpected (Degraded): nothing is wrong.
	ReasonAsExpected = "AsExpected"
	// ReasonNodesFailing (Degraded): nodes crash, can't be scheduled, can't get
	// their image, or have not been ready, or had no pod, for long.
	ReasonNodesFailing = "NodesFailing"
	// ReasonQuorumLost (Degraded): nodes fail, and shards have no majority left.
	ReasonQuorumLost = "QuorumLost"
	// ReasonShardsWithoutLeader (Degraded): all nodes run, and shards have had no leader
	// for long.
	ReasonShardsWithoutLeader = "ShardsWithoutLeader"
	// ReasonDiskFull (Degraded): nodes refuse publishes, as their disks are nearly full.
	ReasonDiskFull = "DiskFull"
	// ReasonMemoryShort (Degraded): nodes refuse new clients, as their memory is nearly used up.
	ReasonMemoryShort = "MemoryShort"
	// ReasonCertificatesNotReady (Degraded): CertificatesReady is False, and not only
	// because an issuer has not yet answered.
	ReasonCertificatesNotReady = "CertificatesNotReady"
	// ReasonAuthenticationNotReady (Degraded): AuthenticationReady is False.
	ReasonAuthenticationNotReady = "AuthenticationNotReady"
	// ReasonMissingPermission (Degraded, Stalled): the API server refuses the
	// operator a right that it needs; the message names verb and resource.
	ReasonMissingPermission = "MissingPermission"
	// ReasonNameTaken (Degraded, Stalled): an object that the Hub needs exists
	// already and belongs to somebody else.
	ReasonNameTaken = "NameTaken"
	// ReasonInvalidSpec (Degraded, Stalled): the spec passed the API server's
	// validation and yet makes no valid node configuration.
	ReasonInvalidSpec = "InvalidSpec"
	// ReasonInvalidSecret (Degraded, Stalled): a Secret that nodes need is malformed.
	ReasonInvalidSecret = "InvalidSecret"
	// ReasonVolumesNotGrown (Degraded, Stalled): the API server refuses larger
	// volumes, as their storage class or a quota wants it.
	ReasonVolumesNotGrown = "VolumesNotGrown"
	// ReasonApplyFailed (Degraded): the API server refused an object, or could
	// not be reached; the operator tries again.
	ReasonApplyFailed = "ApplyFailed"

	// ReasonOperatorUpdated (UpdateAvailable): the operator is a newer one.
	ReasonOperatorUpdated = "OperatorUpdated"

	// ReasonApplied (ConfigApplied): every ready node runs the current settings.
	ReasonApplied = "Applied"
	// ReasonApplying (ConfigApplied): some nodes run earlier settings. The kubelet
	// brings new ones to a pod within about a minute.
	ReasonApplying = "Applying"
	// ReasonRejected (ConfigApplied): a node refuses the current settings and
	// goes on with its last good ones.
	ReasonRejected = "Rejected"
	// ReasonNodesUnreachable (ConfigApplied): ready nodes don't answer the operator.
	ReasonNodesUnreachable = "NodesUnreachable"
	// ReasonNoNodesReady (ConfigApplied): there is no ready node to ask.
	ReasonNoNodesReady = "NoNodesReady"

	// ReasonIssued (CertificatesReady): nodes have the certificate that they should.
	ReasonIssued = "Issued"
	// ReasonRotating (CertificatesReady): certificates of one authority give way to
	// those of another; the message says how far this is.
	ReasonRotating = "Rotating"
	// ReasonIssuerNotReady (CertificatesReady): cert-manager has not issued the
	// certificate, or is not installed; the message has its words.
	ReasonIssuerNotReady = "IssuerNotReady"
	// ReasonSecretNotFound (CertificatesReady): the Secret that the spec names is not there.
	ReasonSecretNotFound = "SecretNotFound"
	// ReasonSecretInvalid (CertificatesReady, LinksEncrypted): a Secret that certificates come from is
	// not what it has to be.
	ReasonSecretInvalid = "SecretInvalid"
	// ReasonExpired (CertificatesReady, LinksEncrypted): the certificate has expired.
	ReasonExpired = "Expired"

	// ReasonConfigured (AuthenticationReady): nodes have all that they know clients by.
	ReasonConfigured = "Configured"
	// ReasonKeysNotRead (AuthenticationReady): the API server does not say who issues the
	// cluster's tokens, or by which keys.
	ReasonKeysNotRead = "KeysNotRead"
	// ReasonSourceNotFound (AuthenticationReady): a Secret or ConfigMap that the spec names
	// is not there, or lacks the key.
	ReasonSourceNotFound = "SourceNotFound"
	// ReasonSourceInvalid (AuthenticationReady): a Secret or ConfigMap that the spec names
	// is not what it has to be.
	ReasonSourceInvalid = "SourceInvalid"

	// ReasonLinksRequireTLS (LinksEncrypted): every node refuses plain links.
	ReasonLinksRequireTLS = "LinksRequireTLS"
	// ReasonNodesWithoutTLS (LinksEncrypted): some nodes were started before links could
	// be encrypted; links of others with each other are.
	ReasonNodesWithoutTLS = "NodesWithoutTLS"
	// ReasonNodesGoingOver (LinksEncrypted): links are encrypted, and plain ones not yet
	// refused by every node: some are starting, or about to take the setting over.
	ReasonNodesGoingOver = "NodesGoingOver"

	// ReasonAwaitingNodes (GossipKeyRotated): the rotation has not begun, for some nodes
	// can't follow it, or say nothing.
	ReasonAwaitingNodes = "AwaitingNodes"
	// ReasonAddingKey (GossipKeyRotated): nodes come to accept the new key; all use the
	// old one.
	ReasonAddingKey = "AddingKey"
	// ReasonUsingKey (GossipKeyRotated): nodes come to use the new key; all accept both.
	ReasonUsingKey = "UsingKey"
	// ReasonRemovingKey (GossipKeyRotated): nodes come to accept the new key alone.
	ReasonRemovingKey = "RemovingKey"
	// ReasonKeyRotated (GossipKeyRotated): all nodes have the new key, and no other one.
	ReasonKeyRotated = "KeyRotated"

	// ReasonAllAccepted (TopicsAccepted, GrantsAccepted): the hub has taken them all.
	ReasonAllAccepted = "AllAccepted"
	// ReasonSomeRefused (TopicsAccepted, GrantsAccepted): the hub has not taken them all.
	ReasonSomeRefused = "SomeRefused"
)

// Reasons of events that no condition carries.
const (
	// ReasonReplacingNode: a node is replaced in a rollout.
	ReasonReplacingNode = "ReplacingNode"
	// ReasonRepaired: an object of the Hub was changed or deleted by somebody else,
	// and is as it should be again.
	ReasonRepaired = "Repaired"
	// ReasonAuthorityMade: a certificate authority of the Hub's own was made.
	ReasonAuthorityMade = "AuthorityMade"
	// ReasonCertificateReplaced: nodes are given another certificate.
	ReasonCertificateReplaced = "CertificateReplaced"
	// ReasonRotationStarted: another authority, or gossip key, is about to replace the
	// one before.
	ReasonRotationStarted = "RotationStarted"
	// ReasonRotationFinished: the authority, or gossip key, of before is no longer good
	// for anything.
	ReasonRotationFinished = "RotationFinished"
	// ReasonRotationRefused: a rotation that an annotation asks for can't be.
	ReasonRotationRefused = "RotationRefused"
	// ReasonReplacingWorkload: the StatefulSet is made again around its pods.
	ReasonReplacingWorkload = "ReplacingWorkload"
)

// NeedsPerson reports whether a reason of Degraded lasts until somebody acts.
func NeedsPerson(reason string) bool {
	switch reason {
	case ReasonMissingPermission, ReasonNameTaken, ReasonInvalidSpec, ReasonInvalidSecret, ReasonVolumesNotGrown:
		return true
	}
	return false
}

// IsHubCondition reports whether a condition type is one of those that the operator
// gives Hubs. Others may add theirs.
func IsHubCondition(condition string) bool {
	switch condition {
	case ConditionAvailable, ConditionProgressing, ConditionDegraded, ConditionConfigApplied, ConditionUpdateAvailable,
		ConditionTopicsAccepted, ConditionGrantsAccepted, ConditionCertificatesReady, ConditionAuthenticationReady,
		ConditionLinksEncrypted, ConditionGossipKeyRotated, ConditionReconciling, ConditionStalled:
		return true
	}
	return false
}
