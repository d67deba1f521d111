package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

// DefaultTokenFile is where a client looks for its token when no option names one: mount a
// ServiceAccount's token there that is projected for the hub's audience.
const DefaultTokenFile = "/var/run/secrets/switchboard.dev/token" //nolint:gosec // where it is, not what

const (
	renewLook    = 30 * time.Second // at most, between two looks at the token's file
	renewLookMin = time.Second      // at least
	renewParts   = 10               // looks while a token holds
)

// readToken returns what proves who the client is, empty when there is nothing. The file is
// read anew each time: whoever writes it replaces a token before it expires.
func (o *options) readToken() (string, error) {
	path := o.tokenFile
	if o.token != "" {
		return o.token, nil
	}
	if path == "" {
		path = DefaultTokenFile
	}
	text, err := os.ReadFile(path) //nolint:gosec // the program names it
	switch {
	case errors.Is(err, fs.ErrNotExist) && o.tokenFile == "":
		return "", nil
	case err != nil && looksLikeToken(path):
		if failed, ok := errors.AsType[*fs.PathError](err); ok {
			err = failed.Err // without the path
		}
		return "", fmt.Errorf("read the token: what is named as its file looks like a token itself (WithToken takes one): %w", err)
	case err != nil:
		return "", fmt.Errorf("read the token: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// looksLikeToken reports whether what should be the path of a file is more like a JSON Web
// Token, or NAME:SECRET. Errors don't repeat it then.
func looksLikeToken(path string) bool {
	return strings.HasPrefix(path, "eyJ") || strings.Contains(path, ":") && !strings.ContainsAny(path, `/\`)
}

// renewTokens sends the node what the token's file says whenever that has changed, until
// the link ends. A node that is not told in time ends the connection, and the session goes
// on over the next one.
func (c *Client) renewTokens(l *link) {
	if l.welcome.Expires == 0 || c.opts.token != "" {
		return
	}
	holds := time.Duration(l.welcome.Expires) * time.Millisecond
	look := time.NewTicker(min(renewLook, max(holds/renewParts, renewLookMin)))
	defer look.Stop()
	for {
		select {
		case <-look.C:
		case <-l.done:
			return
		}
		token, err := c.opts.readToken()
		if err == nil && token != l.token {
			err = c.renew(l, token)
		}
		if err != nil {
			c.report(err)
		}
	}
}

// renew sends a token and waits for the answer.
func (c *Client) renew(l *link, token string) error {
	body, err := json.Marshal(wire.Renew{Token: token})
	if err != nil {
		return fmt.Errorf("renew the token: %w", err)
	}
	p := c.out.control(wire.Header{Kind: wire.KindRenew}, "", body, true)
	select {
	case <-p.done:
	case <-l.done: // the next connection begins with the file
		return nil
	}
	switch {
	case p.err == nil:
		l.token = token
	case errors.Is(p.err, errLinkLost), errors.Is(p.err, ErrClosed):
	default:
		return fmt.Errorf("renew the token: %w", p.err)
	}
	return nil
}
