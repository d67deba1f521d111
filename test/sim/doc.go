// Package sim runs the directory of many nodes in one process: the real logs,
// tables and tellings on a simulated network in virtual time. A seed decides
// everything that happens, so that what failed once fails again.
//
// The network delays, loses and cuts. Nodes die and come back, clients connect,
// move and leave. What is left out: sockets, gossip and queues. Membership is a
// list that each node learns late.
package sim
