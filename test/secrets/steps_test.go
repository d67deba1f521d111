package secrets_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/hubnode"
	"github.com/switchboardhub/switchboard/hubnode/auth"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/internal/throwaway"
	"github.com/switchboardhub/switchboard/wire"
)

// tokens are good ones.
type tokens struct{ worker, person string }

// logins connects those who may, in every way that there is.
func (h *hubInTest) logins() tokens {
	h.t.Helper()
	hour := time.Now().Add(time.Hour)
	good := tokens{
		worker: h.token("a pod's token")(h.issuer.ServiceAccountToken(audience, "team-a", "worker", hour)),
		person: h.token("a person's token")(h.people.Token(audience, hour, map[string]any{"sub": "eve"})),
	}
	trust := client.WithCAFile(h.path("tls/ca.crt"))
	h.connect(0, "worker", client.WithToken(good.worker))
	h.connect(0, "worker-tls", trust, client.WithToken(good.worker))
	h.connect(1, "person", client.WithToken(good.person))
	h.connect(1, "alice", trust, client.WithToken(h.alice))
	cert, key, err := h.clientsCA.IssueClient(hour, "device-7")
	h.must(err)
	h.set.AddKey(h.t, "a device's key", key)
	h.connect(0, "device-7", trust, client.WithCertificateFiles(h.write("device.crt", string(cert)), h.write("device.key", string(key))))
	h.connect(1, "the-operator", client.WithToken(h.proof("the operator's proof", h.linksCA, auth.OperatorProof{Client: "the-operator", Purges: "kept.>"})))

	// A session's key is known to its client alone.
	conn := h.greet(good.worker, "")
	_ = conn.Close()
	conn = h.greet(good.worker, h.secret("the key of no session"))
	_ = conn.Close()
	h.waitFor("a session that is not found", func() bool { return h.has("node-0", "session is lost") })
	return good
}

// greet connects without a client, as one that comes back to a session, and notes the key of
// the session that it has then.
func (h *hubInTest) greet(token, session string) net.Conn {
	h.t.Helper()
	conn, err := h.elsewhere().Dial("tcp", h.configs[0].Listen.Client)
	h.must(err)
	h.t.Cleanup(func() { _ = conn.Close() })
	hello := wire.Hello{MinVersion: 1, MaxVersion: 1, ID: "raw", Token: token, Resumable: true, Session: session, Attempt: 1}
	_, err = conn.Write(wire.AppendControl(nil, wire.Header{Kind: wire.KindHello}, "", hello))
	h.must(err)
	r := wire.NewReader(conn, wire.MaxHandshakeFrame)
	defer r.Close()
	f, err := r.Next()
	h.must(err)
	var welcome wire.Welcome
	h.must(wire.DecodeControl(f, &welcome))
	h.set.AddText(h.t, "the key of a session", welcome.Session)
	return conn
}

// proof makes one of the operator's.
func (h *hubInTest) proof(name string, ca *throwaway.CA, proof auth.OperatorProof) string {
	h.t.Helper()
	cert, key, err := ca.Issue(time.Now().Add(time.Hour), config.ClusterID(hubName).String())
	h.must(err)
	h.set.AddKey(h.t, "the key of "+name, key)
	pair, err := tls.X509KeyPair(cert, key)
	h.must(err)
	signer, _ := pair.PrivateKey.(crypto.Signer)
	proof.Hub = hubName
	return h.token(name)(proof.Sign(signer, pair.Leaf, time.Now()))
}

// refusals connects those who may not.
func (h *hubInTest) refusals() {
	h.t.Helper()
	hour := time.Now().Add(time.Hour)
	namesake, err := throwaway.NewIssuer(h.issuer.Name)
	h.must(err)
	nowhere, err := throwaway.NewIssuer("https://127.0.0.1:1/nowhere")
	h.must(err)
	fresh, err := h.issuer.ServiceAccountToken(audience, "team-a", "worker", hour)
	h.must(err)
	unsigned := fresh[:strings.LastIndexByte(fresh, '.')+1]
	part := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	claims := part(fmt.Sprintf(`{"iss":%q,"aud":%q,"jti":%q}`, h.issuer.Name, audience, rand.Text()))
	for what, token := range map[string]string{
		"an expired token":                 h.token("an expired token")(h.issuer.ServiceAccountToken(audience, "team-a", "worker", time.Now().Add(-time.Second))),
		"a token for another audience":     h.token("a token for another audience")(h.issuer.ServiceAccountToken("https://kubernetes.default.svc", "team-a", "worker", hour)),
		"a token of a stranger":            h.token("a stranger's token")(h.strangers.Token(audience, hour, map[string]any{"sub": "eve"})),
		"a token of a namesake":            h.token("a namesake's token")(namesake.ServiceAccountToken(audience, "team-a", "worker", hour)),
		"a token whose keys are not there": h.token("a token whose keys are not there")(nowhere.Token(audience, hour, map[string]any{"sub": "eve"})),
		"a token that is not a pod's":      h.token("a token that is not a pod's")(h.issuer.Token(audience, hour, map[string]any{"sub": "eve", "x": rand.Text()})),
		"a forged token":                   h.token("a forged token")(unsigned+part(rand.Text()+rand.Text()+"123456789012"), nil),
		"a token without a signature":      h.token("a token without a signature")(part(`{"alg":"none"}`)+"."+claims+".", nil),
		"a token by a shared secret":       h.token("a token by a shared secret")(part(`{"alg":"HS256"}`)+"."+claims+"."+part(rand.Text()), nil),
		"claims that are none":             h.token("a token with claims that are none")(part(`{"alg":"ES256"}`)+"."+part(rand.Text())+"."+part(rand.Text()), nil),
		"half a token":                     h.token("half a token")(fresh[:len(fresh)/2], nil),
		"a guess":                          "alice:" + h.secret("a guess"),
		"somebody else's name":             "bob:" + h.secret("bob's secret"),
		"a token with lines":               h.secret("a first line") + "\n" + h.secret("a second line"),
		"too much":                         strings.Repeat(h.secret("a secret, again and again"), 1000),
		"a proof of another authority":     h.proof("a proof of another authority", h.clientsCA, auth.OperatorProof{Client: "w"}),
		"a proof for somebody else":        h.proof("a proof for somebody else", h.linksCA, auth.OperatorProof{Client: "x"}),
	} {
		h.refused(what, client.WithToken(token))
	}
	foreign, err := throwaway.New()
	h.must(err)
	cert, key, err := foreign.IssueClient(hour, "device-7")
	h.must(err)
	h.set.AddKey(h.t, "a stranger's key", key)
	h.refused("a certificate of a stranger", client.WithCAFile(h.path("tls/ca.crt")),
		client.WithCertificateFiles(h.write("foreign.crt", string(cert)), h.write("foreign.key", string(key))))
	h.refused("a key that is none", client.WithCAFile(h.path("tls/ca.crt")),
		client.WithCertificateFiles(h.path("foreign.crt"), h.write("none.key", "-----BEGIN PRIVATE KEY-----\n"+h.secret("what is no key")+"\n-----END PRIVATE KEY-----\n")))
}

// reviews has the nodes ask an API server about tokens: one that answers what it should not.
func (h *hubInTest) reviews() {
	h.t.Helper()
	trusted, err := throwaway.New()
	h.must(err)
	ca := h.write("review/ca.crt", string(trusted.PEM()))
	cert, key, err := trusted.Issue(time.Now().Add(time.Hour), "127.0.0.1")
	h.must(err)
	h.set.AddKey(h.t, "the key of the API server", key)
	own := h.write("review/token", h.secret("the node's own token"))
	unknown, err := throwaway.NewIssuer(h.issuer.Name)
	h.must(err)
	token := h.token("a token that is reviewed")(unknown.ServiceAccountToken(audience, "team-a", "worker", time.Now().Add(time.Hour)))
	for what, answer := range map[string]func(w http.ResponseWriter, said string){
		"refuses": func(w http.ResponseWriter, said string) {
			write(w, `{"kind":"TokenReview","status":{"error":%q}}`, said)
		},
		"names somebody else": func(w http.ResponseWriter, said string) {
			write(w, `{"kind":"TokenReview","status":{"authenticated":true,"user":{"username":%q}}}`, said)
		},
		"names another purpose": func(w http.ResponseWriter, said string) {
			write(w, `{"kind":"TokenReview","status":{"authenticated":true,"user":{"username":"system:serviceaccount:team-a:worker"},"audiences":[%q]}}`, said)
		},
		"does not let it ask": func(w http.ResponseWriter, said string) { w.WriteHeader(http.StatusForbidden); write(w, "%s", said) },
		"fails": func(w http.ResponseWriter, said string) {
			w.WriteHeader(http.StatusInternalServerError)
			write(w, "%s", said)
		},
		"sends it elsewhere": func(w http.ResponseWriter, said string) {
			w.Header().Set("Location", "https://127.0.0.1:1/"+url.PathEscape(said))
			w.WriteHeader(http.StatusFound)
		},
		"answers no JSON":    func(w http.ResponseWriter, said string) { write(w, "%s", said) },
		"answers other JSON": func(w http.ResponseWriter, said string) { write(w, `{"kind":{%q:1}}`, said) },
		"has its own words":  func(w http.ResponseWriter, said string) { hijack(w, "HTTP/1.1 418 "+said+"\r\n\r\n") },
		"speaks no HTTP":     func(w http.ResponseWriter, said string) { hijack(w, said+"\r\n\r\n") },
		"has a wrong header": func(w http.ResponseWriter, said string) { hijack(w, "HTTP/1.1 200 OK\r\n"+said+"\r\n\r\n") },
	} {
		var asked atomic.Int64
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			var review struct {
				Spec struct {
					Token string `json:"token"`
				} `json:"spec"`
			}
			_ = json.Unmarshal(body, &review)
			asked.Add(1)
			answer(w, review.Spec.Token+" "+strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		}))
		pair, err := tls.X509KeyPair(cert, key)
		h.must(err)
		server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
		server.StartTLS()
		applied := strings.Count(h.of("node-0"), "config applied")
		h.configure(func(cfg *config.Config) {
			sa := *cfg.Authentication.ServiceAccount
			sa.TokenReview = &config.TokenReview{Server: server.URL, CAFile: ca, TokenFile: own}
			cfg.Authentication.ServiceAccount = &sa
		})
		h.waitFor("config applied", func() bool { return strings.Count(h.of("node-0"), "config applied") > applied })
		h.refused("a token at an API server that "+what, client.WithToken(token))
		server.Close()
		if asked.Load() == 0 {
			h.t.Errorf("the API server that %s was not asked", what)
		}
	}
	h.configure(func(*config.Config) {})
}

func write(w io.Writer, format, said string) { _, _ = fmt.Fprintf(w, format, said) }

// hijack answers with bytes of one's own.
func hijack(w http.ResponseWriter, text string) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	_, _ = conn.Write([]byte(text))
	_ = conn.Close()
}

// digits makes up a secret that is a number to JSON.
func digits() string {
	n, err := rand.Int(rand.Reader, new(big.Int).Exp(big.NewInt(10), big.NewInt(40), nil))
	if err != nil {
		panic(err) // it never fails
	}
	return "1" + fmt.Sprintf("%040d", n)
}

// garbage sends what nobody should, with a secret in it, to all ports.
func (h *hubInTest) garbage() {
	h.t.Helper()
	listen := h.configs[0].Listen
	frame := func(kind wire.Kind, body string) []byte {
		return wire.AppendFrame(nil, wire.Header{Kind: kind, Ref: 5}, "", "", []byte(body))
	}
	number := func() string { return h.token("a secret that is a number")(digits(), nil) }
	secret := func() string { return h.secret("a secret in garbage") }
	cert, key, err := h.clientsCA.Issue(time.Now().Add(time.Hour), config.ClusterID(hubName).String())
	h.must(err)
	h.set.AddKey(h.t, "the key of a stranger to the links", key)
	stranger, err := tls.X509KeyPair(cert, key)
	h.must(err)
	var sending sync.WaitGroup
	defer sending.Wait()
	for _, body := range []string{
		`{"minVersion":1,"maxVersion":1,"id":"w","token":"` + secret(),
		`{"minVersion":1,"maxVersion":1,"id":"w","token":` + number() + `}`,
		`{"minVersion":1,"maxVersion":1,"id":` + number() + `,"token":"` + secret() + `"}`,
		`{"minVersion":1,"maxVersion":1,"id":"w","token":["` + secret() + `"]}`,
		`{"minVersion":1,"maxVersion":1,"id":"w","token":{"` + secret() + `":1}}`,
		`{"minVersion":1,"maxVersion":1,"id":"w","epoch":"` + secret() + `"}`,
		`{"minVersion":1,"maxVersion":1,"id":"w","epoch":` + number() + `,"token":"` + secret() + `"}`,
		`{"minVersion":1,"maxVersion":1,"id":"w","labels":{"token":` + number() + `}}`,
		`{"minVersion":99,"maxVersion":100,"id":"w","token":"` + secret() + `"}`,
		`{"minVersion":1,"maxVersion":1,"id":"","token":"` + secret() + `"}`,
		`"` + secret() + `"`, number(), secret(),
	} {
		for _, kind := range []wire.Kind{wire.KindHello, wire.KindMesh, wire.KindRenew, wire.KindPublish, 200} {
			b := frame(kind, body)
			sending.Go(func() { h.raw(listen.Client, b) })
		}
		b := frame(wire.KindMesh, body)
		sending.Go(func() { h.raw(listen.Cluster, b) })
		sending.Go(func() { strange(h.elsewhere(), listen.Cluster, &stranger, b) })
	}
	anything := [][]byte{
		[]byte(secret()), []byte("GET / HTTP/1.1\r\nAuthorization: Bearer " + secret() + "\r\n\r\n"),
		append([]byte{22, 3, 1, 0, 40}, secret()...), append([]byte{0, 0, 0, 1}, secret()...), append([]byte{0, 0, 1, 0, 1, 0}, secret()...),
		append([]byte{10, 0, 0, 0}, secret()...), append([]byte{6}, secret()...),
	}
	for _, b := range anything {
		for _, address := range []string{listen.Client, listen.Cluster, listen.Gossip} {
			sending.Go(func() { h.raw(address, b) })
		}
		conn, err := net.Dial("udp", listen.Gossip)
		h.must(err)
		_, err = conn.Write(b)
		h.must(err)
		_ = conn.Close()
	}
	_, port, err := net.SplitHostPort(listen.HTTP)
	h.must(err)
	for _, request := range []string{
		"GET /v1/clients HTTP/1.1\r\nHost: x\r\nAuthorization Bearer " + secret() + "\r\n\r\n",
		"GET /v1/clients HTTP/9\r\nHost: x\r\nAuthorization: Bearer " + secret() + "\r\n\r\n",
		"GET /v1/%zz?token=" + secret() + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /v1/clients?token=" + secret() + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"POST /v1/clients HTTP/1.1\r\nHost: x\r\nContent-Length: 26\r\nConnection: close\r\n\r\n" + secret(),
		secret() + "\r\n\r\n",
	} {
		sending.Go(func() { h.raw(net.JoinHostPort("127.0.0.1", port), []byte(request)) })
	}
}

// strange speaks TLS to the cluster port, with a certificate that nobody trusts.
func strange(from *net.Dialer, address string, stranger *tls.Certificate, b []byte) {
	conn, err := tls.DialWithDialer(from, "tcp", address, &tls.Config{
		InsecureSkipVerify: true, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return stranger, nil },
	})
	if err == nil {
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, _ = conn.Write(b)              // it may have ended
		_, _ = conn.Read(make([]byte, 1)) // until it has
		_ = conn.Close()
	}
}

// traffic sends what clients send each other, and what they may not.
func (h *hubInTest) traffic(good tokens) {
	h.t.Helper()
	body := func(what string) *wire.Artifact {
		return &wire.Artifact{
			Payload: []byte(h.secret("the body of " + what)), ContentType: "text/plain", Attributes: map[string]string{"note": h.secret("an attribute of " + what)},
		}
	}
	a, b := h.connect(0, "a", client.WithToken(good.worker)), h.connect(1, "b", client.WithToken(h.alice))
	answer := body("an answer")
	b.Handle(func(_ context.Context, in *wire.Artifact) (*wire.Artifact, error) {
		if string(in.Payload) == "fail" {
			return nil, errors.New("it can't be done")
		}
		return answer, nil
	})
	ctx := h.context()
	heard := make(chan *wire.Artifact, 100)
	handle := func(_ context.Context, in *wire.Artifact) error { heard <- in; return nil }
	for _, pattern := range []string{"live.>", "kept.>"} {
		_, err := b.Subscribe(ctx, pattern, handle)
		h.must(err)
	}
	for _, topic := range []string{"live.x", "kept.x", "kept.y"} {
		_, err := a.Publish(ctx, topic, body("what is published on "+topic))
		h.must(err)
	}
	for range 2 { // of a live topic, another node may not yet know that somebody hears it
		<-heard
	}
	for _, topic := range []string{"secret.x", "strict.x", "$presence", "a..b"} {
		_, err := a.Publish(ctx, topic, body("what may not be published on "+topic))
		h.heard("publishing on "+topic, err)
	}
	large := body("what is too large")
	large.Payload = append(large.Payload, make([]byte, 80<<10)...)
	_, err := a.Publish(ctx, "live.x", large)
	h.heard("publishing too much", err)
	h.must(a.Send(ctx, "b", body("what is sent")))
	h.heard("sending to nobody", a.Send(ctx, "nobody", body("what is sent to nobody")))
	_, err = a.Request(ctx, "b", body("a question"))
	h.must(err)
	_, err = a.Request(ctx, "b", &wire.Artifact{Payload: []byte("fail")})
	h.heard("asking for too much", err)
	_, err = a.Request(ctx, "$hub.topics.purge", body("a question to the hub"))
	h.heard("asking the hub for nonsense", err)
	_, err = b.Subscribe(ctx, "kept.x", handle, client.Filter("no filter"), client.SinceAll())
	h.heard("subscribing with a filter that is none", err)

	// What fails is given up, and moves.
	_, err = b.Subscribe(ctx, "kept.y", func(context.Context, *wire.Artifact) error { return errors.New("it can't be done") },
		client.Durable("d"), client.SinceAll(), client.MaxDeliveries(1, "dead"))
	h.must(err)
	dead := make(chan *wire.Artifact, 1)
	_, err = a.Subscribe(ctx, "dead", func(_ context.Context, in *wire.Artifact) error { dead <- in; return nil }, client.SinceAll())
	h.must(err)
	<-dead

	// Frames that are wrong, of a client that is let in.
	for _, frame := range [][]byte{
		wire.AppendFrame(nil, wire.Header{Kind: wire.KindRenew, Ref: 5}, "", "", []byte(`{"token":`+h.token("a new token that is a number")(digits(), nil)+`}`)),
		wire.AppendFrame(nil, wire.Header{Kind: wire.KindRenew, Ref: 5}, "", "", []byte(`{"token":"`+h.secret("a new token that does not end"))),
		wire.AppendControl(nil, wire.Header{Kind: wire.KindRenew, Ref: 5}, "", wire.Renew{Token: h.secret("a new token that is wrong")}),
		wire.AppendControl(nil, wire.Header{Kind: wire.KindRenew, Ref: 5}, "", wire.Renew{Token: good.person}),
		wire.AppendFrame(nil, wire.Header{Kind: wire.KindPublish, Count: 1, Ref: 5}, "live.x", "raw", []byte(h.secret("the body of a frame that is wrong"))),
		wire.AppendFrame(nil, wire.Header{Kind: wire.KindSend, Count: 9, Ref: 5}, "b", "raw", []byte(h.secret("the body of another"))),
		wire.AppendFrame(nil, wire.Header{Kind: wire.KindSubscribe, Ref: 5}, "live.x", "", []byte(`{"positions":{"x":"`+h.secret("what is no position")+`"}}`)),
		wire.AppendFrame(nil, wire.Header{Kind: wire.KindRead, Ref: 5}, "kept.x", "", []byte(`{"from":`+h.token("what is no sequence")(digits(), nil)+`}`)),
		wire.AppendFrame(nil, wire.Header{Kind: wire.KindFetch, Ref: 5}, "kept.x", "", []byte(h.secret("what is no request"))),
		wire.AppendFrame(nil, wire.Header{Kind: 200, Ref: 5}, "", "", []byte(h.secret("what is nothing"))),
		append([]byte{255, 255, 255, 255}, h.secret("what is too long")...),
	} {
		conn := h.greet(good.worker, "")
		_, err := conn.Write(frame)
		h.must(err)
		_, _ = conn.Write(wire.AppendFrame(nil, wire.Header{Kind: wire.KindGoodbye}, "", "", nil)) // it may have ended
		h.must(conn.SetDeadline(time.Now().Add(patience)))
		var answer strings.Builder
		for buffer := make([]byte, 4<<10); ; {
			n, err := conn.Read(buffer)
			answer.Write(buffer[:n])
			if err != nil {
				break
			}
		}
		h.add("raw answers", answer.String()+"\n")
		_ = conn.Close()
	}
}

// waitForSome waits until some node has logged something.
func (h *hubInTest) waitForSome(text string) {
	h.t.Helper()
	h.waitFor("a line with "+text, func() bool { return h.has("node-0", text) || h.has("node-1", text) })
}

// wrongFiles replaces each of the nodes' files by what is wrong, with a secret in or beside it.
func (h *hubInTest) wrongFiles() {
	h.t.Helper()
	try := func(name, text, line string) {
		h.t.Helper()
		h.write(name, text)
		h.waitForLine(line)
	}
	back := func(name string) func() {
		text, err := os.ReadFile(h.path(name))
		h.must(err)
		return func() { h.write(name, string(text)) }
	}
	restore := back("auth/tokens")
	hash := strings.TrimSuffix(strings.TrimPrefix(h.static("carol", rand.Text()), "carol:"), ":people\n")
	try("auth/tokens", "alice:"+h.secret("a secret that is no hash")+"\n", "line 1:")
	try("auth/tokens", "\n"+h.secret("a secret without a name in the list")+"\n", "line 2:")
	try("auth/tokens", "\n\n"+hash+":carol\n", "line 3:")
	try("auth/tokens", "\n\ncarol:"+hash+"\ncarol:"+hash+"\n", "line 4:")
	try("auth/tokens", "\n\n\n\n"+h.secret("a secret before its name")+":carol\n", "line 5:")
	try("auth/tokens", "\n\n\n\n"+hash[:30]+"\n"+hash+":"+hash+"\n", "line 5:")
	restore()
	restore = back("auth/cluster.json")
	try("auth/cluster.json", `{"keys":`+h.token("keys that are a number")(digits(), nil)+`}`, "not a JSON Web Key Set")
	try("auth/cluster.json", `{"keys":[{"kty":"oct","k":"`+h.secret("a key that is shared")+`"}]}`, "without a public key")
	restore()
	restore = back("auth/clients.crt")
	try("auth/clients.crt", "-----BEGIN PRIVATE KEY-----\n"+h.secret("a key that is no authority")+"\n", "auth/clients.crt")
	restore()
	for _, dir := range []string{"tls", "links"} {
		restore = back(dir + "/tls.key")
		try(dir+"/tls.key", "-----BEGIN PRIVATE KEY-----\n"+h.secret("half a key in "+dir), "certificate refused")
		restore()
	}
	h.wrongConfig()
}

func (h *hubInTest) wrongConfig() {
	h.t.Helper()
	for i, text := range []string{
		"authentication: {static: {token: 'alice:" + h.secret("a secret in the config") + "'}}\n",
		"gossipKey: " + h.secret("a gossip key in the config") + "\n",
		"gossipKeyFile: [" + h.secret("a gossip key in a list") + "]\n",
		"# " + h.secret("a secret in a comment") + "\nauthentication: {static: {password: \"" + h.secret("a secret that does not end") + "\n",
		"authentication: {static: " + h.secret("a secret instead of a mapping") + "}\n",
		"authentication: {oidc: [{issuer: 'http://hub:" + h.secret("a password in an address") + "@people.example', audiences: [a]}]}\n",
		"authentication: {oidc: [{issuer: 'https://hub:" + h.secret("a password in a good address") + "@people.example', audiences: [a]}]}\n",
	} {
		for n, cfg := range h.configs {
			good, err := cfg.Marshal()
			h.must(err)
			before, _, _ := strings.Cut(string(good), "authentication:")
			if !strings.HasPrefix(text, "authentication:") {
				before = string(good)
			}
			count := func() int { return strings.Count(h.of(cfg.Node), "config refused") }
			had := count()
			h.write(cfg.Node+"/hubnode.yaml", before+text)
			h.waitFor(fmt.Sprintf("refusal of config %d by node %d", i, n), func() bool { return count() > had })
			h.get(n, "/v1/status")
		}
	}
	h.configure(func(*config.Config) {})
}

// rotateGossipKey does, with mistakes.
func (h *hubInTest) rotateGossipKey() {
	h.t.Helper()
	first, err := os.ReadFile(h.path("gossip/key"))
	h.must(err)
	next := h.gossipKey("the next gossip key")
	for _, wrong := range []struct{ text, line string }{
		{"open " + h.secret("a gossip key that is no base64"), "not base64"},
		{base64.StdEncoding.EncodeToString([]byte(h.secret("a gossip key of another length"))), "needs 16, 24 or 32"},
		{next + "\n" + next, "twice"},
		{hex.EncodeToString([]byte(h.secret("a gossip key in hex"))), "has 39 bytes"},
	} {
		h.write("gossip/key", wrong.text)
		h.waitForLine(wrong.line)
		h.get(0, "/v1/status")
	}
	for _, keys := range []string{string(first) + "\n" + next, next + "\n" + string(first), next} {
		h.write("gossip/key", keys)
		want, err := config.DecodeGossipKeys([]byte(keys))
		h.must(err)
		for n := range h.configs {
			h.waitFor("change of the gossip keys", func() bool {
				var status hubnode.Status
				_, text := h.get(n, "/v1/status")
				h.must(json.Unmarshal([]byte(text), &status))
				return status.GossipKeys.Primary == config.GossipKeyFingerprint(want[0]) && len(status.GossipKeys.Accepted) == len(want)
			})
		}
	}
}

// outward is an address of this machine that is not its loopback's; empty: it has none.
func outward(tb interface{ Helper() }) string {
	tb.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		return ""
	}
	for _, a := range all {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && !ip.IP.IsLoopback() {
			return ip.IP.String()
		}
	}
	return ""
}

// admin asks for lists, over HTTP and by hubctl, as those who may and those who may not.
func (h *hubInTest) admin(good tokens) {
	h.t.Helper()
	if host := outward(h.t); host != "" {
		for _, path := range []string{"/v1/clients", "/v1/topics", "/v1/nodes", "/v1/namespaces", "/v1/durables"} {
			for _, bearer := range []string{"", "alice:" + h.secret("a bearer's guess"), h.secret("a bearer without a name"), good.person, good.worker, h.alice} {
				h.http(host, 0, "GET", path, bearer)
			}
		}
		h.http(host, 0, "POST", "/v1/drain", h.alice)
	} else {
		h.t.Log("this machine has no address that is not its loopback's: nobody asks over HTTP from elsewhere")
	}
	token := h.write("token", h.alice+"\n")
	wrong := h.write("wrong-token", "alice:"+h.secret("hubctl's guess"))
	for _, command := range []string{"clients", "topics", "nodes", "namespaces", "durables"} {
		h.hubctl(0, "--token-file", token, command)
		h.hubctl(1, "--token-file", wrong, command)
	}
	h.hubctl(0, "--token-file", token, "pub", "kept.x", h.secret("a body that hubctl publishes"))
	h.hubctl(1, "--token-file", token, "pub", "secret.x", h.secret("a body that hubctl may not publish"))
	h.hubctl(3, "--token-file", token, "send", "nobody", h.secret("a body that hubctl sends to nobody"))
	h.hubctl(2, "--token-file", token, "pub", "kept.x", "too", h.secret("a body that is one argument too many"))
	h.hubctl(1, "--token-file", h.write("lines", h.secret("a first line of a file")+"\n"+h.secret("a second line of a file")+"\n"), "clients")
	h.hubctl(1, "--token-file", good.worker, "clients") // the token itself, where its file was meant
}

// revoke takes rights from who is there.
func (h *hubInTest) revoke(good tokens) {
	h.t.Helper()
	h.connect(0, "last", client.WithToken(good.worker), client.WithMaxReconnects(0))
	h.configure(func(cfg *config.Config) {
		cfg.Authorization.Rules = []config.Rule{{Name: "nobody", When: "false", ConnectAs: []string{"*"}}}
	})
	h.waitForSome("client is not allowed any more")
	h.write("auth/tokens", "")
}
