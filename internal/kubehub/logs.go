package kubehub

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
)

// LogOptions say which lines of logs are wanted.
type LogOptions struct {
	Node     string        // as Cluster.Node takes it; empty: all nodes
	Follow   bool          // go on with what is written next, also by a node's next pod
	Since    time.Duration // 0: from the beginning
	Tail     int64         // lines from the end of each node's log; negative: all
	Previous bool          // of the containers before
	JSON     bool          // each line as {"node","line"}
}

// Logs writes the logs of the Hub's nodes to out, each line with its node's name in
// front when there are several. A node of several that has no log is told, and is no
// error unless none has one.
func (c *Cluster) Logs(ctx context.Context, hub *switchboardv1alpha1.Hub, o LogOptions, out io.Writer, tell Progress) error {
	pods, err := c.nodes(ctx, hub)
	if err != nil {
		return err
	}
	if o.Node != "" {
		pod, err := c.Node(ctx, hub, o.Node)
		if err != nil {
			return err
		}
		pods = []corev1.Pod{*pod}
	}
	if len(pods) == 0 {
		return fmt.Errorf("Hub %s has no nodes now", hub.Name)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := &lineWriter{out: out, json: o.JSON, prefix: len(pods) > 1, stop: cancel}
	errs := make([]error, len(pods))
	read := func(i int) {
		errs[i] = c.nodeLog(ctx, &pods[i], o, w)
		if errs[i] != nil && len(pods) > 1 && ctx.Err() == nil {
			tell("%s: %v", pods[i].Name, errs[i])
		}
	}
	var reading sync.WaitGroup
	for i := range pods {
		if !o.Follow { // whole logs one after the other, not mixed
			read(i)
			continue
		}
		reading.Go(func() { read(i) })
	}
	reading.Wait()
	if w.err != nil {
		return w.err
	}
	for _, err := range errs {
		if err == nil {
			return nil
		}
	}
	return errs[0]
}

// nodeLog copies the log of one node.
func (c *Cluster) nodeLog(ctx context.Context, pod *corev1.Pod, o LogOptions, w *lineWriter) error {
	request := corev1.PodLogOptions{Container: manifests.NodeContainer, Follow: o.Follow, Previous: o.Previous}
	if o.Since > 0 {
		request.SinceSeconds = new(max(1, int64(o.Since.Seconds())))
	}
	if o.Tail >= 0 {
		request.TailLines = &o.Tail
	}
	for {
		err := c.copyLog(ctx, pod.Name, &request, w)
		if !o.Follow || ctx.Err() != nil {
			return err
		}
		ended, before := metav1.Now(), incarnation(pod)
		if err := c.awaitRunning(ctx, pod); err != nil {
			return err
		}
		request.SinceSeconds, request.TailLines, request.SinceTime = nil, nil, nil
		if incarnation(pod) == before { // only the connection was lost
			request.SinceTime = &ended
		}
	}
}

func (c *Cluster) copyLog(ctx context.Context, pod string, o *corev1.PodLogOptions, w *lineWriter) error {
	stream, err := c.core.Pods(c.Namespace).GetLogs(pod, o).Stream(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }() // it was only read
	lines := bufio.NewReader(stream)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 && !w.write(pod, line) {
			return nil // which has told why
		}
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read the log of %s: %w", pod, err)
		}
	}
}

// awaitRunning waits until the node's container runs, after its log has ended,
// and makes pod the one it is in.
func (c *Cluster) awaitRunning(ctx context.Context, pod *corev1.Pod) error {
	looked := false
	return wait(ctx, func(string, ...any) {}, func(ctx context.Context) (string, error) {
		now, err := c.core.Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
		first := !looked
		looked = true
		switch {
		case apierrors.IsNotFound(err):
			return "the next pod is not there yet", nil
		case err != nil:
			return "", err
		case first, incarnation(now) == "": // at first Kubernetes may not know yet that it has ended
			return "it does not run yet", nil
		}
		*pod = *now
		return "", nil
	})
}

// incarnation names the node's container that runs in a pod, or none.
func incarnation(pod *corev1.Pod) string {
	for _, s := range pod.Status.ContainerStatuses {
		if s.Name == manifests.NodeContainer && s.State.Running != nil {
			return s.ContainerID
		}
	}
	return ""
}

// lineWriter writes lines of several logs whole.
type lineWriter struct {
	out    io.Writer
	json   bool
	prefix bool
	stop   func() // ends the reading when writing fails

	mu  sync.Mutex // guards err and what is written
	err error
}

// write writes a line of a node's log and reports whether more are wanted.
func (w *lineWriter) write(node string, line []byte) bool {
	if line[len(line)-1] != '\n' {
		line = append(line, '\n')
	}
	switch {
	case w.json:
		encoded, err := json.Marshal(map[string]string{"node": node, "line": string(line[:len(line)-1])})
		if err != nil {
			return false // strings always can be
		}
		encoded = append(encoded, '\n')
		line = encoded
	case w.prefix:
		line = append([]byte("["+node+"] "), line...)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		if _, w.err = w.out.Write(line); w.err != nil {
			w.stop()
		}
	}
	return w.err == nil
}
