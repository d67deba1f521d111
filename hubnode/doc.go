// Package hubnode assembles one hub node: the hub itself, the client port, the
// gossip, the mesh and the HTTP API.
//
// A node starts from the inside out and stops in the reverse order. Stopping
// is: unready, no new clients, clients redirected to other nodes, histories
// handed over, what is on its way here waited for, gossip and links left, hub
// stopped, then mesh and HTTP.
//
// # Lock order
//
// Package hub states its own. The view's learning comes first: it is held while
// the table changes and the hub hears of it. The announcer's lock is taken
// before the directory's; neither is held while the hub is called. The mesh and
// the cluster hold no lock when they call the node.
package hubnode
