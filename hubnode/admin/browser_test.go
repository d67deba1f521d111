package admin

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/switchboardhub/switchboard/hubnode/hub"
)

// A page in the browser of somebody who forwards the port to their machine asks over loopback.
func TestNoPageInABrowserMovesClients(t *testing.T) {
	h, err := hub.New()
	if err != nil {
		t.Fatal(err)
	}
	const another, rebound = "another origin", "localhost"
	for name, test := range map[string]struct {
		host, origin, site string
		refused            string // with what; empty: it is not
	}{
		"a program":                      {"localhost:7480", "", "", ""},
		"a program, by another name":     {"LocalHost.", "", "", ""},
		"a program, by the address":      {"127.0.0.1:34567", "", "", ""},
		"a program, by another address":  {"127.8.9.1", "", "", ""},
		"a program, by IPv6":             {"[::1]:7480", "", "", ""},
		"a program, by both":             {"[::ffff:127.0.0.1]:7480", "", "", ""},
		"the person at a browser":        {"localhost:7480", "http://localhost:7480", "same-origin", ""},
		"a page":                         {"localhost:7480", "https://evil.example", "cross-site", another},
		"a page, in an old browser":      {"127.0.0.1:7480", "https://evil.example", "", another},
		"a page of nowhere":              {"127.0.0.1:7480", "null", "", another},
		"a page of another local port":   {"localhost:7480", "http://localhost:3000", "same-site", another},
		"a page whose name moved here":   {"evil.example:7480", "http://evil.example:7480", "same-origin", rebound},
		"a name that begins with ours":   {"localhost.evil.example", "", "", rebound},
		"a name that begins with digits": {"127.0.0.1.evil.example:7480", "", "", rebound},
		"the address of any":             {"0.0.0.0:7480", "", "", rebound},
		"the address of another":         {"10.0.0.9:7480", "", "", rebound},
		"no name":                        {"", "", "", rebound},
	} {
		t.Run(name, func(t *testing.T) {
			for path, accepted := range map[string]int{"/v1/drain": http.StatusAccepted, "/v1/rebalance": http.StatusOK} {
				node := new(someNode)
				api := routes(Config{Node: node, Hub: h, Log: slog.New(slog.DiscardHandler), TLS: plainly})
				r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, nil)
				r.RemoteAddr, r.Host = "127.0.0.1:1", test.host
				for key, value := range map[string]string{"Origin": test.origin, "Sec-Fetch-Site": test.site} {
					if value != "" {
						r.Header.Set(key, value)
					}
				}
				w := httptest.NewRecorder()
				api.ServeHTTP(w, r)
				want := accepted
				if test.refused != "" {
					want = http.StatusForbidden
				}
				if w.Code != want || !strings.Contains(w.Body.String(), test.refused) {
					t.Errorf("POST %s = %d %s, want %d with %q", path, w.Code, w.Body, want, test.refused)
				}
				if node.drains.Load() && test.refused != "" {
					t.Error("the node drains")
				}
			}
		})
	}
}

// Where lists are told to everybody who reaches the port, a page is not told them for reaching
// it by way of a person's machine: its name may become an address of that machine (DNS
// rebinding), and then the page may read answers and send what headers it likes.
func TestNoPageInABrowserReadsLists(t *testing.T) {
	h, err := hub.New()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	node := new(someNode)
	node.open.Store(true)
	api := routes(Config{Node: node, Hub: h, Log: slog.New(slog.DiscardHandler), TLS: plainly})
	for name, test := range map[string]struct {
		from, host, header string
		want               int
	}{
		"a program":                     {"127.0.0.1:1", "localhost:7480", "", http.StatusOK},
		"a page whose name moved":       {"127.0.0.1:1", "evil.example:7480", "", http.StatusForbidden},
		"and that shows some token":     {"127.0.0.1:1", "evil.example:7480", "Bearer x", http.StatusForbidden},
		"a name that is none":           {"127.0.0.1:1", "", "", http.StatusForbidden},
		"an address is nobody's name":   {"127.0.0.6:1", "10.0.0.9:7480", "", http.StatusOK},
		"from afar, as everybody there": {"10.0.0.9:1", "hub.example:7480", "", http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			for _, list := range []string{"clients", "topics"} {
				r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/"+list, nil)
				r.RemoteAddr, r.Host = test.from, test.host
				if test.header != "" {
					r.Header.Set("Authorization", test.header)
				}
				w := httptest.NewRecorder()
				api.ServeHTTP(w, r)
				says := list
				if test.want == http.StatusForbidden {
					says = "localhost"
				}
				if w.Code != test.want || !strings.Contains(w.Body.String(), says) {
					t.Errorf("/v1/%s = %d %s, want %d with %q", list, w.Code, w.Body, test.want, says)
				}
			}
		})
	}
	if err := h.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}
