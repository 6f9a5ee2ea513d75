package kubelet

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"coracle/pkg/kubelet/lifecycle"
)

func TestHTTPHook(t *testing.T) {
	asked := make(chan *http.Request, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r }))
	defer server.Close()
	host, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	spec := &corev1.Container{Name: "c", Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: int32(number)}}}
	k := &Kubelet{}
	err = k.hook(t.Context(), &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{
		Path: "echo?msg=hi", Port: intstr.FromString("web"), HTTPHeaders: []corev1.HTTPHeader{{Name: "Host", Value: "other"}, {Name: "X-A", Value: "b"}},
	}}, hookTarget{spec: spec, ip: host})
	if err != nil {
		t.Fatal(err)
	}
	r := <-asked
	if r.URL.RequestURI() != "/echo?msg=hi" || r.Host != "other" || r.Header.Get("X-A") != "b" {
		t.Errorf("request %s to %s, headers %v", r.URL, r.Host, r.Header)
	}
	err = k.hook(t.Context(), &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromString("absent")}}, hookTarget{spec: spec, ip: host})
	if err == nil || !strings.Contains(err.Error(), `no port "absent"`) {
		t.Errorf("error %v", err)
	}
}

func TestPostStartFailureRestarts(t *testing.T) {
	onNode(t, func(t *testing.T, n *simNode) {
		p := simplePod("p")
		p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"sh", "-c", "exit 4"}}}}
		n.create(p)
		n.after(time.Second)
		if s := n.containerStatus("p"); s.Ready || s.State.Running != nil {
			t.Errorf("status %+v", s)
		}
		n.after(10 * time.Second)
		if s := n.containerStatus("p"); s.RestartCount < 1 {
			t.Errorf("status %+v", s)
		}
		if !n.sawEvent("FailedPostStartHook") {
			t.Error("no event")
		}
	})
}

func TestRunningIsReportedAfterPostStart(t *testing.T) {
	onNode(t, func(t *testing.T, n *simNode) {
		p := simplePod("p")
		p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 5}}}
		n.create(p)
		n.after(3 * time.Second)
		if s := n.containerStatus("p"); s.State.Waiting == nil || s.State.Waiting.Reason != lifecycle.ReasonContainerCreating {
			t.Errorf("during the hook: %+v", s)
		}
		n.after(3 * time.Second)
		if s := n.containerStatus("p"); s.State.Running == nil || !s.Ready {
			t.Errorf("after the hook: %+v", s)
		}
	})
}

func TestPreStopRunsWithinTheGrace(t *testing.T) {
	onNode(t, func(t *testing.T, n *simNode) {
		p := simplePod("p")
		p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 5}}}
		n.create(p)
		q := simplePod("q")
		q.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 500}}}
		n.create(q)
		n.after(2 * time.Second)
		n.remove("p", 30)
		n.remove("q", 10)
		n.after(4 * time.Second)
		if n.runtime.Live("uid-p", "c") != 1 {
			t.Error("stopped before its hook was through")
		}
		n.after(2 * time.Second)
		if n.exists("p") {
			t.Error("not stopped after its hook")
		}
		n.after(7 * time.Second)
		if n.exists("q") {
			t.Error("a hook outlived the grace")
		}
	})
}
