package probe

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func try(t *testing.T, h corev1.ProbeHandler, podIP string, c *corev1.Container) (outcome, error) {
	t.Helper()
	m := New(Config{})
	return m.tryOnce(t.Context(), target{container: c, podIP: podIP, probe: &corev1.Probe{ProbeHandler: h}, timeout: 2 * time.Second})
}

func hostPort(t *testing.T, raw string) (string, int) {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return u.Hostname(), port
}

func TestHTTPAttempt(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) {
		if r.UserAgent() != userAgent || r.Header.Get("Accept") != "*/*" || r.Host != "named" || r.Header.Get("X-A") != "1" || r.URL.RawQuery != "q=1" {
			http.Error(w, "unexpected request", http.StatusTeapot)
		}
	})
	mux.HandleFunc("/bad", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "sick", http.StatusInternalServerError) })
	mux.HandleFunc("/inside", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/bad", http.StatusFound) })
	mux.HandleFunc("/outside", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://other.invalid/", http.StatusFound)
	})
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	})
	headers := []corev1.HTTPHeader{{Name: "Host", Value: "named"}, {Name: "x-a", Value: "1"}}
	for _, server := range []*httptest.Server{httptest.NewServer(mux), httptest.NewTLSServer(mux)} {
		defer server.Close()
		host, port := hostPort(t, server.URL)
		scheme := corev1.URISchemeHTTP
		if strings.HasPrefix(server.URL, "https") {
			scheme = corev1.URISchemeHTTPS
		}
		for path, want := range map[string]string{
			"/ok?q=1": "", "ok?q=1": "", "/bad": "HTTP probe failed with statuscode: 500: sick",
			"/inside": "HTTP probe failed with statuscode: 500: sick", "/outside": "", "/loop": "10 redirects", "/endless": "",
		} {
			action := &corev1.HTTPGetAction{Path: path, Port: intstr.FromString("web"), Scheme: scheme, HTTPHeaders: headers}
			c := &corev1.Container{Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: int32(port)}}}
			got, err := try(t, corev1.ProbeHandler{HTTPGet: action}, host, c)
			if err != nil || got.success != (want == "") || !strings.Contains(got.message, want) {
				t.Errorf("%s %s: %+v, %v; want %q", scheme, path, got, err, want)
			}
		}
	}
}

func TestAttemptsTimeOutAndRefuse(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := silent.Addr().(*net.TCPAddr).Port
	m := New(Config{})
	run := func(h corev1.ProbeHandler) outcome {
		t.Helper()
		out, err := m.tryOnce(t.Context(), target{container: &corev1.Container{}, podIP: "127.0.0.1",
			probe: &corev1.Probe{ProbeHandler: h}, timeout: 50 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	httpGet := corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromInt(port)}}
	tcp := corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt(port)}}
	rpc := corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: int32(port)}}
	if out := run(tcp); !out.success {
		t.Errorf("tcp to a listener: %+v", out)
	}
	if out := run(httpGet); out.success {
		t.Error("http to a silent server must fail")
	}
	if out := run(rpc); out.success || !strings.Contains(out.message, "did not complete within the timeout") {
		t.Errorf("grpc to a silent server: %+v", out)
	}
	silent.Close()
	for _, h := range []corev1.ProbeHandler{httpGet, tcp, rpc} {
		if out := run(h); out.success || !strings.Contains(out.message, "refused") {
			t.Errorf("nobody listens: %+v", out)
		}
	}
	if _, err := try(t, corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("none")}}, "127.0.0.1", &corev1.Container{Name: "app"}); err == nil {
		t.Error("a port name that the container does not have must be an error")
	}
}

func TestGRPCAttempt(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, checks := grpc.NewServer(), health.NewServer()
	healthpb.RegisterHealthServer(server, checks)
	checks.SetServingStatus("sick", healthpb.HealthCheckResponse_NOT_SERVING)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	defer func() { server.Stop(); <-done }()
	port := int32(listener.Addr().(*net.TCPAddr).Port)
	for service, want := range map[string]string{"": "", "sick": `responded with "NOT_SERVING"`, "none": "unknown service"} {
		got, err := try(t, corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: port, Service: &service}}, "127.0.0.1", &corev1.Container{})
		if err != nil || got.success != (want == "") || !strings.Contains(got.message, want) {
			t.Errorf("service %q: %+v, %v; want %q", service, got, err, want)
		}
	}
	bare := grpc.NewServer()
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { done <- bare.Serve(other) }()
	defer func() { bare.Stop(); <-done }()
	got, err := try(t, corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: int32(other.Addr().(*net.TCPAddr).Port)}}, "127.0.0.1", &corev1.Container{})
	if err != nil || got.success || !strings.Contains(got.message, "does not implement") {
		t.Errorf("a server without health service: %+v, %v", got, err)
	}
}

func TestFailureText(t *testing.T) {
	if got, want := failureText(Readiness, "no"), "Readiness probe failed: no"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := failureText(Liveness, strings.Repeat("ü", 4000)); len(got) > 1100 {
		t.Errorf("a message of %d bytes", len(got))
	}
}
