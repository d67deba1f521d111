package auth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/hubnode/rate"
	"github.com/switchboardhub/switchboard/hubnode/seldom"
	"github.com/switchboardhub/switchboard/wire"
)

const (
	reviewTime       = 3 * time.Second // what a review may take: a client that shakes hands waits for it
	reviewMax        = 256 << 10       // bytes of an answer
	reviewsAtATime   = 8
	reviewsPerSecond = 20
	acceptedFor      = time.Minute      // how long the API server is not asked again
	refusedFor       = 10 * time.Second // likewise: an account may be made again
	verdictsMax      = 4096             // that are remembered: some more than the rate lets come together
)

var (
	errNotTaken     = errors.New("the cluster's API server does not take the token")
	errOtherSubject = errors.New("the token is not whose it says it is, as the cluster's API server has it")

	errReviewsBusy = &wire.Error{Code: wire.CodeOverloaded, Detail: "too many tokens to ask the cluster's API server about: try again"}
	errNoReview    = &wire.Error{Code: wire.CodeUnavailable, Detail: "this node has no key for the token, and the cluster's API server can't be asked about it: try again, and see the node's log"}
)

// review finds out who a token is for where no key of the issuer can tell: by what the
// token says, when the API server takes it.
func (i *issuer) review(ctx context.Context, from string, s signed, now time.Time) (Identity, error) {
	var (
		standard jwt.Claims
		claims   map[string]any
	)
	if err := s.token.UnsafeClaimsWithoutVerification(&standard, &claims); err != nil {
		return Identity{}, errors.New("the token's claims are malformed")
	}
	id, err := i.identity(standard, claims, now) // most of what nobody has to be asked about
	if err != nil {
		return Identity{}, err
	}
	q := question{*i.config.TokenReview, i.config.Audiences, s.text, id.Name}
	if err := i.reviews.ask(ctx, from, q); err != nil {
		return Identity{}, err
	}
	return id, nil
}

// question is whether a token is a user's and for an audience of the hub.
type question struct {
	to        config.TokenReview
	audiences []string
	token     string
	user      string
}

// sum tells a question from all others, and does not tell the token.
func (q question) sum() (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, part := range append([]string{q.token, q.to.Server}, q.audiences...) {
		_, _ = fmt.Fprintf(h, "%d %s", len(part), part) // never fails
	}
	copy(sum[:], h.Sum(nil))
	return sum
}

// reviews asks the API server of a cluster whose tokens are, and not more of it than a
// node may. It remembers answers for a short while.
type reviews struct {
	log   *slog.Logger
	now   func() time.Time
	post  func(context.Context, question) (refusal, failure error)
	slots chan struct{}
	lanes lanes
	wrong seldom.Log

	accepted, refused, failed, busy atomic.Uint64

	mu    sync.Mutex // guards the fields below
	meter rate.Meter
	known map[[sha256.Size]byte]verdict
}

type verdict struct {
	refusal error // nil: the token is taken
	until   time.Time
}

func newReviews(log *slog.Logger, now func() time.Time) *reviews {
	return &reviews{log: log, now: now, post: post, slots: make(chan struct{}, reviewsAtATime), known: make(map[[sha256.Size]byte]verdict)}
}

// Reviews are how many tokens the API server was to be asked about, by what came of it.
type Reviews struct {
	Accepted, Refused uint64
	Failed            uint64 // it could not be asked
	Busy              uint64 // it was not asked: the node may not ask so often
}

// Reviews returns the counts so far. What was remembered is not among them.
func (g *Gate) Reviews() Reviews {
	r := g.reviews
	return Reviews{r.accepted.Load(), r.refused.Load(), r.failed.Load(), r.busy.Load()}
}

// ask returns nil when the API server takes a token, and else why it was not taken: a
// *wire.Error when that is not the API server's last word.
//
// Who makes up tokens at one place holds up others there, as their questions go one
// after another; beyond what a node may ask nobody waits.
func (r *reviews) ask(ctx context.Context, from string, q question) error {
	sum := q.sum()
	if v, ok := r.recall(sum); ok {
		return v.refusal
	}
	leave, err := r.lanes.enter(ctx, from)
	if err != nil {
		return r.tooBusy()
	}
	defer leave()
	if v, ok := r.recall(sum); ok { // the one before may have asked the same: pods have many clients
		return v.refusal
	}
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	default:
		return r.tooBusy()
	}
	if !r.mayAsk() {
		return r.tooBusy()
	}
	ctx, cancel := context.WithTimeout(ctx, reviewTime)
	defer cancel()
	refusal, failure := r.post(ctx, q)
	switch {
	case failure != nil:
		r.failed.Add(1)
		if due, silent := r.wrong.Due(q.to.Server, r.now()); due {
			r.log.Error("can't ask the API server about a client's token: it is not let in", slog.String("server", q.to.Server), slog.Any("error", failure), slog.Int("silent", silent))
		}
		return errNoReview
	case refusal != nil:
		r.refused.Add(1)
	default:
		r.accepted.Add(1)
	}
	r.remember(sum, refusal)
	return refusal
}

func (r *reviews) tooBusy() error {
	r.busy.Add(1)
	return errReviewsBusy
}

func (r *reviews) mayAsk() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.meter.TryTake(rate.Cost(1, reviewsPerSecond), r.now())
}

func (r *reviews) recall(sum [sha256.Size]byte) (verdict, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v, ok := r.known[sum]
	return v, ok && r.now().Before(v.until)
}

func (r *reviews) remember(sum [sha256.Size]byte, refusal error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, life := r.now(), acceptedFor
	if refusal != nil {
		life = refusedFor
	}
	for at, v := range r.known {
		if !now.Before(v.until) {
			delete(r.known, at)
		}
	}
	if len(r.known) < verdictsMax {
		r.known[sum] = verdict{refusal, now.Add(life)}
	}
}

// tokenReview is what is asked and answered, as far as it matters here:
// https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/.
type tokenReview struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Spec       struct {
		Token     string   `json:"token"`
		Audiences []string `json:"audiences"`
	} `json:"spec"`
	Status struct {
		Authenticated bool `json:"authenticated"`
		User          struct {
			Username string `json:"username"`
		} `json:"user"`
		Audiences []string `json:"audiences"`
	} `json:"status,omitzero"`
}

// post asks the API server. refusal is why it does not take the token, failure why that is
// not known; both are without it.
func post(ctx context.Context, q question) (refusal, failure error) {
	var review tokenReview
	review.APIVersion, review.Kind = "authentication.k8s.io/v1", "TokenReview"
	review.Spec.Token, review.Spec.Audiences = q.token, q.audiences
	body, err := json.Marshal(&review)
	if err != nil {
		return nil, fmt.Errorf("write the review: %w", err)
	}
	text, err := postTo(ctx, q.to, body)
	if err != nil {
		return nil, err
	}
	review = tokenReview{}
	if json.Unmarshal(text, &review) != nil || review.Kind != "TokenReview" {
		return nil, errors.New("what it answers is no TokenReview") // not repeated: it may have the token
	}
	switch status := review.Status; {
	case !status.Authenticated:
		return errNotTaken, nil
	case status.User.Username != q.user:
		return errOtherSubject, nil
	case !slices.ContainsFunc(q.audiences, func(a string) bool { return slices.Contains(status.Audiences, a) }):
		return errors.New("the token is not for an audience of this hub, as the cluster's API server has it"), nil
	}
	return nil, nil
}

// postTo sends a review and returns the answer.
func postTo(ctx context.Context, to config.TokenReview, body []byte) ([]byte, error) {
	own, err := readOwnToken(to.TokenFile)
	if err != nil {
		return nil, fmt.Errorf("read this node's own token: %w", err)
	}
	transport, err := trusting(to.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read the API server's CA: %w", err)
	}
	transport.ForceAttemptHTTP2 = true
	client := &http.Client{
		Transport: transport,
		// Two tokens are in the request, which are for nobody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(to.Server, "/")+"/apis/authentication.k8s.io/v1/tokenreviews", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+own)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	answer, err := client.Do(req)
	if err != nil {
		return nil, inOwnWords(err)
	}
	defer func() { _ = answer.Body.Close() }()                                            // it was read
	status := fmt.Sprintf("%d %s", answer.StatusCode, http.StatusText(answer.StatusCode)) // and not in its words
	switch answer.StatusCode {
	case http.StatusOK, http.StatusCreated:
	case http.StatusUnauthorized:
		return nil, fmt.Errorf("it answers %s: the token in %s is not one of its own, or has expired", status, to.TokenFile)
	case http.StatusForbidden:
		return nil, fmt.Errorf("it answers %s: this node's ServiceAccount needs the right to create tokenreviews.authentication.k8s.io: kubectl create clusterrolebinding NAME --clusterrole=system:auth-delegator --serviceaccount=NAMESPACE:ACCOUNT", status)
	default:
		return nil, fmt.Errorf("it answers %s", status)
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, reviewMax+1))
	switch {
	case err != nil:
		return nil, inOwnWords(err)
	case len(text) > reviewMax:
		return nil, fmt.Errorf("it answers more than %d bytes", reviewMax)
	}
	return text, nil
}

// withoutAnAnswer are errors that repeat nothing of what was answered.
var withoutAnAnswer = []error{context.Canceled, http.ErrSchemeMismatch, io.EOF, io.ErrUnexpectedEOF}

// inOwnWords returns why a request failed. What was answered is not repeated, as net/http does
// where that is no HTTP: it may have the tokens that were sent.
func inOwnWords(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok { // which is a net.Error, whatever it wraps
		err = wrapped.Err
	}
	_, ofNetwork := errors.AsType[net.Error](err)
	_, ofCertificate := errors.AsType[*tls.CertificateVerificationError](err)
	if ofNetwork || ofCertificate || slices.ContainsFunc(withoutAnAnswer, func(e error) bool { return errors.Is(err, e) }) {
		return err
	}
	return errors.New("what it answers can't be read as HTTP")
}

// readOwnToken reads a file with a token, which whoever makes it renews.
func readOwnToken(path string) (string, error) {
	f, err := os.Open(path) //nolint:gosec // the operator of the node names the file
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // it was only read
	text, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	token := strings.TrimSpace(string(text))
	switch {
	case err != nil:
		return "", err
	case token == "" || len(text) > maxToken || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", fmt.Errorf("%s holds no token", path)
	}
	return token, nil
}
