package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
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
	"coracle/pkg/pki"
	"coracle/pkg/scheduler"
	"coracle/pkg/scheduler/config"
	"coracle/pkg/testcluster"
)

// start runs a scheduler process's work; stop cuts it off and waits.
func start(t *testing.T, c *testcluster.Cluster, identity string, l net.Listener, change ...func(*component.Options)) (stop func()) {
	t.Helper()
	role := component.Role{
		Options: component.Options{
			Name: "kube-scheduler", BindAddress: "127.0.0.1", Open: []string{"/healthz", "/readyz", "/livez"},
			Election: component.Election{Enabled: true, Duration: 3 * time.Second, Deadline: 2 * time.Second, Period: 100 * time.Millisecond, Namespace: "kube-system", Name: "kube-scheduler"},
		},
		Client: kubernetes.NewForConfigOrDie(c.As(auth.UserScheduler)), Listener: l, Identity: identity,
	}
	for _, f := range change {
		f(&role.Options)
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

// TestPortIsGuarded: health is for everybody, metrics for who may read them, by
// the API server's word about whom a certificate names.
func TestPortIsGuarded(t *testing.T) {
	c := testcluster.Start(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	ours, err := pki.NewCA("ours", 0, now, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := pki.NewCA("theirs", 0, now, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	bundle := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(bundle, ours.CertPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, c, "a", l, func(o *component.Options) { o.ClientCAFile = bundle })
	get := func(ca *pki.CA, user, group, path string) (int, string) {
		config := &tls.Config{InsecureSkipVerify: true}
		if ca != nil {
			pair, err := ca.Issue(pki.Request{CommonName: user, Organization: []string{group}, ClientAuth: true}, now, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			own, err := tls.X509KeyPair(pair.CertPEM, pair.KeyPEM)
			if err != nil {
				t.Fatal(err)
			}
			config.Certificates = []tls.Certificate{own}
		}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}, Timeout: 10 * time.Second}
		resp, err := client.Get("https://" + l.Addr().String() + path)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	await(t, "ready", func() bool { code, _ := get(nil, "", "", "/readyz"); return code == http.StatusOK })
	const verdict = "/apis/explain.coracle.dev/v1/namespaces/default/podplacements/p"
	for _, x := range []struct {
		ca                *pki.CA
		user, group, path string
		want              int
	}{
		{nil, "", "", "/healthz", http.StatusOK},
		{nil, "", "", "/livez", http.StatusOK},
		{nil, "", "", "/metrics", http.StatusForbidden},
		{nil, "", "", verdict, http.StatusForbidden},
		{ours, "jane", "developers", "/metrics", http.StatusForbidden},
		{ours, "jane", "developers", verdict, http.StatusForbidden},
		{theirs, "root", auth.GroupMasters, "/metrics", http.StatusUnauthorized},
		{ours, "root", auth.GroupMasters, "/metrics", http.StatusOK},
		{ours, "root", auth.GroupMasters, verdict, http.StatusNotFound},
	} {
		code, body := get(x.ca, x.user, x.group, x.path)
		if code != x.want {
			t.Errorf("%s for %q: %d %s, want %d", x.path, x.user, code, strings.TrimSpace(body), x.want)
		}
	}

	// What was done is counted.
	if _, err := c.Client.CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`scheduler_schedule_attempts_total{profile="default-scheduler",result="unschedulable"} 1`,
		`scheduler_pending_pods{queue="unschedulable"} 1`, `leader_election_master_status{name="kube-scheduler"} 1`, `scheduler_cache_size{type="nodes"} 0`,
	} {
		await(t, want, func() bool {
			_, body := get(ours, "root", auth.GroupMasters, "/metrics")
			return strings.Contains(body, "\n"+want+"\n")
		})
	}
}
