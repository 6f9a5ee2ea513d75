package h2

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
)

// headers begins a stream, or ends the body of one with trailers.
func (c *conn) headers(f *http2.MetaHeadersFrame) error {
	id := f.StreamID
	protocolError := http2.StreamError{StreamID: id, Code: http2.ErrCodeProtocol}
	if id%2 == 0 {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if st := c.streams[id]; st != nil {
		return c.trailers(st, f)
	}
	switch {
	case id <= c.last:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case c.away || c.err != nil:
		return nil // the client finds out, and asks elsewhere
	}
	c.last = id
	if len(c.streams) >= c.server.cfg.MaxStreams {
		if c.unacked > 0 { // it may not know yet
			return http2.StreamError{StreamID: id, Code: http2.ErrCodeRefusedStream}
		}
		return protocolError
	}
	if f.HasPriority() && f.Priority.StreamDep == id {
		return protocolError
	}
	st := &stream{c: c, id: id, room: c.first, recv: recvWindow, handler: c.handler}
	st.cond.L = &c.mu
	if !st.ask(f) {
		return protocolError
	}
	c.streams[id] = st
	switch {
	case c.running < c.server.cfg.MaxStreams:
		c.running++
		c.ready = append(c.ready, st)
	case len(c.waiting) > 4*c.server.cfg.MaxStreams:
		// Nobody resets so many streams who wants an answer (CVE-2023-44487).
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	default:
		c.waiting = append(c.waiting, st)
	}
	return nil
}

// trailers end a body; what they say is dropped. c.mu is held.
func (c *conn) trailers(st *stream, f *http2.MetaHeadersFrame) error {
	switch {
	case st.whole:
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeStreamClosed}
	case !f.StreamEnded() || len(f.PseudoFields()) > 0:
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeProtocol}
	}
	st.endOfBody()
	st.cond.Broadcast()
	return nil
}

// ask makes the request of a stream. False means that it is malformed.
func (st *stream) ask(f *http2.MetaHeadersFrame) bool {
	var method, scheme, authority, path string
	fields := f.Fields
	for len(fields) > 0 && fields[0].IsPseudo() {
		switch v := fields[0].Value; fields[0].Name {
		case ":method":
			method = v
		case ":scheme":
			scheme = v
		case ":authority":
			authority = v
		case ":path":
			path = v
		default:
			return false // another kind of CONNECT
		}
		fields = fields[1:]
	}
	header := make(http.Header, len(fields))
	values := make([]string, len(fields))
	for i, hf := range fields {
		key := canonical(hf.Name)
		if have := header[key]; have != nil {
			header[key] = append(have, hf.Value)
			continue
		}
		values[i] = hf.Value
		header[key] = values[i : i+1 : i+1]
	}
	if authority == "" {
		authority = header.Get("Host")
	}
	target, ok := targetOf(method, scheme, authority, path)
	if !ok {
		return false
	}
	if httpguts.HeaderValuesContainsToken(header["Expect"], "100-continue") {
		st.expect = true
		delete(header, "Expect")
	}
	if cookies := header["Cookie"]; len(cookies) > 1 {
		header["Cookie"] = []string{strings.Join(cookies, "; ")}
	}
	delete(header, "Trailer")

	r := &http.Request{
		Method: method, URL: target, Host: authority, RequestURI: path, Header: header, Body: http.NoBody,
		Proto: "HTTP/2.0", ProtoMajor: 2, RemoteAddr: st.c.remote, TLS: st.c.tls,
	}
	if f.StreamEnded() {
		st.endOfBody()
	} else {
		r.Body = (*body)(st)
		r.ContentLength = contentLength(header)
		st.declared = r.ContentLength
	}
	if f.Truncated {
		st.handler = http.HandlerFunc(headersTooLarge)
	} else if err := forbidden(header); err != nil {
		st.handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, err.Error(), http.StatusBadRequest) })
	}
	ctx, cancel := context.WithCancel(st.c.base)
	st.request, st.cancel = r.WithContext(ctx), cancel
	return true
}

func targetOf(method, scheme, authority, path string) (*url.URL, bool) {
	if method == http.MethodConnect {
		return &url.URL{Host: authority}, path == "" && scheme == "" && authority != ""
	}
	if method == "" || path == "" || scheme != "https" && scheme != "http" || strings.Contains(authority, "@") {
		return nil, false
	}
	u, err := url.ParseRequestURI(path)
	return u, err == nil
}

func contentLength(h http.Header) int64 {
	said, ok := h["Content-Length"]
	if !ok {
		return -1
	}
	n, err := strconv.ParseUint(said[0], 10, 63)
	if err != nil {
		return 0
	}
	return int64(n)
}

// forbidden refuses headers that are about a connection, which HTTP/2 has
// other means for.
func forbidden(h http.Header) error {
	for _, k := range []string{"Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade"} {
		if _, ok := h[k]; ok {
			return fmt.Errorf("request header %q is not valid in HTTP/2", k)
		}
	}
	if te := h["Te"]; len(te) > 1 || len(te) == 1 && te[0] != "trailers" && te[0] != "" {
		return errors.New(`request header "TE" may only be "trailers" in HTTP/2`)
	}
	return nil
}

func headersTooLarge(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "the headers of the request are too large", http.StatusRequestHeaderFieldsTooLarge)
}

// canonical is a header's name as handlers know it.
func canonical(name string) string {
	switch name {
	case "accept":
		return "Accept"
	case "accept-encoding":
		return "Accept-Encoding"
	case "authorization":
		return "Authorization"
	case "content-length":
		return "Content-Length"
	case "content-type":
		return "Content-Type"
	case "user-agent":
		return "User-Agent"
	}
	return http.CanonicalHeaderKey(name)
}
