package controllers

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/controller-runtime/pkg/client"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
)

// grantsOf returns the Grants that refer to a Hub.
func (r *HubReconciler) grantsOf(ctx context.Context, hub client.ObjectKey) ([]switchboardv1alpha1.Grant, error) {
	grants := &switchboardv1alpha1.GrantList{}
	if err := r.List(ctx, grants, client.MatchingFields{indexHubRef: hub.String()}); err != nil {
		return nil, fmt.Errorf("list the Hub's Grants: %w", err)
	}
	return grants.Items, nil
}

// gatherGrants finds out which Grants the hub takes.
func (r *HubReconciler) gatherGrants(ctx context.Context, p *pass) error {
	grants, err := r.grantsOf(ctx, client.ObjectKeyFromObject(p.hub))
	if err != nil {
		return err
	}
	known := r.memory.of(client.ObjectKeyFromObject(p.hub))
	p.seen.grants, known.grants = decideGrants(p.hub, grants, known.grants)
	return nil
}

// writeGrants tells all Grants of the Hub how they stand.
func (r *HubReconciler) writeGrants(ctx context.Context, p *pass) error {
	var g errgroup.Group
	g.SetLimit(writeAtOnce)
	applied := configAppliedCondition(p.hub, &p.seen)
	for _, c := range p.seen.grants {
		g.Go(func() error { return r.writeGrant(ctx, c, summarizeGrant(c, p.hub, applied, p.seen.now)) })
	}
	return g.Wait()
}

// tellGrantsOf tells all Grants that refer to a Hub why there is none.
func (r *HubReconciler) tellGrantsOf(ctx context.Context, hub client.ObjectKey, missing string) error {
	grants, err := r.grantsOf(ctx, hub)
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(writeAtOnce)
	for i := range grants {
		c := &grantClaim{grant: &grants[i]}
		c.refuse(switchboardv1alpha1.ReasonHubNotFound, "%s", missing)
		g.Go(func() error { return r.writeGrant(ctx, c, summarizeGrant(c, nil, noHub, r.now())) })
	}
	return g.Wait()
}

// writeGrant writes a Grant's status if it is another one, and tells what changed.
func (r *HubReconciler) writeGrant(ctx context.Context, c *grantClaim, status switchboardv1alpha1.GrantStatus) error {
	grant := c.grant
	if !grant.DeletionTimestamp.IsZero() || equality.Semantic.DeepEqual(grant.Status, status) {
		return nil
	}
	before := grant.DeepCopy()
	grant.Status = status
	if err := r.patchStatus(ctx, grant, before); err != nil {
		return err
	}
	for _, n := range guestNotices(before.Status.Conditions, grant.Status.Conditions) {
		r.tell(grant, n)
	}
	return nil
}
