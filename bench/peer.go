package main

import (
	"context"
	"time"
)

// system is a message hub that scenarios run against: its servers as processes,
// and connections to them.
type system interface {
	name() string
	// start runs n servers that form one hub and returns when they are ready.
	start(ctx context.Context, n int) error
	// connect opens a connection to a server, 0 to n-1.
	connect(ctx context.Context, server int) (conn, error)
	// processes are the servers' ids.
	processes() []int
	stop()
}

// conn is one client's connection.
type conn interface {
	// subscribe calls got for each message of a topic, once the servers know of
	// the subscription.
	subscribe(ctx context.Context, topic string, got func(payload []byte)) error
	// publish queues a message; flush returns when the server has all of them.
	publish(ctx context.Context, topic string, payload []byte) error
	flush(ctx context.Context) error
	// serve answers requests to id with their payload; request asks once.
	serve(ctx context.Context) error
	id() string
	request(ctx context.Context, id string, payload []byte) error
	close()
}

const startTime = 30 * time.Second
