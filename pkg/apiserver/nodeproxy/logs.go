package nodeproxy

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"coracle/pkg/apiserver"
	"coracle/pkg/registry"
)

// logOptions are the query parameters of pods/log that the agent knows.
var logOptions = []string{"follow", "previous", "timestamps", "sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream"}

// logs serves pods/log, as a stream of bytes or over WebSocket.
func (p *Proxy) logs(w http.ResponseWriter, r *http.Request, req registry.Request, _ string) {
	target, err := p.logTarget(r.Context(), req, r.URL.Query())
	if err != nil {
		apiserver.WriteError(w, err)
		return
	}
	if target == nil {
		w.Header().Set("Content-Type", "text/plain")
		return // a pod that no node runs has no logs yet
	}
	out, err := http.NewRequestWithContext(r.Context(), http.MethodGet, target.String(), nil)
	if err != nil {
		apiserver.WriteError(w, apierrors.NewInternalError(err))
		return
	}
	resp, err := p.transport.RoundTrip(out)
	if err != nil {
		apiserver.WriteError(w, unreachable(target, err))
		return
	}
	defer closeBody(resp.Body)
	if resp.StatusCode != http.StatusOK {
		apiserver.WriteError(w, agentError(resp, target, req))
		return
	}
	if wsstream.IsWebSocketRequest(r) {
		// The buffer parts the last bytes from the end: the library drops what
		// comes together with it.
		reader := wsstream.NewReader(bufio.NewReader(resp.Body), true, wsstream.NewDefaultReaderProtocols())
		reader.SetIdleTimeout(idleTimeout)
		if err := reader.Copy(w, r); err != nil {
			p.cfg.Log.Debug("a log stream over WebSocket ended", "pod", req.Name, "error", err)
		}
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(http.StatusOK)
	if err := http.NewResponseController(w).Flush(); err != nil {
		return
	}
	copyFlushing(w, resp.Body)
}

// logTarget is where the logs are, nil when the pod has no node yet.
func (p *Proxy) logTarget(ctx context.Context, req registry.Request, q url.Values) (*url.URL, error) {
	pod, err := p.pod(ctx, req)
	if err != nil {
		return nil, err
	}
	name, err := container(pod, q.Get("container"))
	if err != nil {
		return nil, err
	}
	if pod.Spec.NodeName == "" {
		return nil, nil
	}
	target, err := p.agent(ctx, pod.Spec.NodeName)
	if err != nil {
		return nil, err
	}
	target = target.JoinPath("containerLogs", pod.Namespace, pod.Name, name)
	out := url.Values{}
	for _, o := range logOptions {
		if v := q.Get(o); v != "" {
			out.Set(o, v)
		}
	}
	target.RawQuery = out.Encode()
	return target, nil
}

// agentError turns an agent's refusal into a Status: its text is a sentence
// for the user.
func agentError(resp *http.Response, target *url.URL, req registry.Request) error {
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		return errRedirect(target)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err != nil {
		return unreachable(target, err)
	}
	text := strings.TrimSpace(string(body))
	if resp.StatusCode == http.StatusBadRequest {
		return apierrors.NewBadRequest(text)
	}
	s := apierrors.NewGenericServerResponse(resp.StatusCode, http.MethodGet, schema.GroupResource{Group: corev1.GroupName, Resource: "pods"}, req.Name, text, 0, true)
	s.ErrStatus.Message = text
	return s
}
