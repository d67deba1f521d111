package controllers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/controllers/manifests"
	"github.com/switchboardhub/switchboard/hubnode/topic"
	"github.com/switchboardhub/switchboard/wire"
)

// topicsAnswerBytes bounds the list of a hub's topics.
const topicsAnswerBytes = 256 << 20

// HubClient purges topics as a client of their hub, which any client may: the HTTP
// API changes nothing for others. The zero value is ready to use.
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
	options := []client.Option{client.WithName(FieldOwner, ""), client.WithoutBroadcast(), client.WithoutSession()}
	if hub.TLS != nil {
		options = append(options, client.WithTLS(hub.TLS))
	}
	c, err := client.Connect(ctx, strings.Join(servers, ","), options...)
	if err != nil {
		return done, fmt.Errorf("connect to the hub: %w", err)
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
	names, err := h.keeping(ctx, host, pattern)
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

// keeping returns the topics that match the pattern and keep artifacts.
func (h HubClient) keeping(ctx context.Context, address, pattern string) ([]string, error) {
	var list struct {
		Topics []struct {
			Topic     string `json:"topic"`
			Artifacts int    `json:"artifacts"`
		} `json:"topics"`
		Incomplete bool `json:"incomplete"`
	}
	if err := h.HTTP.ask(ctx, address, "topics", topicsAnswerBytes, &list); err != nil {
		return nil, err
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
