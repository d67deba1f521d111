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
	if v.have == nil || v.have.Verify(v.have.Authorities, v.now) != nil {
		// Nobody can trust what nodes have: there is no one to be careful with.
		return certificatePlan{replace: v.have == nil || v.outdated(), authorities: v.source.authorities}
	}
	both := pki.Union(v.source.authorities, v.have.Authorities)
	since := v.rotation.Since
	if !v.told || !pki.Equal(both, v.have.Authorities) || since.After(v.now) {
		since = time.Time{}
	}
	spread := !since.IsZero() && v.now.Sub(since) >= spreadTime
	switch {
	case v.have.Verify(v.source.authorities, v.now) != nil:
		if v.rotation.Phase == manifests.RotationTrust && spread {
			return certificatePlan{replace: true, authorities: both, rotation: manifests.Rotation{Phase: manifests.RotationIssue}}
		}
		if v.rotation.Phase != manifests.RotationTrust {
			since = time.Time{}
		}
		return certificatePlan{authorities: both, rotation: manifests.Rotation{Phase: manifests.RotationTrust, Since: since}}
	case v.rotation.Phase != manifests.RotationIssue:
		return certificatePlan{replace: v.outdated(), authorities: v.source.authorities}
	case v.outdated():
		return certificatePlan{replace: true, authorities: both, rotation: manifests.Rotation{Phase: manifests.RotationIssue}}
	case spread:
		return certificatePlan{authorities: v.source.authorities}
	default:
		return certificatePlan{authorities: both, rotation: manifests.Rotation{Phase: manifests.RotationIssue, Since: since}}
	}
}
