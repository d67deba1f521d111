package admin

import (
	"bytes"
	"net/http"
	"time"
)

const (
	// connectionsMost bounds the connections that do not come over loopback, and
	// connectionsEach those from one address. One more ends the oldest that is idle, so probes
	// and scrapes, which are done within a second, get in beside whoever holds connections.
	connectionsMost = 256
	connectionsEach = 32
	// A request has so long to come as a whole, an answer to go out, and a connection without
	// either stays for longer than Go's clients keep one, so that it is they who end it.
	requestTime = 10 * time.Second
	answerTime  = 15 * time.Second
	idleTime    = 2 * time.Minute
	// answerRate is how many bytes of a long answer have to go out in a second beyond that.
	answerRate = 256 << 10
	// listTime bounds how long a list may take to be put together.
	listTime = time.Minute
	// scrapesMost is how many scrapes are put together at a time.
	scrapesMost = 10
)

// within gives a request, and the answer to it, so long from now on; 0: as long as they take.
func within(w http.ResponseWriter, d time.Duration) {
	var end time.Time
	if d > 0 {
		end = time.Now().Add(d)
	}
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(end)  // a connection that has ended has no deadlines
	_ = c.SetWriteDeadline(end) // likewise
}

// sized is how long an answer of so many bytes has to go out.
func sized(bytes int) time.Duration {
	return answerTime + time.Duration(bytes)*time.Second/answerRate
}

// occupied marks the connection of a request as one that is not idle.
func occupied(handle http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if conn, ok := r.Context().Value(connectionKey{}).(*connection); ok && conn.place != nil {
			conn.place.Busy()
			defer conn.place.Idle()
		}
		handle.ServeHTTP(w, r)
	})
}

// whole writes an answer when all of it is there: what bounds how many are put together at a
// time is not held up by those who don't read.
func whole(handle http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := &answer{ResponseWriter: w, status: http.StatusOK}
		handle.ServeHTTP(a, r)
		within(w, sized(a.body.Len()))
		w.WriteHeader(a.status)
		_, _ = w.Write(a.body.Bytes()) // the asker may have gone
	})
}

// answer is one that is being put together.
type answer struct {
	http.ResponseWriter // for its header

	status int
	body   bytes.Buffer
}

func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }
