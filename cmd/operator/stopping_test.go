package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/switchboardhub/switchboard/test/ports"
)

// TestOperatorGivesUpWaitingBeforeItIsKilled reads how long the operator's pods may take
// to stop: who is killed gives no lease back.
func TestOperatorGivesUpWaitingBeforeItIsKilled(t *testing.T) {
	files, err := filepath.Glob(rendered("*"))
	if err != nil {
		t.Fatal(err)
	}
	pods := 0
	for _, file := range append(files, filepath.Join("..", "..", "config", "manager", "deployment.yaml")) {
		for _, pod := range podTemplates(t, file) {
			if pod.Containers[0].Name != "operator" {
				continue
			}
			pods++
			if grace := pod.TerminationGracePeriodSeconds; grace == nil || stopTime+time.Second >= time.Duration(*grace)*time.Second {
				t.Errorf("%s: the pod has %d s to stop, the manager takes %s of them", file, grace, stopTime)
			}
		}
	}
	if pods < 2 {
		t.Errorf("%d pods of operators, want those of the chart and of config", pods)
	}
}

// TestOperatorThatCantStopGivesTheLeaseBack has somebody ask for metrics who does not
// finish, for which the manager waits when it stops.
func TestOperatorThatCantStopGivesTheLeaseBack(t *testing.T) {
	env, c := start(t)
	createAll(t, c, filepath.Join("..", "..", "config", "rbac", "*.yaml"))
	metrics := ports.Free(t)
	p := runOperator(t, env, "--node-image=switchboard:test", "--leader-elect", "--metrics-secure=false", "--metrics-bind-address="+metrics)
	holder := func(ctx context.Context) (string, error) {
		lease := &coordinationv1.Lease{}
		err := c.Get(ctx, client.ObjectKey{Namespace: systemNamespace, Name: name}, lease)
		if err != nil || lease.Spec.HolderIdentity == nil {
			return "", err
		}
		return *lease.Spec.HolderIdentity, nil
	}
	p.eventually(t, func(ctx context.Context) error {
		who, err := holder(ctx)
		if err == nil && who == "" {
			err = errors.New("nobody holds the lease")
		}
		return err
	})

	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", metrics)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// The server waits for what it was promised, and answers others meanwhile.
	if _, err := io.WriteString(conn, "POST /metrics HTTP/1.1\r\nHost: operator\r\nContent-Length: 1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	p.eventually(t, answers("http://"+metrics+"/metrics", http.StatusOK, name))

	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.wait(t); err == nil {
		t.Error("it ended as if nothing had been left undone")
	}
	if want := fmt.Sprintf("within grace period of %s", stopTime); !strings.Contains(p.said.String(), want) {
		t.Errorf("it does not say %q", want)
	}
	if who, err := holder(t.Context()); err != nil || who != "" {
		t.Errorf("the lease is held by %q, error %v; the next operator has to wait", who, err)
	}
}
