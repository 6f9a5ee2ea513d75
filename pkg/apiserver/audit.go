package apiserver

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/audit"
	"coracle/pkg/auth"
)

// beginAudit records a request as its sender is known; user is nil when it is
// not.
func (s *Server) beginAudit(r *http.Request, info *requestInfo, user *auth.User) {
	if s.cfg.Audit == nil {
		return
	}
	a := info.attributes(user, r)
	info.audit = s.cfg.Audit.Begin(audit.Request{
		ID: info.auditID, URI: r.URL.RequestURI(), Attributes: a, SourceIPs: sourceIPs(r), UserAgent: r.UserAgent(), Received: info.received,
	})
}

// maxForwarded bounds the addresses taken from headers, which clients can make up.
const maxForwarded = 16

// sourceIPs are where a request came from by what proxies say, then the peer.
func sourceIPs(r *http.Request) []string {
	var out []string
	for part := range strings.SplitSeq(strings.Join(r.Header["X-Forwarded-For"], ","), ",") {
		if ip := net.ParseIP(strings.TrimSpace(part)); ip != nil && len(out) < maxForwarded {
			out = append(out, ip.String())
		}
	}
	if ip := net.ParseIP(r.Header.Get("X-Real-Ip")); ip != nil && (len(out) == 0 || out[len(out)-1] != ip.String()) {
		out = append(out, ip.String())
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil || net.ParseIP(host) == nil || len(out) > 0 && out[len(out)-1] == host {
		return out
	}
	return append(out, host)
}

// auditBodies has the bodies of a request recorded as far as its level wants
// them.
func auditBodies(w *recorder, r *http.Request, info *requestInfo, stream bool) {
	if info.audit.WantsRequest() && strings.Contains(r.Header.Get("Content-Type"), "json") {
		w.request = &bounded{}
		r.Body = struct {
			io.Reader
			io.Closer
		}{io.TeeReader(r.Body, w.request), r.Body}
	}
	if info.audit.WantsResponse() && !stream {
		w.response = &bounded{}
	}
	if stream && info.audit != nil {
		w.started = func(code int) {
			info.audit.End(audit.StageResponseStarted, audit.Status{Code: code}, time.Now())
		}
	}
}

// endAudit records how a request was answered.
func endAudit(w *recorder, info *requestInfo) {
	if info.audit == nil {
		return
	}
	if w.request != nil {
		info.audit.SetRequest(w.request.Bytes())
	}
	if w.response != nil && w.Header().Get("Content-Encoding") == "" {
		info.audit.SetResponse(w.response.Bytes())
	}
	stage := audit.StageResponseComplete
	if w.panicked {
		stage = audit.StagePanic
	}
	info.audit.End(stage, audit.Status{Code: w.code, Reason: w.reason, Message: w.message}, time.Now())
}

// bounded keeps what is written unless it is too much for an event.
type bounded struct{ bytes.Buffer }

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if b.Len() <= audit.MaxBody { // one byte too much shows that it is
		b.Buffer.Write(p[:min(len(p), audit.MaxBody+1-b.Len())])
	}
	return len(p), nil
}

// failed notes for the audit log why a request was refused.
func (r *recorder) failed(s *metav1.Status) { r.reason, r.message = string(s.Reason), s.Message }

// annotator returns a function that adds to what the audit log says of the
// request.
func annotator(ctx context.Context) func(key, value string) {
	info, ok := ctx.Value(infoKey).(*requestInfo)
	if !ok || info.audit == nil {
		return nil
	}
	return info.audit.Annotate
}
