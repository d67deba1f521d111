package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// standByTime is how often an operator that stands by looks who holds the lease, and how
// long it does not: what was released is taken before.
const standByTime = 5 * time.Second

// ownNamespace is where a pod finds the name of its namespace.
const ownNamespace = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// standBy logs who holds the lease, as long as it is another operator: one of another
// release is what somebody has to find who wonders that this one does nothing.
type standBy struct {
	reader client.Reader
	lease  client.ObjectKey
	acts   <-chan struct{} // closed when this operator holds the lease
	log    logr.Logger
}

// addStandBy adds it to the manager.
func addStandBy(mgr ctrl.Manager, opts *options, log logr.Logger) error {
	ns := opts.leaderNamespace
	if ns == "" { // as the manager finds it
		found, err := os.ReadFile(ownNamespace)
		if err != nil {
			return fmt.Errorf("find the namespace of the lease: %w", err)
		}
		ns = strings.TrimSpace(string(found))
	}
	lease := client.ObjectKey{Namespace: ns, Name: opts.leaseName}
	return mgr.Add(&standBy{reader: mgr.GetAPIReader(), lease: lease, acts: mgr.Elected(), log: log})
}

// NeedLeaderElection says that it runs without the lease.
func (*standBy) NeedLeaderElection() bool { return false }

// Start logs until the operator acts or ends.
func (s *standBy) Start(ctx context.Context) error {
	tick := time.NewTicker(standByTime)
	defer tick.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.acts:
			return nil
		case <-tick.C:
		}
		lease := &coordinationv1.Lease{}
		if err := s.reader.Get(ctx, s.lease, lease); err != nil {
			continue // whoever tries for it logs the same
		}
		if holder := lease.Spec.HolderIdentity; holder != nil && *holder != "" && *holder != said {
			s.log.Info("Standing by: another operator acts", "lease", s.lease.String(), "holder", *holder)
			said = *holder
		}
	}
}
