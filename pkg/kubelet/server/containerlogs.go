package server

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"coracle/pkg/kubelet/logs"
)

// containerLogs copies a container's log to the client.
func (s *Server) containerLogs(w http.ResponseWriter, r *http.Request) {
	pod, err := s.pod(r)
	if err != nil {
		fail(w, err)
		return
	}
	q, err := parseLogQuery(r.URL.Query(), time.Now())
	if err != nil {
		fail(w, err)
		return
	}
	name := r.PathValue("container")
	c, ok := s.cfg.Pods.Container(pod.UID, name, q.previous)
	if !ok {
		fail(w, noLog(pod, name, q.previous))
		return
	}
	out := &logWriter{w: w, control: http.NewResponseController(w)}
	out.buf = bufio.NewWriterSize(writerFunc(out.send), 32<<10)
	var stdout, stderr io.Writer = out, out
	switch q.stream {
	case "Stdout":
		stderr = nil
	case "Stderr":
		stdout = nil
	}
	file := logs.File{PodDir: logs.PodDir(s.cfg.LogDir, pod), Name: c.LogName, Running: c.Running}
	err = logs.Read(r.Context(), file, q.options, stdout, stderr)
	if err == nil || out.started {
		out.Flush()
		return
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = &httpError{http.StatusNotFound, fmt.Sprintf("the log of container %q in pod %q is not there any more", name, pod.Name)}
	}
	fail(w, err)
}

// noLog says why there is no log to read.
func noLog(pod *corev1.Pod, name string, previous bool) error {
	if !hasContainer(pod, name) {
		return &httpError{http.StatusNotFound, fmt.Sprintf("container %s is not valid for pod %s", name, pod.Name)}
	}
	if previous {
		return &httpError{http.StatusBadRequest, fmt.Sprintf("previous terminated container %q in pod %q not found", name, pod.Name)}
	}
	reason := "ContainerCreating"
	all := [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses}
	for _, list := range all {
		for i := range list {
			if list[i].Name == name && list[i].State.Waiting != nil && list[i].State.Waiting.Reason != "" {
				reason = list[i].State.Waiting.Reason
			}
		}
	}
	return &httpError{http.StatusBadRequest, fmt.Sprintf("container %q in pod %q is waiting to start: %s", name, pod.Name, reason)}
}

func hasContainer(pod *corev1.Pod, name string) bool {
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == name {
			return true
		}
	}
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return true
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			return true
		}
	}
	return false
}

// logQuery is what a client asks for.
type logQuery struct {
	options  logs.Options
	previous bool
	stream   string
}

func parseLogQuery(v url.Values, now time.Time) (logQuery, error) {
	q := logQuery{stream: v.Get("stream")}
	p := queryParser{values: v}
	q.previous = p.flag("previous")
	q.options.Follow = p.flag("follow")
	q.options.Timestamps = p.flag("timestamps")
	q.options.Tail = p.number("tailLines", 0)
	q.options.LimitBytes = p.number("limitBytes", 1)
	if seconds := p.number("sinceSeconds", 1); seconds != nil {
		q.options.Since = now.Add(-time.Duration(min(*seconds, maxSince)) * time.Second)
	}
	if text := v.Get("sinceTime"); text != "" {
		since, err := time.Parse(time.RFC3339, text)
		if err != nil {
			p.refuse("sinceTime must be a time such as 2026-01-02T15:04:05Z")
		}
		if v.Has("sinceSeconds") {
			p.refuse("at most one of sinceTime and sinceSeconds may be given")
		}
		q.options.Since = since
	}
	switch q.stream {
	case "", "All", "Stdout", "Stderr":
	default:
		p.refuse("stream must be All, Stdout or Stderr")
	}
	return q, p.err
}

// maxSince keeps sinceSeconds within what a duration can hold.
const maxSince = 1 << 32

// queryParser reads parameters and keeps the first error.
type queryParser struct {
	values url.Values
	err    error
}

func (p *queryParser) refuse(text string) {
	if p.err == nil {
		p.err = &httpError{http.StatusUnprocessableEntity, text}
	}
}

func (p *queryParser) flag(name string) bool {
	text := p.values.Get(name)
	if text == "" {
		return false
	}
	b, err := strconv.ParseBool(text)
	if err != nil {
		p.refuse(name + " must be true or false")
	}
	return b
}

func (p *queryParser) number(name string, least int64) *int64 {
	text := p.values.Get(name)
	if text == "" {
		return nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < least {
		p.refuse(fmt.Sprintf("%s must be a number of at least %d", name, least))
	}
	return &n
}

// logWriter gathers lines and sends them when its buffer is full or when
// nothing more is there for the moment.
type logWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	buf     *bufio.Writer
	// started is set once the answer's header is out.
	started bool
}

func (l *logWriter) Write(b []byte) (int, error) { return l.buf.Write(b) }

// Flush sends what is there, at first the header alone if need be, so that a
// client that follows a silent container sees that it is connected.
func (l *logWriter) Flush() {
	if l.buf.Flush() == nil {
		l.start()
		_ = l.control.Flush()
	}
}

func (l *logWriter) start() {
	if !l.started {
		l.started = true
		l.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		l.w.WriteHeader(http.StatusOK)
	}
}

func (l *logWriter) send(b []byte) (int, error) {
	l.start()
	// A client that stops reading must not hold the connection for ever.
	setWriteDeadline(l.w)
	return l.w.Write(b)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
