package controllers

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/controllers/manifests"
	"github.com/switchboardhub/switchboard/hubnode/auth"
	"github.com/switchboardhub/switchboard/hubnode/topic"
	"github.com/switchboardhub/switchboard/wire"
)

// topicsAnswerBytes bounds the list of a hub's topics.
const topicsAnswerBytes = 256 << 20

// operatorClient begins the ids of clients that are the operator.
const operatorClient = FieldOwner + "-"

// HubClient purges topics as a client of their hub: the HTTP API changes nothing for
// others. Where the hub asks, it proves to be the operator. The zero value is ready to use.
type HubClient struct {
	// HTTP lists the topics: the list may be too long for a client.
	HTTP HTTPNodes
	// Port for clients; 0 means the one that pods have.
	Port int
}

// PurgeTopics implements TopicPurger.
func (h HubClient) PurgeTopics(ctx context.Context, hub PurgedHub, pattern string) (Purged, error) {
	var done Purged
	port := h.Port
	if port == 0 {
		port = int(manifests.PortClient)
	}
	var servers []string
	for _, address := range hub.Addresses {
		servers = append(servers, net.JoinHostPort(address, strconv.Itoa(port)))
	}
	// Purges of other topics of the hub may be under way: each is a client of its own.
	id := operatorClient + rand.Text()
	options := []client.Option{client.WithID(id), client.WithName(FieldOwner, ""), client.WithoutBroadcast(), client.WithoutSession()}
	if hub.TLS != nil {
		options = append(options, client.WithTLS(hub.TLS))
	}
	token, err := hub.prove(auth.OperatorProof{Client: id, Purges: pattern})
	if err != nil {
		return done, err
	}
	if token != "" {
		options = append(options, client.WithToken(token))
	}
	c, err := client.Connect(ctx, strings.Join(servers, ","), options...)
	if err != nil {
		return done, fmt.Errorf("connect to the hub: %w", explainRefusal(err))
	}
	defer func() { _ = c.Close() }() // nothing of ours is in flight
	server := c.Server()
	if server.Hub != hub.Identity { // a pod's address is used again by others once the pod is gone
		return done, fmt.Errorf("%s belongs to hub %q", server.Address, server.Hub)
	}
	host, _, err := net.SplitHostPort(server.Address)
	if err != nil {
		return done, fmt.Errorf("find the node that was connected to: %w", err)
	}
	names, err := h.keeping(ctx, hub, host, pattern)
	if err != nil {
		return done, err
	}
	for _, name := range names {
		n, err := purgeTopic(ctx, c, name)
		if err != nil {
			return done, fmt.Errorf("purge topic %s: %w", name, err)
		}
		done.Topics, done.Artifacts = done.Topics+1, done.Artifacts+n
	}
	return done, nil
}

// prove makes a token for this hub out of a proof; an empty one where nobody asks.
func (h PurgedHub) prove(proof auth.OperatorProof) (string, error) {
	if h.Credentials == nil {
		return "", nil
	}
	proof.Hub = h.Identity
	return proof.Sign(h.Credentials.Key(), h.Credentials.Leaf(), time.Now())
}

// explainRefusal says more of an error when nodes did not take the operator's proof.
func explainRefusal(err error) error {
	if refused, ok := errors.AsType[*wire.Error](err); ok && refused.Code == wire.CodeUnauthenticated {
		return fmt.Errorf("%w. Nodes of a version that does not know the operator have to be replaced, as by a restart (kubectl hub restart)", err)
	}
	return err
}

// explainPlain says more of an error when a node's HTTP port took no TLS.
func explainPlain(err error) error {
	if errors.Is(err, http.ErrSchemeMismatch) {
		return fmt.Errorf("%w. Nodes of a version whose HTTP port takes no TLS have to be replaced, as by a restart (kubectl hub restart)", err)
	}
	return err
}

// keeping returns the topics that match the pattern and keep artifacts.
func (h HubClient) keeping(ctx context.Context, hub PurgedHub, address, pattern string) ([]string, error) {
	// On a plain connection this proof can be overheard: it lets list topics, and no more.
	token, err := hub.prove(auth.OperatorProof{})
	if err != nil {
		return nil, err
	}
	var list struct {
		Topics []struct {
			Topic     string `json:"topic"`
			Artifacts int    `json:"artifacts"`
		} `json:"topics"`
		Incomplete bool `json:"incomplete"`
	}
	if err := h.HTTP.ask(ctx, address, "topics", asker{hub.TLS, token}, topicsAnswerBytes, &list); err != nil {
		return nil, explainPlain(err)
	}
	if list.Incomplete {
		return nil, errors.New("not every node of the hub answers, or a shard has no leader")
	}
	var names []string
	for _, t := range list.Topics {
		if t.Artifacts > 0 && topic.Match(pattern, t.Topic) {
			names = append(names, t.Topic)
		}
	}
	return names, nil
}

// purgeTopic deletes what a topic keeps and returns how many artifacts that was.
func purgeTopic(ctx context.Context, c *client.Client, name string) (uint64, error) {
	body, err := json.Marshal(map[string]string{"topic": name})
	if err != nil {
		return 0, err
	}
	answer, err := c.Request(ctx, "$hub.topics.purge", &wire.Artifact{Payload: body})
	if err != nil {
		return 0, err
	}
	var purged struct {
		Artifacts uint64 `json:"artifacts"`
	}
	if err := json.Unmarshal(answer.Payload, &purged); err != nil {
		return 0, fmt.Errorf("read the hub's answer: %w", err)
	}
	return purged.Artifacts, nil
}
