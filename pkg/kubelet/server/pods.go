package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	if s.cfg.Healthy != nil {
		if err := s.cfg.Healthy(); err != nil {
			s.cfg.Log.Warn("the agent is not healthy", "err", err)
			http.Error(w, "not healthy", http.StatusInternalServerError)
			return
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("ok"))
}

func (s *Server) listPods(w http.ResponseWriter, _ *http.Request) {
	list := corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []corev1.Pod{}}
	for _, pod := range s.cfg.Pods.Pods() {
		list.Items = append(list.Items, *pod)
	}
	writeJSON(w, &list)
}

func (s *Server) metrics(w http.ResponseWriter, r *http.Request) { s.cfg.Metrics.ServeHTTP(w, r) }

// processMetrics serves the metrics of this process from a registry of its own.
func processMetrics() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// pod finds the pod that the path names, by UID too where it has one.
func (s *Server) pod(r *http.Request) (*corev1.Pod, error) {
	namespace, name, uid := r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("uid")
	pod, ok := s.cfg.Pods.Pod(namespace, name)
	if !ok || uid != "" && string(pod.UID) != uid {
		return nil, &httpError{http.StatusNotFound, fmt.Sprintf("pod %q in namespace %q is not on this node", name, namespace)}
	}
	return pod, nil
}

// running finds the container that the path names and something is to run in.
func (s *Server) running(r *http.Request, pod *corev1.Pod) (Container, error) {
	name := r.PathValue("container")
	c, ok := s.cfg.Pods.Container(pod.UID, name, false)
	if !ok {
		return Container{}, &httpError{http.StatusNotFound, fmt.Sprintf("container not found (%q)", name)}
	}
	if c.Running == nil || !c.Running() {
		return Container{}, &httpError{http.StatusBadRequest, fmt.Sprintf("container %q in pod %q is not running", name, pod.Name)}
	}
	return c, nil
}

// httpError is an error with the status that it has for the client.
type httpError struct {
	status int
	text   string
}

func (e *httpError) Error() string { return e.text }

// fail answers with an error. Only errors made for clients show their text
// with a status of their own.
func fail(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	var he *httpError
	if errors.As(err, &he) {
		status = he.status
	}
	http.Error(w, err.Error(), status)
}

func writeJSON(w http.ResponseWriter, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		fail(w, fmt.Errorf("encoding the answer: %w", err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(data)
}

// setWriteDeadline gives the next writes a minute. Where the connection knows
// no deadlines there is nothing to bound.
func setWriteDeadline(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(requestTimeout))
}
