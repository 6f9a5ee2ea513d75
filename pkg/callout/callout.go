// Package callout calls the programs that users have configured the API server
// to ask: admission webhooks and conversion webhooks.
//
// Contract: calls go over TLS, to a program that the configured authority (or,
// without one, the machine's) vouches for, and follow no redirects, so that a
// program cannot send the server's requests elsewhere. A program that hangs,
// lies or sends without end harms only who calls it: a call ends with its
// context, takes no more of an answer than the caller wants, and waits while
// too many others are with the same program. Nothing of a request or an answer
// is logged. A Client is safe for concurrent use.
package callout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"
)

// Target is where a program is: a URL, or a port of a Service.
type Target struct {
	URL     string
	Service *Service
	// Authority is PEM of the certificates that the program's is checked
	// against; empty means those of the machine.
	Authority []byte
}

// Service is a port of a Service, and a path.
type Service struct {
	Namespace, Name, Path string
	Port                  int32
}

// defaultPort is that of a Service, if none is named.
const defaultPort = 443

// Post sends a JSON document to a program and returns its answer, of at most
// limit bytes. It ends with ctx, which should have a deadline: the program is
// told how many seconds there are, as its query parameter "timeout".
func (c *Client) Post(ctx context.Context, t Target, body []byte, limit int64) ([]byte, error) {
	to, err := c.locate(t)
	if err != nil {
		return nil, err
	}
	h, err := c.host(to, t.Authority)
	if err != nil {
		return nil, err
	}
	if err := h.enter(ctx, to.url); err != nil {
		return nil, err
	}
	defer h.leave()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, withTimeout(ctx, to.url), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, */*")
	req.Header.Set("User-Agent", "kube-apiserver-admission")
	resp, err := h.client.Do(req)
	if err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	// An answer that goes on is not read on: its connection is given up.
	err = errors.Join(err, resp.Body.Close())
	switch {
	case err != nil:
		return nil, fmt.Errorf("read its answer: %w", err)
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		return nil, fmt.Errorf("it answered %s, and redirects are not followed", resp.Status)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("it answered %s", resp.Status)
	case int64(len(answer)) > limit:
		return nil, fmt.Errorf("its answer is longer than %d bytes", limit)
	}
	return answer, nil
}

// location is where one call goes.
type location struct {
	// url has the host that was configured, which the certificate must be for:
	// that of a Service is its name, wherever its endpoints are now.
	url     *url.URL
	service *Service // with its port; nil for a URL
}

func (c *Client) locate(t Target) (location, error) {
	if t.URL != "" {
		u, err := url.Parse(t.URL)
		if err != nil {
			return location{}, fmt.Errorf("its URL cannot be parsed: %w", err)
		}
		if u.Scheme != "https" {
			return location{}, fmt.Errorf("its URL must begin with https, not %q", u.Scheme)
		}
		u.Path = clean(u.Path)
		return location{url: u}, nil
	}
	if t.Service == nil || c.Dial == nil {
		return location{}, errors.New("its configuration gives neither a URL nor a Service that can be reached")
	}
	s := *t.Service
	if s.Port == 0 {
		s.Port = defaultPort
	}
	host := net.JoinHostPort(s.Name+"."+s.Namespace+".svc", strconv.Itoa(int(s.Port)))
	return location{url: &url.URL{Scheme: "https", Host: host, Path: clean(s.Path)}, service: &s}, nil
}

// clean removes what a program would answer with a redirect to the path without
// it: configurations are often put together with one slash too many.
func clean(p string) string {
	out := path.Join("/", p)
	if strings.HasSuffix(p, "/") && out != "/" {
		out += "/"
	}
	return out
}

// withTimeout tells the program how long it has, in whole seconds.
func withTimeout(ctx context.Context, u *url.URL) string {
	deadline, ok := ctx.Deadline()
	if !ok {
		return u.String()
	}
	left := (time.Until(deadline) + time.Second - 1).Truncate(time.Second)
	if left <= 0 {
		return u.String() // the call ends at once
	}
	told := *u
	told.RawQuery = url.Values{"timeout": {left.String()}}.Encode()
	return told.String()
}
