package admin

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// What comes over loopback may be asked by a web page: in the browser of somebody who has
// forwarded the port to their machine, or runs the node there. The page has another origin, or
// a name of its own that has become an address of this machine (DNS rebinding).

// sameOrigin keeps pages of other origins from changing anything.
func sameOrigin(handle http.Handler) http.Handler {
	p := http.NewCrossOriginProtection()
	p.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		say(w, http.StatusForbidden, "a web page of another origin asks for this, which it may not: ask by a program, such as curl, that sends no Origin and no Sec-Fetch-Site header")
	}))
	return p.Handler(handle)
}

// underLocalName reports whether a request was sent to a name that no web page can take for
// its own: localhost, or an address of loopback.
func underLocalName(r *http.Request) bool {
	name := nameOf(r)
	ip, err := netip.ParseAddr(name)
	return (err == nil && ip.Unmap().IsLoopback()) || strings.EqualFold(strings.TrimSuffix(name, "."), "localhost")
}

// underAddress reports whether a request was sent to an IP address, which is no name that
// could have come to stand for another one.
func underAddress(r *http.Request) bool {
	_, err := netip.ParseAddr(nameOf(r))
	return err == nil
}

// nameOf is the host of a request's Host, without its port.
func nameOf(r *http.Request) string { return (&url.URL{Host: r.Host}).Hostname() }

// sayName refuses what came over loopback and was sent to another name.
func sayName(w http.ResponseWriter) {
	say(w, http.StatusForbidden, "over loopback this is for whoever asks localhost, 127.0.0.1 or [::1] by that name, so that no web page gets it by a name of its own: ask http://localhost:PORT, or send the header Host: localhost")
}
