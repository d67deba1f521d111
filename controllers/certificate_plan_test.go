package controllers

import (
	"crypto/x509"
	"fmt"
	"testing"
	"time"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
	"github.com/switchboardhub/switchboard/controllers/pki"
)

func TestPlanCertificate(t *testing.T) {
	names := pki.Names{DNS: []string{"agents"}}
	old, newer := testAuthority(t), testAuthority(t)
	issued := func(a *pki.Authority, trust ...*pki.Authority) *pki.Credentials {
		c, err := a.Issue(names, testNow)
		if err != nil {
			t.Fatal(err)
		}
		return c.Trusting(certificatesOf(trust...))
	}
	ofOld, ofOldTrustingBoth := issued(old, old), issued(old, newer, old)
	ofNewTrustingBoth := issued(newer, newer, old)
	another := issued(newer, newer)
	const trust, issue = manifests.RotationTrust, manifests.RotationIssue
	at := func(phase manifests.RotationPhase, ago time.Duration) manifests.Rotation {
		return manifests.Rotation{Phase: phase, Since: testNow.Add(-ago)}
	}
	tests := map[string]struct {
		view certificateView
		want certificatePlan
	}{
		"nothing is there": {
			certificateView{source: &certificateSource{offer: ofOld}},
			certificatePlan{replace: true, authorities: certificatesOf(old)},
		},
		"all is well": {
			certificateView{source: &certificateSource{}, have: ofOld, told: true},
			certificatePlan{authorities: certificatesOf(old)},
		},
		"it is to be renewed": {
			certificateView{source: &certificateSource{offer: issued(old, old)}, have: ofOld, told: true},
			certificatePlan{replace: true, authorities: certificatesOf(old)},
		},
		"somebody gives what nodes have": {
			certificateView{source: &certificateSource{offer: ofOld}, have: ofOld, told: true},
			certificatePlan{authorities: certificatesOf(old)},
		},
		"it has expired, and the authority is another one": {
			certificateView{now: testNow.Add(pki.CertificateLife + time.Hour), source: &certificateSource{authorities: certificatesOf(newer), offer: another}, have: ofOld, told: true},
			certificatePlan{replace: true, authorities: certificatesOf(newer)},
		},
		"another authority": {
			certificateView{source: &certificateSource{authorities: certificatesOf(newer), offer: another}, have: ofOld, told: true},
			certificatePlan{authorities: certificatesOf(newer, old), rotation: manifests.Rotation{Phase: trust}},
		},
		"its time has not begun": {
			certificateView{source: &certificateSource{authorities: certificatesOf(newer), offer: another}, have: ofOldTrustingBoth, rotation: manifests.Rotation{Phase: trust}, told: true},
			certificatePlan{authorities: certificatesOf(newer, old), rotation: manifests.Rotation{Phase: trust}},
		},
		"clients may not have it yet": {
			certificateView{source: &certificateSource{authorities: certificatesOf(newer), offer: another}, have: ofOldTrustingBoth, rotation: at(trust, spreadTime-time.Second), told: true},
			certificatePlan{authorities: certificatesOf(newer, old), rotation: at(trust, spreadTime-time.Second)},
		},
		"clients were told of something else": {
			certificateView{source: &certificateSource{authorities: certificatesOf(newer), offer: another}, have: ofOldTrustingBoth, rotation: at(trust, time.Hour)},
			certificatePlan{authorities: certificatesOf(newer, old), rotation: manifests.Rotation{Phase: trust}},
		},
		"a time to come": {
			certificateView{source: &certificateSource{authorities: certificatesOf(newer), offer: another}, have: ofOldTrustingBoth, rotation: at(trust, -time.Hour), told: true},
			certificatePlan{authorities: certificatesOf(newer, old), rotation: manifests.Rotation{Phase: trust}},
		},
		"a third authority comes between": {
			certificateView{source: &certificateSource{authorities: certificatesOf(testAuthority(t)), offer: another}, have: ofOldTrustingBoth, rotation: at(trust, time.Hour), told: true},
			certificatePlan{rotation: manifests.Rotation{Phase: trust}}, // and all three
		},
		"all trust it": {
			certificateView{source: &certificateSource{authorities: certificatesOf(newer), offer: another}, have: ofOldTrustingBoth, rotation: at(trust, spreadTime), told: true},
			certificatePlan{replace: true, authorities: certificatesOf(newer, old), rotation: manifests.Rotation{Phase: issue}},
		},
		"nodes may not have its certificate yet": {
			certificateView{source: &certificateSource{authorities: certificatesOf(newer)}, have: ofNewTrustingBoth, rotation: at(issue, spreadTime-time.Second), told: true},
			certificatePlan{authorities: certificatesOf(newer, old), rotation: at(issue, spreadTime-time.Second)},
		},
		"another certificate comes between": {
			certificateView{source: &certificateSource{authorities: certificatesOf(newer), offer: another}, have: ofNewTrustingBoth, rotation: at(issue, time.Hour), told: true},
			certificatePlan{replace: true, authorities: certificatesOf(newer, old), rotation: manifests.Rotation{Phase: issue}},
		},
		"yet another authority, while nodes get a certificate of this one": {
			certificateView{source: &certificateSource{authorities: certificatesOf(old), offer: ofOld}, have: ofNewTrustingBoth, rotation: at(issue, time.Hour), told: true},
			certificatePlan{authorities: certificatesOf(old, newer), rotation: manifests.Rotation{Phase: trust}},
		},
		"all have its certificate": {
			certificateView{source: &certificateSource{authorities: certificatesOf(newer)}, have: ofNewTrustingBoth, rotation: at(issue, spreadTime), told: true},
			certificatePlan{authorities: certificatesOf(newer)},
		},
		"a certificate of an authority that comes with it": {
			certificateView{source: &certificateSource{authorities: certificatesOf(old, newer), offer: another}, have: ofOld, told: true},
			certificatePlan{authorities: certificatesOf(old, newer), rotation: manifests.Rotation{Phase: trust}},
		},
		"all trust what came with it": {
			certificateView{source: &certificateSource{authorities: certificatesOf(newer, old), offer: another}, have: ofOldTrustingBoth, rotation: at(trust, spreadTime), told: true},
			certificatePlan{replace: true, authorities: certificatesOf(newer, old), rotation: manifests.Rotation{Phase: issue}},
		},
		"somebody took the phase away": {
			certificateView{source: &certificateSource{authorities: certificatesOf(newer)}, have: ofNewTrustingBoth, told: true},
			certificatePlan{authorities: certificatesOf(newer, old), rotation: manifests.Rotation{Phase: issue}},
		},
		"the clock was put back": {
			certificateView{now: testNow.Add(-time.Hour), source: &certificateSource{authorities: certificatesOf(newer)}, have: ofNewTrustingBoth, rotation: at(issue, 0), told: true},
			certificatePlan{authorities: certificatesOf(newer, old), rotation: manifests.Rotation{Phase: issue}},
		},
		"what nodes have was lost in a rotation": {
			certificateView{source: &certificateSource{authorities: certificatesOf(newer), offer: another}, trusted: certificatesOf(newer, old)},
			certificatePlan{replace: true, authorities: certificatesOf(newer, old), rotation: manifests.Rotation{Phase: issue}},
		},
		"the old one comes back before anything was issued": {
			certificateView{source: &certificateSource{authorities: certificatesOf(old)}, have: ofOldTrustingBoth, rotation: at(trust, time.Minute), told: true},
			certificatePlan{authorities: certificatesOf(old)},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			v := tt.view
			if v.now.IsZero() {
				v.now = testNow
			}
			if v.source.authorities == nil {
				v.source.authorities = certificatesOf(old)
			}
			want := tt.want
			if want.authorities == nil {
				want.authorities = pki.Union(v.source.authorities, v.have.Authorities)
			}
			got := planCertificate(v)
			if got.replace != want.replace || got.rotation != want.rotation {
				t.Errorf("replace %v, rotation %+v; want %v, %+v", got.replace, got.rotation, want.replace, want.rotation)
			}
			if !pki.Equal(got.authorities, want.authorities) {
				t.Errorf("trust in %v, want %v", described(got.authorities), described(want.authorities))
			}
		})
	}
}

// Whatever is done and in which order: at no time do nodes that are behind by one step
// meet a certificate that they can't verify.
func TestRotationNeverShowsAnUnknownAuthority(t *testing.T) {
	old, newer := testAuthority(t), testAuthority(t)
	source := &certificateSource{authorities: certificatesOf(newer)}
	var err error
	if source.offer, err = newer.Issue(pki.Names{DNS: []string{"agents"}}, testNow); err != nil {
		t.Fatal(err)
	}
	have, err := old.Issue(pki.Names{DNS: []string{"agents"}}, testNow)
	if err != nil {
		t.Fatal(err)
	}
	var rotation manifests.Rotation
	now, replaced := testNow, 0
	for step := 0; ; step++ {
		if step > 100 {
			t.Fatal("the rotation does not end")
		}
		plan := planCertificate(certificateView{now: now, source: source, have: have, rotation: rotation, told: true})
		next := have
		if plan.replace {
			next = source.offer
			replaced++
		}
		next = next.Trusting(plan.authorities)
		for who, trusted := range map[string][]*x509.Certificate{"who is behind": have.Authorities, "who is not": next.Authorities} {
			for what, shown := range map[string]*pki.Credentials{"before": have, "after": next} {
				if err := shown.Verify(trusted, now); err != nil {
					t.Errorf("step %d: %s refuses the certificate of %s: %v", step, who, what, err)
				}
			}
		}
		have, rotation = next, plan.rotation
		if rotation.Phase == "" {
			break
		}
		if rotation.Since.IsZero() {
			rotation.Since = now
		}
		now = now.Add(time.Minute)
	}
	if !pki.Equal(have.Authorities, certificatesOf(newer)) || replaced != 1 || now.Sub(testNow) != 2*spreadTime {
		t.Errorf("after %v trust is in %v, the certificate was replaced %d times", now.Sub(testNow), described(have.Authorities), replaced)
	}
}

func TestNextLookIsWhenSomethingIsDue(t *testing.T) {
	have, err := testAuthority(t).Issue(pki.Names{DNS: []string{"agents"}}, testNow)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		seen certificates
		want time.Duration
	}{
		"without TLS":        {certificates{}, 0},
		"a renewal":          {certificates{have: have, renews: new(testNow.Add(time.Hour))}, time.Hour + time.Second},
		"somebody's expires": {certificates{have: have}, pki.CertificateLife + time.Second},
		"a phase ends": {certificates{
			have: have, renews: new(testNow.Add(time.Hour)),
			rotation: manifests.Rotation{Phase: manifests.RotationTrust, Since: testNow.Add(-time.Minute)},
		}, spreadTime - time.Minute + time.Second},
		"expired long ago": {certificates{have: have, renews: new(testNow.Add(-time.Hour))}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tt.seen.after(testNow); got != tt.want {
				t.Errorf("after %v, want %v", got, tt.want)
			}
		})
	}
}

func testAuthority(t *testing.T) *pki.Authority {
	t.Helper()
	a, err := pki.NewAuthority("agents", testNow)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func certificatesOf(authorities ...*pki.Authority) (all []*x509.Certificate) {
	for _, a := range authorities {
		all = append(all, a.Certificate)
	}
	return all
}

func described(certificates []*x509.Certificate) (texts []string) {
	for _, c := range certificates {
		texts = append(texts, fmt.Sprintf("%X", c.SerialNumber))
	}
	return texts
}

// An authority that somebody has put into the Secret is theirs to replace.
func TestOnlyOurAuthorityIsReplacedByItsAge(t *testing.T) {
	begin := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	ours, err := pki.NewAuthority("ours", begin)
	if err != nil {
		t.Fatal(err)
	}
	theirs := *ours
	certificate := *ours.Certificate
	certificate.Subject.Organization = []string{"Example"}
	theirs.Certificate = &certificate
	for name, test := range map[string]struct {
		authority *pki.Authority
		age       time.Duration
		want      bool
	}{
		"ours, young":   {ours, pki.AuthorityLife / 2, false},
		"ours, old":     {ours, pki.AuthorityLife / 10 * 9, true},
		"theirs, young": {&theirs, pki.AuthorityLife / 2, false},
		"theirs, old":   {&theirs, pki.AuthorityLife / 10 * 9, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := &pass{hub: &switchboardv1alpha1.Hub{Spec: switchboardv1alpha1.HubSpec{TLS: &switchboardv1alpha1.TLSSpec{}}}}
			p.seen.now = begin.Add(test.age)
			if due := authorityDue(p, clientIdentity(p.hub), nodeSecret{}, true, true, test.authority); (due != nil) != test.want {
				t.Errorf("due: %v, want %v", due, test.want)
			}
		})
	}
}
