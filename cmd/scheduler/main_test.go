package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"coracle/pkg/auth"
	"coracle/pkg/component"
	"coracle/pkg/scheduler"
	"coracle/pkg/scheduler/config"
	"coracle/pkg/testcluster"
)

// start runs a scheduler process's work; stop cuts it off and waits.
func start(t *testing.T, c *testcluster.Cluster, identity string, l net.Listener) (stop func()) {
	t.Helper()
	role := component.Role{
		Options: component.Options{
			Name: "kube-scheduler", BindAddress: "127.0.0.1", Open: []string{"/healthz", "/readyz", "/livez"},
			Election: component.Election{Enabled: true, Duration: 3 * time.Second, Deadline: 2 * time.Second, Period: 100 * time.Millisecond, Namespace: "kube-system", Name: "kube-scheduler"},
		},
		Client: kubernetes.NewForConfigOrDie(c.As(auth.UserScheduler)), Listener: l, Identity: identity,
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- run(ctx, role, config.Config{}) }()
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("scheduler %s: %v", identity, err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func holder(t *testing.T, c *testcluster.Cluster) string {
	l, err := c.Client.CoordinationV1().Leases("kube-system").Get(t.Context(), "kube-scheduler", metav1.GetOptions{})
	if err != nil || l.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.Spec.HolderIdentity
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	if err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, 30*time.Second, true, func(context.Context) (bool, error) { return ok(), nil }); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// TestTheOtherGoesOn: of two schedulers one works; when it ends in the middle of
// its bindings, the other places the rest, and no node gets more than it has.
func TestTheOtherGoesOn(t *testing.T) {
	c := testcluster.Start(t)
	list := func() []corev1.Pod {
		pods, err := c.Client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return pods.Items
	}
	bound := func() (n int) {
		for _, p := range list() {
			if p.Spec.NodeName != "" {
				n++
			}
		}
		return n
	}
	const nodes, pods = 10, 200
	for i := range nodes {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%d", i)}, Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("4Gi"), corev1.ResourcePods: resource.MustParse("110")}}}
		made, err := c.Client.CoreV1().Nodes().Create(t.Context(), n, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		made.Spec.Taints = nil
		if made, err = c.Client.CoreV1().Nodes().Update(t.Context(), made, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		made.Status = n.Status
		if _, err = c.Client.CoreV1().Nodes().UpdateStatus(t.Context(), made, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range pods {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p%03d", i)}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i",
			Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")}}}}}}
		if _, err := c.Client.CoreV1().Pods("default").Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	stop := start(t, c, "a", nil)
	await(t, "the first leads", func() bool { return holder(t, c) == "a" })
	start(t, c, "b", nil)
	await(t, "some pods are bound", func() bool { return bound() > 10 })
	stop()
	await(t, "the second leads", func() bool { return holder(t, c) == "b" })
	await(t, "all pods are bound", func() bool { return bound() == pods })
	v, err := scheduler.NewVerifier()
	if err != nil {
		t.Fatal(err)
	}
	all, err := c.Client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range all.Items {
		v.SetNode(&all.Items[i])
	}
	for _, p := range list() {
		if verdict := v.Bind(&p, p.Spec.NodeName); !verdict.OK() {
			t.Errorf("%s on %s: %v", p.Name, p.Spec.NodeName, verdict.Reasons)
		}
	}
}

// TestPortIsGuarded: health is for everybody, metrics for who may read them.
func TestPortIsGuarded(t *testing.T) {
	c := testcluster.Start(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	start(t, c, "a", l)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, Timeout: 10 * time.Second}
	get := func(path string) (int, string) {
		resp, err := client.Get("https://" + l.Addr().String() + path)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	await(t, "ready", func() bool { code, _ := get("/readyz"); return code == http.StatusOK })
	for path, want := range map[string]int{
		"/healthz": 200, "/livez": 200, "/metrics": 403, "/apis/explain.coracle.dev/v1/namespaces/default/podplacements/p": 403,
	} {
		if code, body := get(path); code != want {
			t.Errorf("%s: %d %s, want %d", path, code, strings.TrimSpace(body), want)
		}
	}
}
