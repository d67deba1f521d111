package controllers

import (
	"crypto/x509"
	"time"

	"github.com/switchboardhub/switchboard/controllers/manifests"
	"github.com/switchboardhub/switchboard/controllers/pki"
)

// spreadTime is how long a phase of a rotation lasts after it was written, so that
// every pod has it. The kubelet looks at a pod's volumes every minute, or half of one
// later, and may go by what it read up to a minute before; nodes look at their files
// after that, and clients when they connect again.
const spreadTime = 5 * time.Minute

// certificateSource is where nodes' certificates come from.
type certificateSource struct {
	// authorities are those that are to be trusted, when no rotation is under way.
	authorities []*x509.Certificate
	// offer is what nodes are to have; nil: what they have will do.
	offer *pki.Credentials
	// renews: the operator renews what it offers.
	renews bool
	// made: this pass has made the authority.
	made bool
}

// certificateView is what planCertificate decides by.
type certificateView struct {
	now    time.Time
	source *certificateSource
	// have is what nodes have, nil when that is nothing that the operator gave them.
	have     *pki.Credentials
	rotation manifests.Rotation
	// told: clients can read whom to trust, and it is the same as nodes have.
	told bool
	// trusted are the authorities that the operator has told clients of.
	trusted []*x509.Certificate
}

// certificatePlan is the next step from what nodes have to what they should.
type certificatePlan struct {
	replace     bool // by what the source offers
	authorities []*x509.Certificate
	// rotation is its phase; without a time that begins once all is written.
	rotation manifests.Rotation
}

// outdated reports whether the source has another certificate than nodes have.
func (v *certificateView) outdated() bool {
	return v.source.offer != nil && !pki.SameCertificate(v.have, v.source.offer)
}

// planCertificate returns the next step. A certificate of the authority that is trusted
// is replaced at once. Another authority takes three phases, so that nobody ever meets
// a certificate whose authority is new to it: first all trust both, then nodes
// get a certificate of the new one, then the old one is forgotten.
func planCertificate(v certificateView) certificatePlan {
	authorities := pki.Union(v.source.authorities, nil)
	if v.have == nil {
		// Nodes may still serve what was lost, and clients meet it.
		plan := certificatePlan{replace: true, authorities: pki.Union(authorities, v.trusted)}
		if !pki.Equal(plan.authorities, authorities) {
			plan.rotation.Phase = manifests.RotationIssue
		}
		return plan
	}
	now := v.now
	if begin := v.have.Leaf().NotBefore; now.Before(begin) {
		now = begin // our clock was put back; those of others may be right
	}
	if v.have.Verify(v.have.Authorities, now) != nil {
		// Nobody can trust what nodes have: there is no one to be careful with.
		return certificatePlan{replace: v.outdated(), authorities: authorities}
	}
	both := pki.Union(authorities, v.have.Authorities)
	since := v.rotation.Since
	if !v.told || !pki.Equal(both, v.have.Authorities) || since.After(v.now) {
		since = time.Time{}
	}
	spread := !since.IsZero() && v.now.Sub(since) >= spreadTime
	unknown := v.have.Verify(authorities, now) != nil || v.outdated() && v.source.offer.Verify(v.have.Authorities, now) != nil
	switch {
	case unknown || v.rotation.Phase == manifests.RotationTrust && v.outdated():
		if v.rotation.Phase == manifests.RotationTrust && spread {
			return certificatePlan{replace: true, authorities: both, rotation: manifests.Rotation{Phase: manifests.RotationIssue}}
		}
		if v.rotation.Phase != manifests.RotationTrust {
			since = time.Time{}
		}
		return certificatePlan{authorities: both, rotation: manifests.Rotation{Phase: manifests.RotationTrust, Since: since}}
	case v.rotation.Phase == "" && !pki.Equal(both, authorities):
		// Nodes may still serve what an authority has issued that is to be forgotten.
		return certificatePlan{replace: v.outdated(), authorities: both, rotation: manifests.Rotation{Phase: manifests.RotationIssue}}
	case v.rotation.Phase != manifests.RotationIssue:
		return certificatePlan{replace: v.outdated(), authorities: authorities}
	case v.outdated():
		return certificatePlan{replace: true, authorities: both, rotation: manifests.Rotation{Phase: manifests.RotationIssue}}
	case spread:
		return certificatePlan{authorities: authorities}
	default:
		return certificatePlan{authorities: both, rotation: manifests.Rotation{Phase: manifests.RotationIssue, Since: since}}
	}
}
