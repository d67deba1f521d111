package kubehub

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
	"sigs.k8s.io/controller-runtime/pkg/client"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
	"github.com/switchboardhub/switchboard/controllers/pki"
	"github.com/switchboardhub/switchboard/hubnode"
)

const (
	// askTime bounds one question to a node, and reachTime what of it is for reaching the
	// node: for a while a machine that is lost counts as ready, and nothing there answers.
	askTime   = 10 * time.Second
	reachTime = 5 * time.Second
	// listTime bounds asking one node after the other for a list.
	listTime = 30 * time.Second
	// answerBytes bounds an answer of a node.
	answerBytes = 256 << 20
)

// Dial opens a connection to a port of a pod as kubectl port-forward does, but
// without a port on this machine that others could use.
func (c *Cluster) Dial(ctx context.Context, pod string, port int32) (net.Conn, error) {
	t, err := c.tunnelTo(ctx, pod, port)
	if err != nil {
		return nil, err
	}
	return t, nil
}

func (c *Cluster) tunnelTo(ctx context.Context, pod string, port int32) (*tunnel, error) {
	dialer, err := c.dialer(pod)
	if err != nil {
		return nil, fmt.Errorf("reach %s: %w", pod, err)
	}
	type result struct {
		tunnel *tunnel
		err    error
	}
	done := make(chan result, 1)
	go func() { // it ends when the API server answers or its own patience does
		t, err := openTunnel(dialer, port)
		done <- result{t, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			return nil, fmt.Errorf("reach %s: %w", pod, plainUpgradeError(r.err))
		}
		return r.tunnel, nil
	case <-ctx.Done():
		go func() {
			if r := <-done; r.err == nil {
				_ = r.tunnel.Close() // nobody wants it any more
			}
		}()
		return nil, fmt.Errorf("reach %s: %w", pod, ctx.Err())
	}
}

// dialer asks for a websocket first, as kubectl does: many proxies know no SPDY,
// and older API servers no websockets.
func (c *Cluster) dialer(pod string) (httpstream.Dialer, error) {
	address := c.core.RESTClient().Post().Resource("pods").Namespace(c.Namespace).Name(pod).SubResource("portforward").URL()
	transport, upgrader, err := spdy.RoundTripperFor(c.config)
	if err != nil {
		return nil, err
	}
	websocket, err := portforward.NewSPDYOverWebsocketDialerForStreaming(address, c.config)
	if err != nil {
		return nil, err
	}
	return portforward.NewFallbackDialerForStreaming(websocket,
		spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, address),
		func(err error) bool { return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err) }), nil
}

// plainUpgradeError leaves out what says nothing to people.
func plainUpgradeError(err error) error {
	if _, text, found := strings.Cut(err.Error(), "error dialing backend: "); found {
		return errors.New(text)
	}
	return err
}

// tunnel is a connection through the API server. Its ends are a pipe's, which has
// the deadlines that a stream lacks.
type tunnel struct {
	net.Conn
	streams httpstream.Connection
	copying sync.WaitGroup

	mu     sync.Mutex // guards reason
	reason error      // why the other side ended it
}

func openTunnel(dialer httpstream.Dialer, port int32) (_ *tunnel, err error) {
	streams, _, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = streams.Close() // the first error says more
		}
	}()
	headers := http.Header{}
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	headers.Set(corev1.PortHeader, strconv.Itoa(int(port)))
	headers.Set(corev1.PortForwardRequestIDHeader, "0")
	problem, err := streams.CreateStream(headers)
	if err != nil {
		return nil, err
	}
	if err := problem.Close(); err != nil { // for our direction: we only read it
		return nil, err
	}
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := streams.CreateStream(headers)
	if err != nil {
		return nil, err
	}
	ours, theirs := net.Pipe()
	t := &tunnel{Conn: ours, streams: streams}
	t.copying.Go(func() {
		_, _ = io.Copy(data, theirs) // its end is told by the other direction
		_ = data.Close()
	})
	t.copying.Go(func() {
		_, _ = io.Copy(theirs, data)
		_ = data.Reset() // what is unsent would hold the problem back
		t.end(problem)
		_ = theirs.Close()
	})
	return t, nil
}

// end learns why the other side has ended.
func (t *tunnel) end(problem io.Reader) {
	text, err := io.ReadAll(problem)
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(text) > 0 {
		t.reason = errors.New(strings.TrimSpace(string(text)))
	} else if err != nil {
		t.reason = err
	}
}

// Read reads from the pod. At the end it tells what the kubelet said of it.
func (t *tunnel) Read(b []byte) (int, error) {
	n, err := t.Conn.Read(b)
	if errors.Is(err, io.EOF) {
		err = cmp.Or(t.why(), err)
	}
	return n, err
}

// why is why the other side ended it, nil while it has not or gave no reason.
func (t *tunnel) why() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.reason
}

// Close ends the connection and what copies for it.
func (t *tunnel) Close() error {
	_ = t.Conn.Close() // a pipe's never fails
	err := t.streams.Close()
	t.copying.Wait()
	return err
}

// HubDialer dials nodes of the Hub: an address is a pod's name and port, or what the
// nodes call themselves, a pod's IP and port.
func (c *Cluster) HubDialer(hub *switchboardv1alpha1.Hub) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, _, address string) (net.Conn, error) {
		host, portText, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		port, err := strconv.ParseInt(portText, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("address %s: %w", address, err)
		}
		if net.ParseIP(host) != nil {
			pods, err := c.nodes(ctx, hub)
			if err != nil {
				return nil, err
			}
			for i := range pods {
				if pods[i].Status.PodIP == host {
					host = pods[i].Name
				}
			}
			if net.ParseIP(host) != nil {
				return nil, fmt.Errorf("no node of Hub %s has the address %s now", hub.Name, host)
			}
		}
		return c.Dial(ctx, host, int32(port))
	}
}

// Servers returns where clients connect, through HubDialer: the ready nodes.
func (c *Cluster) Servers(ctx context.Context, hub *switchboardv1alpha1.Hub) (string, error) {
	nodes, err := c.readyNodes(ctx, hub)
	if err != nil {
		return "", err
	}
	for i, node := range nodes {
		nodes[i] = fmt.Sprintf("%s:%d", node, manifests.PortClient)
	}
	return strings.Join(nodes, ","), nil
}

// readyNodes returns the names of the nodes that are ready, which are some.
func (c *Cluster) readyNodes(ctx context.Context, hub *switchboardv1alpha1.Hub) ([]string, error) {
	pods, err := c.nodes(ctx, hub)
	if err != nil {
		return nil, err
	}
	var names []string
	for i := range pods {
		if podReady(&pods[i]) {
			names = append(names, pods[i].Name)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("none of the %d nodes of Hub %s is ready; kubectl hub status %[2]s says more", len(pods), hub.Name)
	}
	return names, nil
}

// List returns a list that the Hub's nodes give over their HTTP API, such as "clients", as
// JSON: that of the first ready node which answers. Nodes tell it to whoever may forward
// their ports, also where clients have to prove who they are.
func (c *Cluster) List(ctx context.Context, hub *switchboardv1alpha1.Hub, list string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	nodes, err := c.readyNodes(ctx, hub)
	if err != nil {
		return nil, err
	}
	errs := make([]error, len(nodes))
	for i, node := range nodes {
		var body []byte
		if body, errs[i] = c.get(ctx, node, "/v1/"+list); errs[i] == nil {
			return bytes.TrimSuffix(body, []byte("\n")), nil
		}
	}
	return nil, errs[0]
}

// TLS returns how clients trust the nodes, by the Hub's ConfigMap; nil when it takes no
// encrypted connections.
func (c *Cluster) TLS(ctx context.Context, hub *switchboardv1alpha1.Hub) (*tls.Config, error) {
	if !manifests.ServesTLS(hub) {
		return nil, nil
	}
	trust := &corev1.ConfigMap{}
	if err := c.client.Get(ctx, client.ObjectKey{Namespace: hub.Namespace, Name: manifests.AuthorityName(hub)}, trust); err != nil {
		return nil, fmt.Errorf("read whom clients of Hub %s trust: %w", hub.Name, err)
	}
	return manifests.ClientTLS(hub, trust.Data[pki.AuthoritiesKey])
}

// get asks a node's HTTP API, by the name that it knows itself under: what comes to it
// through a tunnel comes over its loopback.
func (c *Cluster) get(ctx context.Context, pod, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	reach, cancelReach := context.WithTimeout(ctx, reachTime)
	defer cancelReach()
	node, err := c.tunnelTo(reach, pod, manifests.PortHTTP)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", pod, err)
	}
	web := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, // with which it closes the tunnel
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return node, nil },
	}}
	resp, err := web.Do(req)
	if problem, ok := errors.AsType[*url.Error](err); ok {
		// Which pod was asked, and how, is nobody's business. A tunnel that ended
		// before the question was written is told in net/http's words.
		err = cmp.Or(node.why(), problem.Err)
	}
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", pod, err)
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	body, err := io.ReadAll(io.LimitReader(resp.Body, answerBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("ask %s for %s: %w", pod, path, err)
	case resp.StatusCode == http.StatusNotFound:
		return nil, fmt.Errorf("ask %s for %s: its version tells that only to clients: say who you are with --token-file or --cert-file", pod, path)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("ask %s for %s: it answers %s: %s", pod, path, resp.Status, oneLine(string(body)))
	case len(body) > answerBytes:
		return nil, fmt.Errorf("ask %s for %s: it answers with more than %d bytes", pod, path, answerBytes)
	}
	return body, nil
}

// nodeStatus asks a node how it is.
func (c *Cluster) nodeStatus(ctx context.Context, pod string) (*hubnode.Status, error) {
	body, err := c.get(ctx, pod, "/v1/status")
	if err != nil {
		return nil, err
	}
	status := &hubnode.Status{}
	if err := json.Unmarshal(body, status); err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", pod, err)
	}
	return status, nil
}
