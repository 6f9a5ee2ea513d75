package controllers_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"coracle/pkg/controllers"
	"coracle/pkg/controllers/podset"
	"coracle/pkg/reconcile"
	"coracle/pkg/testcluster"
)

// cluster is a control plane with all controllers and a simulated node.
type cluster struct {
	*testcluster.Cluster
	t    *testing.T
	node *node
}

// scenario runs body against a cluster in a synctest bubble: time passes only
// when everything waits.
func scenario(t *testing.T, body func(t *testing.T, c *cluster), change ...func(*controllers.Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		tc := testcluster.Start(t)
		c := &cluster{Cluster: tc, t: t}
		as := func(name string) *rest.Config {
			return tc.As("system:serviceaccount:kube-system:"+name, "system:serviceaccounts", "system:serviceaccounts:kube-system")
		}
		cfg := controllers.Config{
			ClientFor:   func(name string) kubernetes.Interface { return kubernetes.NewForConfigOrDie(as(name)) },
			MetadataFor: func(name string) metadata.Interface { return metadata.NewForConfigOrDie(as(name)) },
			Informers:   reconcile.NewInformers(tc.Client),
			CABundle:    []byte("a certificate"),
			Log:         slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: logLevel()})),
		}
		for _, f := range change {
			f(&cfg)
		}
		ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		done := make(chan error, 1)
		go func() { done <- controllers.Run(ctx, cfg) }()
		c.node = startNode(t, tc.Client)
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("run the controllers: %v", err)
			}
		})
		body(t, c)
	})
}

// logLevel shows more with CONTROLLERS_LOG=debug.
func logLevel() slog.Level {
	var l slog.Level
	if l.UnmarshalText([]byte(os.Getenv("CONTROLLERS_LOG"))) != nil {
		l = slog.LevelWarn
	}
	return l
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(string(p))
	return len(p), nil
}

// eventually waits, in virtual time, until check returns nil.
func (c *cluster) eventually(what string, check func() error) {
	c.t.Helper()
	var err error
	for range 1200 {
		synctest.Wait()
		if err = check(); err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	c.t.Fatalf("%s: %v", what, err)
}

// node plays scheduler and kubelet: it binds pods, makes them run and be
// ready, and ends those that are deleted.
type node struct {
	client kubernetes.Interface
	// broken images never become ready.
	broken map[string]bool
	// hold keeps deleted pods from ending.
	hold  bool
	count int
}

const nodeName = "node-1"

func startNode(t *testing.T, client kubernetes.Interface) *node {
	n := &node{client: client, broken: map[string]bool{}}
	_, err := client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			n.tick(ctx, t)
			time.Sleep(500 * time.Millisecond)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return n
}

func (n *node) tick(ctx context.Context, t *testing.T) {
	pods, err := n.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		if ctx.Err() == nil {
			t.Errorf("node: %v", err)
		}
		return
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		switch {
		case pod.DeletionTimestamp != nil:
			if !n.hold {
				zero := int64(0)
				err = n.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
					GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &pod.UID},
				})
			}
		case pod.Spec.NodeName == "":
			err = n.client.CoreV1().Pods(pod.Namespace).Bind(ctx, &corev1.Binding{
				ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace, UID: pod.UID},
				Target:     corev1.ObjectReference{Kind: "Node", Name: nodeName},
			}, metav1.CreateOptions{})
		case pod.Spec.NodeName == nodeName && pod.Status.Phase != corev1.PodRunning && pod.Status.Phase != corev1.PodFailed:
			n.count++
			ip := fmt.Sprintf("10.244.%d.%d", n.count/250, n.count%250+1)
			pod.Status.Phase, pod.Status.PodIP, pod.Status.PodIPs = corev1.PodRunning, ip, []corev1.PodIP{{IP: ip}}
			ready := corev1.ConditionTrue
			if n.broken[pod.Spec.Containers[0].Image] {
				ready = corev1.ConditionFalse
			}
			pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: ready, LastTransitionTime: metav1.Now()})
			_, err = n.client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
		}
		if err != nil && ctx.Err() == nil {
			t.Logf("node: %v", err)
		}
	}
}

// readyPods returns the ready pods of a namespace by image.
func (c *cluster) readyPods(namespace string) map[string]int {
	pods, err := c.Client.CoreV1().Pods(namespace).List(c.t.Context(), metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	out := map[string]int{}
	for i := range pods.Items {
		if p := &pods.Items[i]; podset.Active(p) && podset.Ready(p) {
			out[p.Spec.Containers[0].Image]++
		}
	}
	return out
}
