package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Limits of an HTTP probe.
const (
	// maxBody is how much of an answer is read.
	maxBody = 10 << 10
	// maxRedirects is how many redirects within the host are followed.
	maxRedirects = 10
)

// httpAttempt asks for a page; 200 to 399 is success. Certificates are not
// verified: the probe asks whether somebody answers, not who.
func httpAttempt() attempt {
	return attempt{
		is: func(h *corev1.ProbeHandler) bool { return h.HTTPGet != nil },
		do: func(ctx context.Context, t target) (outcome, error) {
			ctx, cancel := context.WithTimeout(ctx, t.timeout)
			defer cancel()
			req, err := httpRequest(ctx, t.probe.HTTPGet, t.container, t.podIP)
			if err != nil {
				return outcome{}, err
			}
			return doHTTP(req)
		},
	}
}

func doHTTP(req *http.Request) (outcome, error) {
	transport := &http.Transport{
		TLSClientConfig:        &tls.Config{InsecureSkipVerify: true},
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
	}
	client := &http.Client{Transport: transport, CheckRedirect: sameHostOnly}
	resp, err := client.Do(req)
	if err != nil {
		return failure("%s", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return failure("reading the answer: %s", err)
	}
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		text := strings.TrimSpace(string(body))
		if text != "" {
			text = ": " + text
		}
		return failure("HTTP probe failed with statuscode: %d%s", resp.StatusCode, text)
	}
	return outcome{success: true}, nil
}

// sameHostOnly ends at a redirect to another host, whose state says nothing of
// the container's; the redirect itself is a success.
func sameHostOnly(req *http.Request, via []*http.Request) error {
	if req.URL.Hostname() != via[0].URL.Hostname() {
		return http.ErrUseLastResponse
	}
	if len(via) >= maxRedirects {
		return fmt.Errorf("stopped after %d redirects", maxRedirects)
	}
	return nil
}

func httpRequest(ctx context.Context, action *corev1.HTTPGetAction, c *corev1.Container, podIP string) (*http.Request, error) {
	port, err := resolvePort(action.Port, c)
	if err != nil {
		return nil, err
	}
	host := action.Host
	if host == "" {
		host = podIP
	}
	u, err := url.Parse(action.Path)
	if err != nil {
		u = &url.URL{Path: action.Path}
	}
	u.Scheme = "http"
	if action.Scheme != "" {
		u.Scheme = strings.ToLower(string(action.Scheme))
	}
	u.Host = net.JoinHostPort(host, port)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("the probe's path makes no URL: %w", err)
	}
	for _, h := range action.HTTPHeaders {
		if strings.EqualFold(h.Name, "Host") {
			req.Host = h.Value
			continue
		}
		req.Header.Add(h.Name, h.Value)
	}
	setDefault(req.Header, "User-Agent", userAgent)
	setDefault(req.Header, "Accept", "*/*")
	return req, nil
}

// userAgent lets servers tell probes from users.
const userAgent = "kube-probe/1.37"

// setDefault sets a header that the probe does not set. One that it sets to
// nothing is not sent at all.
func setDefault(h http.Header, name, value string) {
	values, set := h[name]
	if !set {
		h.Set(name, value)
	} else if len(values) == 1 && values[0] == "" && name != "User-Agent" {
		h.Del(name)
	}
}
