package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/healthz"

	"github.com/switchboardhub/switchboard/controllers"
)

const (
	// probeTime bounds what a probe waits for, well below the second that the kubelet does.
	probeTime = 500 * time.Millisecond
	// askTime bounds finding out why something could not be read.
	askTime = 30 * time.Second
)

// hasRead is the probe that an operator passes once it has read all that it watches. A
// pod that can't is not ready: in a rolling update it takes nobody's place.
func hasRead(c cache.Cache) healthz.Checker {
	return func(req *http.Request) error {
		ctx, cancel := context.WithTimeout(req.Context(), probeTime)
		defer cancel()
		if !c.WaitForCacheSync(ctx) {
			return errors.New("not all that is watched has been read")
		}
		return nil
	}
}

// runManager runs the manager until ctx ends, or gives up when it has not read all that
// is watched within a time. The manager itself would wait for ever, neither acting nor
// ending, and it runs nothing of ours before; so this waits beside it, and returns while
// it still does: nothing is held yet that would have to be given back.
func runManager(ctx context.Context, mgr ctrl.Manager, within time.Duration, namespaces []string) error {
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	reading, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	read := make(chan bool, 1)
	go func() { read <- mgr.GetCache().WaitForCacheSync(reading) }()

	select {
	case err := <-ended:
		return err
	case ok := <-read:
		switch {
		case ok:
			return <-ended
		case ctx.Err() != nil:
			return nil
		}
		ask, cancel := context.WithTimeout(ctx, askTime)
		defer cancel()
		return fmt.Errorf("what is watched was not read within %s:\n%w", within,
			unread(ask, mgr.GetAPIReader(), mgr.GetScheme(), controllers.Watched(), namespaces))
	}
}

// unread returns what the API server says of each kind that it does not list, in each
// of the namespaces (none: in all of them at once).
func unread(ctx context.Context, reader client.Reader, scheme *runtime.Scheme, kinds []client.Object, namespaces []string) error {
	bounded := len(namespaces) > 0
	if !bounded {
		namespaces = []string{metav1.NamespaceAll}
	}
	var errs []error
	for _, ns := range namespaces {
		for _, kind := range kinds {
			gvk, err := apiutil.GVKForObject(kind, scheme)
			if err != nil {
				return err
			}
			what := "list " + gvk.Kind
			if bounded {
				what += " in " + ns
			}
			list := &metav1.PartialObjectMetadataList{}
			list.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
			err = reader.List(ctx, list, client.InNamespace(ns), client.Limit(1))
			if err == nil {
				continue
			}
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
			if answer := apierrors.APIStatus(nil); !errors.As(err, &answer) && !meta.IsNoMatchError(err) {
				return errors.Join(errs...) // nobody answers, which is the same for all
			}
		}
	}
	switch {
	case len(errs) == 0:
		return errors.New("all of it can be listed now: the API server was away, or takes long")
	case bounded:
		errs = append(errs, errors.New("a namespace that was deleted has to be taken out of --watch-namespaces (watchNamespaces of the chart)"))
	}
	return errors.Join(errs...)
}
