package apiserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"coracle/pkg/audit"
	"coracle/pkg/auth"
	"coracle/pkg/registry"
)

// beginAudit records a request as its sender is known; user is nil when it is
// not. An error means that the request must not be served.
func (s *Server) beginAudit(r *http.Request, info *requestInfo, user *auth.User) (err error) {
	if s.cfg.Audit == nil {
		return nil
	}
	a := info.attributes(user, r)
	info.audit, err = s.cfg.Audit.Begin(audit.Request{
		ID: info.auditID, URI: r.URL.RequestURI(), Attributes: a, SourceIPs: sourceIPs(r), UserAgent: r.UserAgent(), Received: info.received,
	})
	if err != nil {
		return apierrors.NewInternalError(errors.New("failed to store audit event"))
	}
	return nil
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
	if info.audit.WantsRequest() {
		w.request, w.requestMedia = &bounded{}, r.Header.Get("Content-Type")
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
func (s *Server) endAudit(w *recorder, info *requestInfo) {
	if info.audit == nil {
		return
	}
	if w.request != nil {
		info.audit.SetRequest(s.auditJSON(w.requestMedia, w.request.Bytes()))
	}
	if w.response != nil && w.Header().Get("Content-Encoding") == "" {
		info.audit.SetResponse(s.auditJSON(w.Header().Get("Content-Type"), w.response.Bytes()))
	}
	stage := audit.StageResponseComplete
	if w.panicked {
		stage = audit.StagePanic
	}
	info.audit.End(stage, audit.Status{Code: w.code, Reason: w.reason, Message: w.message}, time.Now())
}

// auditJSON is a body as the audit log has it, whatever form it was sent in;
// nil for what is no object.
func (s *Server) auditJSON(media string, body []byte) []byte {
	switch {
	case len(body) == 0 || len(body) > audit.MaxBody:
		return nil
	case strings.Contains(media, "yaml"):
		out, err := yaml.YAMLToJSON(body)
		if err != nil {
			return nil
		}
		return out
	case strings.Contains(media, string(registry.Protobuf)):
		return s.jsonOfProtobuf(body)
	case media == "" || strings.Contains(media, "json"):
		return body
	}
	return nil
}

// protobufMark begins every protobuf body.
var protobufMark = []byte("k8s\x00")

// jsonOfProtobuf converts an object of a known kind.
func (s *Server) jsonOfProtobuf(body []byte) []byte {
	raw, ok := bytes.CutPrefix(body, protobufMark)
	var envelope runtime.Unknown
	if !ok || envelope.Unmarshal(raw) != nil {
		return nil
	}
	kind := schema.FromAPIVersionAndKind(envelope.APIVersion, envelope.Kind)
	for _, d := range []*registry.Decoder{s.decoder, s.plain} {
		obj, err := d.Decode(body, registry.Protobuf, kind, registry.Ignore, func(string) {})
		if err != nil {
			continue
		}
		obj.GetObjectKind().SetGroupVersionKind(kind)
		if out, err := json.Marshal(obj); err == nil {
			return out
		}
	}
	return nil
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

// noteRefusal keeps what there is to say about a credential that was refused, until
// the audit log knows the request.
func noteRefusal(ctx context.Context, err error) {
	remarked, ok := errors.AsType[*auth.RemarkedError](err)
	if !ok {
		return
	}
	if info, ok := ctx.Value(infoKey).(*requestInfo); ok {
		info.remark = &remarked.Remark
	}
}

// passOn tells the audit log and the client what there is to say about a request's
// credential.
func passOn(ctx context.Context, info *requestInfo) {
	if info.audit != nil {
		info.audit.Annotate(info.remark.Key, info.remark.Value)
	}
	if text := info.remark.Warning; text != "" {
		warner(ctx)(text)
	}
}

// annotator returns a function that adds to what the audit log says of the
// request.
func annotator(ctx context.Context) func(key, value string) {
	info, ok := ctx.Value(infoKey).(*requestInfo)
	if !ok || info.audit == nil {
		return nil
	}
	return info.audit.Annotate
}
