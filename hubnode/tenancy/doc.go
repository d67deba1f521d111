// Package tenancy gives the clients of a namespace names of their own.
//
// A tenant is a namespace. What its clients call the topic "orders.new" and the client
// "worker-1" is "shop.orders.new" and "shop/worker-1" to the hub, and to everybody else:
// nobody of one tenant can as much as name what is another's. The hub itself knows nothing
// of it. A client's connection is wrapped once it is known whose it is, and names are
// changed in the frames that come and go; payloads are not looked at, but for those of the
// one question to the hub that tenants may ask, which names a topic.
//
// Clients that are not of the tenant, as whoever looks after the hub, may send to it. Their
// ids are told with a slash before them, by which they can be answered, unless they have
// another slash: then they could be of another tenant. Names that begin
// with "$" are the hub's and stay as they are; rules say who may use them.
package tenancy
