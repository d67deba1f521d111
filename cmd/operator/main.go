// Command operator runs the manager that turns Hub resources into hub nodes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers"
)

// version is set by the linker.
var version = "dev"

// name is under which the operator is known to the API server: in events, as user
// agent, and in its lease, unless that has a name of its own.
const name = "switchboard-operator"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	context.AfterFunc(ctx, stop) // the second signal has its default effect again
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
	err := run(ctx, os.Args[1:], os.Stderr)
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "operator:", err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "operator:", err)
		os.Exit(1)
	}
}

// garbagePercent is how much garbage may gather beside what lives. Nearly all memory
// is the cache, and at rest there is little garbage: less of it costs little.
const garbagePercent = 50

// stopTime bounds how long the manager waits for what it runs to end: less than the pod
// is given before it is killed, or the lease is still held then, and whoever is next waits
// until it expires.
const stopTime = 8 * time.Second

// run runs the operator until ctx ends and logs to out.
func run(ctx context.Context, args []string, out io.Writer) error {
	opts, err := parseOptions(args, os.LookupEnv, out)
	if err != nil {
		return err
	}
	if opts.showVersion {
		_, err := fmt.Fprintln(out, version)
		return err
	}
	log := logr.FromSlogHandler(opts.logHandler(out))
	ctrl.SetLogger(log)
	klog.SetLogger(log)

	cfg, err := restConfig(opts.kubeconfig)
	if err != nil {
		return fmt.Errorf("find a cluster (KUBECONFIG, --kubeconfig, or a pod's service account): %w", err)
	}
	mgr, err := newManager(ctx, cfg, opts, log)
	if err != nil {
		return err
	}
	log.Info("Starting", "version", version, "node_image", opts.nodeImage, "namespaces", opts.watchNamespaces)
	if err := runManager(ctx, mgr, opts.cacheSync, opts.watchNamespaces); err != nil {
		return fmt.Errorf("run the manager: %w", err)
	}
	return nil
}

func restConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		return ctrl.GetConfig()
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	cfg.QPS = -1 // as GetConfig: the API server knows better how much is fair
	return cfg, nil
}

func newManager(ctx context.Context, cfg *rest.Config, opts *options, log logr.Logger) (ctrl.Manager, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), switchboardv1alpha1.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("register the API types: %w", err)
	}
	cfg.UserAgent = name + "/" + version
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme:                  scheme,
		Logger:                  log,
		Cache:                   controllers.CacheOptions(opts.watchNamespaces),
		Client:                  controllers.ClientOptions(),
		Metrics:                 metricsOptions(opts),
		HealthProbeBindAddress:  opts.healthAddress,
		LeaderElection:          opts.leaderElect,
		LeaderElectionID:        opts.leaseName,
		LeaderElectionNamespace: opts.leaderNamespace,
		// The process ends when the manager has, so nobody acts after the release.
		LeaderElectionReleaseOnCancel: true,
		GracefulShutdownTimeout:       new(stopTime),
	})
	if err != nil {
		return nil, fmt.Errorf("set up the manager: %w", err)
	}
	issuer, err := controllers.NewAPIServerIssuer(cfg)
	if err != nil {
		return nil, err
	}
	r := &controllers.HubReconciler{
		Client:    mgr.GetClient(),
		Live:      mgr.GetAPIReader(),
		Recorder:  mgr.GetEventRecorder(name),
		Nodes:     controllers.HTTPNodes{},
		Issuer:    issuer,
		NodeImage: opts.nodeImage,

		Namespaces: opts.watchNamespaces, // as CacheOptions
	}
	if err := r.SetupWithManager(ctx, mgr, controller.Options{MaxConcurrentReconciles: opts.concurrency}); err != nil {
		return nil, err
	}
	topics := &controllers.TopicReconciler{Hubs: r, Purger: controllers.HubClient{}}
	if err := topics.SetupWithManager(mgr, controller.Options{MaxConcurrentReconciles: opts.concurrency}); err != nil {
		return nil, err
	}
	hubMetrics := controllers.HubMetrics{Reader: mgr.GetCache(), Acting: mgr.Elected()}
	if err := metrics.Registry.Register(hubMetrics); err != nil {
		return nil, fmt.Errorf("register the metrics of Hubs: %w", err)
	}
	if opts.leaderElect {
		if err := addStandBy(mgr, opts, log); err != nil {
			return nil, err
		}
	}
	if err := controllers.ReadAhead(ctx, mgr.GetCache()); err != nil {
		return nil, err
	}
	if err := errors.Join(mgr.AddHealthzCheck("ping", healthz.Ping), mgr.AddReadyzCheck("read", hasRead(mgr.GetCache()))); err != nil {
		return nil, fmt.Errorf("set up the probes: %w", err)
	}
	return mgr, nil
}

// metricsOptions serves the metrics over HTTPS, with a certificate made at each
// start, and asks the API server who may read them, unless opts say otherwise.
func metricsOptions(opts *options) metricsserver.Options {
	o := metricsserver.Options{BindAddress: opts.metricsAddress}
	if opts.metricsSecure {
		o.SecureServing = true
		o.FilterProvider = filters.WithAuthenticationAndAuthorization
	}
	return o
}
