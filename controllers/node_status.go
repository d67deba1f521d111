package controllers

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/switchboardhub/switchboard/controllers/manifests"
	"github.com/switchboardhub/switchboard/hubnode/config"
)

// NodeReport is what a node says of itself: the part of the answer to
// GET /v1/status that the operator uses.
type NodeReport struct {
	// Node is the node's name, which is its pod's.
	Node string `json:"node"`
	// Hub is the identity of the hub that the node belongs to.
	Hub string `json:"hub"`
	// ConfigHash is the SHA-256 of the settings file that it runs, in hex.
	ConfigHash string `json:"configHash"`
	// ConfigError is why it refuses the file that is there, or empty.
	ConfigError string `json:"configError"`
	// ShardsUnsettled is how many shards are not where these settings want them, as
	// far as the node knows.
	ShardsUnsettled int `json:"shardsUnsettled"`
	// ClusterTLS is how it links to other nodes, as tls.cluster in its settings; empty
	// from nodes of before there was such a thing.
	ClusterTLS config.TLSPolicy `json:"clusterTLS"`
	// GossipKeys are those of its gossip; nil from nodes of before they could change.
	GossipKeys *GossipKeysReport `json:"gossipKeys"`
	// Clients is how many clients it holds.
	Clients int64 `json:"clients"`
	// History is about the shards that it leads.
	History HistoryReport `json:"history"`
	// Disk is about the disk that its history is on; nil: it is in memory.
	Disk *DiskReport `json:"disk"`
	// Memory is about its memory; nodes of before it had a limit say nothing.
	Memory MemoryReport `json:"memory"`
}

// GossipKeysReport says by which keys a node's gossip is encrypted, by their
// fingerprints (config.GossipKeyFingerprint).
type GossipKeysReport struct {
	// Primary is the one that encrypts what the node sends.
	Primary string `json:"primary"`
	// Accepted are all that it understands, sorted.
	Accepted []string `json:"accepted"`
	// Error is why it does not take over the file that is there, or empty.
	Error string `json:"error"`
}

// DiskReport says how a node's disk is.
type DiskReport struct {
	// FullSince is since when it has been nearly full, so that publishes are refused;
	// nil: there is room.
	FullSince *time.Time `json:"fullSince"`
	// Away is why the node is without its shards, for the disk can't be opened; empty: it
	// has them.
	Away string `json:"away"`
}

// MemoryReport says how a node's memory is.
type MemoryReport struct {
	// ShortSince is since when it has been near its limit, so that new clients are
	// refused; nil: it is not.
	ShortSince *time.Time `json:"shortSince"`
}

// HistoryReport says how the shards are that a node leads.
type HistoryReport struct {
	// Shards is how many the hub has; 0 while no topic keeps history.
	Shards int `json:"shards"`
	// Led is how many this node leads.
	Led int `json:"led"`
	// Whole is how many of these have all their replicas, caught up.
	Whole int `json:"whole"`
}

// NodeStatus asks nodes how they are. It is called from several goroutines.
type NodeStatus interface {
	// Status asks the node in the pod at address, and gives up when ctx ends.
	Status(ctx context.Context, address string) (NodeReport, error)
}

const (
	// nodeTimeout bounds one question about a node: it answers from memory.
	nodeTimeout = 2 * time.Second
	// nodeAnswerBytes bounds an answer: whatever listens there may not be a node.
	nodeAnswerBytes = 64 << 10
)

// HTTPNodes asks nodes over their HTTP port. The zero value is ready to use.
type HTTPNodes struct {
	// Port that nodes listen on; 0 means the one that pods have.
	Port int
}

// nodeClient opens a connection for each question: questions are seconds apart
// and pods come and go. Proxies are not for pod addresses. How long an answer may
// take is up to the question's context.
func nodeClient(secure *tls.Config) *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: secure}}
}

var plainNodeClient = nodeClient(nil)

// asker is who asks, and how. The zero value asks what nodes tell everybody.
type asker struct {
	tls   *tls.Config // nil: in the clear
	token string      // empty: nobody in particular
}

// reach returns by what a node is asked, and under which scheme.
func (a asker) reach() (web *http.Client, scheme string) {
	if a.tls == nil {
		return plainNodeClient, "http"
	}
	return nodeClient(a.tls), "https"
}

// Status implements NodeStatus.
func (n HTTPNodes) Status(ctx context.Context, address string) (NodeReport, error) {
	var report NodeReport
	if err := n.ask(ctx, address, "status", asker{}, nodeAnswerBytes, &report); err != nil {
		return NodeReport{}, err
	}
	return report, nil
}

// ask puts a question to the node at address and decodes its answer, of which it
// reads no more than limit bytes.
func (n HTTPNodes) ask(ctx context.Context, address, question string, who asker, limit int64, answer any) error {
	port := n.Port
	if port == 0 {
		port = int(manifests.PortHTTP)
	}
	web, scheme := who.reach()
	url := scheme + "://" + net.JoinHostPort(address, strconv.Itoa(port)) + "/v1/" + question
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return fmt.Errorf("ask a node: %w", err)
	}
	if who.token != "" {
		req.Header.Set("Authorization", "Bearer "+who.token)
	}
	resp, err := web.Do(req)
	if err != nil {
		return fmt.Errorf("ask a node: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask a node: %s answers %s", url, resp.Status)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, limit)).Decode(answer); err != nil {
		return fmt.Errorf("read a node's answer: %w", err)
	}
	return nil
}
