package server

import (
	"crypto/tls"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"coracle/pkg/kubelet/cgroup"
)

// get makes a request and gives the status and the body.
func get(t *testing.T, c *http.Client, method, url string, header http.Header) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// TestEveryRouteIsGuarded walks the table: strangers get 401, users without
// rights 403, and what authorization is asked is written down here.
func TestEveryRouteIsGuarded(t *testing.T) {
	f := newFixture(t)
	f.deny["nobody"] = true
	want := map[string]string{
		"/pods":    "get pods,get proxy",
		"/metrics": "get metrics", "/metrics/resource": "get metrics", "/stats/summary": "get stats",
		"/containerLogs/{namespace}/{pod}/{container}": "get proxy",
		"/exec/{namespace}/{pod}/{container}":          "create proxy", "/exec/{namespace}/{pod}/{uid}/{container}": "create proxy",
		"/attach/{namespace}/{pod}/{container}": "create proxy", "/attach/{namespace}/{pod}/{uid}/{container}": "create proxy",
		"/portForward/{namespace}/{pod}": "create proxy", "/portForward/{namespace}/{pod}/{uid}": "create proxy",
	}
	got := map[string]string{}
	stranger, nobody := f.clientFor(nil, ""), f.clientFor(f.ca, "nobody")
	path := strings.NewReplacer("{namespace}", "ns", "{pod}", "pod", "{uid}", "uid", "{container}", "app")
	for _, rt := range routes() {
		url := f.url(path.Replace(rt.pattern))
		if rt.anonymous {
			if status, _ := get(t, stranger, "GET", url, nil); status != http.StatusOK || rt.pattern != "/healthz" {
				t.Errorf("%s: anonymous gets %d", rt.pattern, status)
			}
			continue
		}
		for _, method := range []string{"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"} {
			if status, body := get(t, stranger, method, url, nil); status != http.StatusUnauthorized {
				t.Errorf("%s %s: a stranger gets %d %q", method, rt.pattern, status, body)
			}
		}
		f.asked = nil
		upgrade := http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}
		if status, _ := get(t, nobody, "GET", url, upgrade); status != http.StatusForbidden {
			t.Errorf("%s: a user without rights gets %d", rt.pattern, status)
		}
		got[rt.pattern] = strings.Join(f.asked, ",")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, unknown := range []string{"/", "/logs/", "/debug/pprof/", "/run/ns/pod/app", "/configz", "/exec", "/checkpoint/ns/pod/app"} {
		if status, _ := get(t, stranger, "GET", f.url(unknown), nil); status != http.StatusUnauthorized {
			t.Errorf("%s: a stranger gets %d", unknown, status)
		}
		if status, _ := get(t, f.client, "GET", f.url(unknown), nil); status != http.StatusNotFound {
			t.Errorf("%s: an admin gets %d", unknown, status)
		}
	}
}

func TestAuthentication(t *testing.T) {
	f := newFixture(t)
	token := func(s string) http.Header { return http.Header{"Authorization": {s}} }
	stranger := f.clientFor(nil, "")
	for header, want := range map[string]int{"Bearer good": 200, "bearer good": 200, "Bearer bad": 401, "Bearer ": 401, "Basic good": 401} {
		if status, _ := get(t, stranger, "GET", f.url("/pods"), token(header)); status != want {
			t.Errorf("%q gets %d, want %d", header, status, want)
		}
	}
	if status, _ := get(t, f.clientFor(f.ca, ""), "GET", f.url("/pods"), nil); status != 401 {
		t.Errorf("a certificate without a name gets %d", status)
	}
	foreign := f.clientFor(newAuthority(t), "admin")
	if resp, err := foreign.Get(f.url("/pods")); err == nil {
		resp.Body.Close()
		t.Errorf("a certificate of another CA gets %d", resp.StatusCode)
	}
	old := f.clientTLS(f.ca, "admin")
	old.MaxVersion = tls.VersionTLS11
	if conn, err := tls.Dial("tcp", f.addr, old); err == nil {
		conn.Close()
		t.Error("TLS 1.1 was accepted")
	}
}

func TestContainerLogs(t *testing.T) {
	f := newFixture(t)
	dir := filepath.Join(f.cfg.LogDir, "ns_pod_uid", "app")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	write("1.log", "2026-01-02T03:04:05Z stdout F one\n2026-01-02T03:04:06Z stderr F two\n2026-01-02T03:04:07Z stdout F three\n")
	write("0.log", "2026-01-02T03:04:05Z stdout F before\n")
	f.node.containers["app/previous"] = Container{ID: "c0", LogName: "app/0.log"}
	f.node.containers["link"] = Container{ID: "c2", LogName: "app/link.log"}
	if err := os.Symlink("/etc/hostname", filepath.Join(dir, "link.log")); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		path   string
		status int
		want   string
	}{
		{"/containerLogs/ns/pod/app", 200, "one\ntwo\nthree\n"},
		{"/containerLogs/ns/pod/app?tailLines=1&timestamps=true", 200, "2026-01-02T03:04:07Z three\n"},
		{"/containerLogs/ns/pod/app?limitBytes=5", 200, "one\nt"},
		{"/containerLogs/ns/pod/app?stream=Stderr", 200, "two\n"},
		{"/containerLogs/ns/pod/app?stream=Stdout&tailLines=1", 200, "three\n"},
		{"/containerLogs/ns/pod/app?sinceTime=2026-01-02T03:04:06Z", 200, "two\nthree\n"},
		{"/containerLogs/ns/pod/app?sinceSeconds=1", 200, ""},
		{"/containerLogs/ns/pod/app?previous=true", 200, "before\n"},
		{"/containerLogs/ns/pod/app?tailLines=x", 422, "tailLines must be a number of at least 0\n"},
		{"/containerLogs/ns/pod/app?tailLines=-1", 422, "tailLines must be a number of at least 0\n"},
		{"/containerLogs/ns/pod/app?follow=maybe", 422, "follow must be true or false\n"},
		{"/containerLogs/ns/pod/app?stream=Both", 422, "stream must be All, Stdout or Stderr\n"},
		{"/containerLogs/ns/pod/waiting", 400, "container \"waiting\" in pod \"pod\" is waiting to start: PodInitializing\n"},
		{"/containerLogs/ns/pod/waiting?previous=true", 400, "previous terminated container \"waiting\" in pod \"pod\" not found\n"},
		{"/containerLogs/ns/pod/none", 404, "container none is not valid for pod pod\n"},
		{"/containerLogs/ns/none/app", 404, "pod \"none\" in namespace \"ns\" is not on this node\n"},
	}
	for _, tt := range tests {
		if status, body := get(t, f.client, "GET", f.url(tt.path), nil); status != tt.status || body != tt.want {
			t.Errorf("%s: %d %q, want %d %q", tt.path, status, body, tt.status, tt.want)
		}
	}
	if status, body := get(t, f.client, "GET", f.url("/containerLogs/ns/pod/link"), nil); status != 500 || strings.Contains(body, "\n\n") {
		t.Errorf("a link in place of the log: %d %q", status, body)
	}
}

func TestFollowSendsHeaderAndLinesAtOnce(t *testing.T) {
	f := newFixture(t)
	dir := filepath.Join(f.cfg.LogDir, "ns_pod_uid", "app")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "1.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	resp, err := f.client.Get(f.url("/containerLogs/ns/pod/app?follow=true"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for _, text := range []string{"a", "b"} {
		if _, err := log.WriteString("2026-01-02T03:04:05Z stdout F " + text + "\n"); err != nil {
			t.Fatal(err)
		}
		line := make([]byte, 2)
		if _, err := io.ReadFull(resp.Body, line); err != nil || string(line) != text+"\n" {
			t.Fatalf("read %q, %v", line, err)
		}
	}
	ended := make(chan error, 1)
	go func() {
		_, err := io.ReadAll(resp.Body)
		ended <- err
	}()
	f.stop()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the end of the server did not end the request")
	}
}

func TestStatistics(t *testing.T) {
	f := newFixture(t, func(c *Config) {
		c.VolumeStats = func(namespace string, _ types.UID) []VolumeStats {
			used := uint64(5)
			return []VolumeStats{{Time: time.Unix(5, 0).UTC(), UsedBytes: &used, Name: "v", PVCRef: &PVCReference{Name: "data", Namespace: namespace}}}
		}
		c.NodeUsage = func() (cgroup.Usage, error) { return cgroup.Usage{CPU: 2 * time.Second, Memory: 4096}, nil }
	})
	u := func(n uint64) *runtimeapi.UInt64Value { return &runtimeapi.UInt64Value{Value: n} }
	f.node.stats = []*runtimeapi.ContainerStats{
		{Attributes: &runtimeapi.ContainerAttributes{Labels: map[string]string{labelPodUID: "uid", labelContainer: "app"}},
			Cpu:    &runtimeapi.CpuUsage{Timestamp: 5e9, UsageCoreNanoSeconds: u(15e8), UsageNanoCores: u(7)},
			Memory: &runtimeapi.MemoryUsage{Timestamp: 5e9, WorkingSetBytes: u(1000)}},
		{Attributes: &runtimeapi.ContainerAttributes{Labels: map[string]string{labelPodUID: "gone"}}},
		{},
	}
	status, body := get(t, f.client, "GET", f.url("/metrics/resource"), nil)
	_, rest, ok := strings.Cut(body, "# TYPE pod_cpu_usage_seconds_total")
	want := ` counter
pod_cpu_usage_seconds_total{namespace="ns",pod="pod"} 1.5 5000
# TYPE pod_memory_working_set_bytes gauge
pod_memory_working_set_bytes{namespace="ns",pod="pod"} 1000 5000
# TYPE container_cpu_usage_seconds_total counter
container_cpu_usage_seconds_total{container="app",namespace="ns",pod="pod"} 1.5 5000
# TYPE container_memory_working_set_bytes gauge
container_memory_working_set_bytes{container="app",namespace="ns",pod="pod"} 1000 5000
# TYPE container_start_time_seconds gauge
container_start_time_seconds{container="app",namespace="ns",pod="pod"} 1000
# TYPE resource_scrape_error gauge
resource_scrape_error 0
`
	if diff := cmp.Diff(want, rest); status != 200 || !ok || diff != "" {
		t.Errorf("%d %s", status, diff)
	}
	if !strings.HasPrefix(body, "# TYPE node_cpu_usage_seconds_total counter\nnode_cpu_usage_seconds_total 2 ") {
		t.Errorf("node metrics: %.100q", body)
	}
	_, body = get(t, f.client, "GET", f.url("/stats/summary"), nil)
	if want := `"containers":[{"name":"app","startTime":"1970-01-01T00:16:40Z","cpu":{"time":"1970-01-01T00:00:05Z","usageNanoCores":7,"usageCoreNanoSeconds":1500000000},"memory":{"time":"1970-01-01T00:00:05Z","workingSetBytes":1000}}]`; !strings.Contains(body, want) {
		t.Errorf("summary %s", body)
	}
	if want := `"volume":[{"time":"1970-01-01T00:00:05Z","usedBytes":5,"name":"v","pvcRef":{"name":"data","namespace":"ns"}}]`; !strings.Contains(body, want) {
		t.Errorf("summary %s", body)
	}
	if _, body = get(t, f.client, "GET", f.url("/pods"), nil); !strings.HasPrefix(body, `{"kind":"PodList","apiVersion":"v1"`) {
		t.Errorf("pods %.100s", body)
	}
	if _, body = get(t, f.client, "GET", f.url("/metrics"), nil); !strings.Contains(body, "go_goroutines") {
		t.Errorf("metrics %.100s", body)
	}
}
