package controllers_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// simulator plays scheduler and node agents: nodes post their lease and
// status, pods are bound in turn to nodes that live, run and become ready, and
// end when they are deleted.
type simulator struct {
	client kubernetes.Interface
	names  []string
	stop   func() // ends the simulation; twice is harmless

	mu     sync.Mutex
	broken map[string]bool // images that never become ready; guarded by mu
	dead   map[string]bool // nodes that are switched off; guarded by mu
	hold   bool            // deleted pods do not end; guarded by mu
	// ends says of the running pods of an image with which exit code they end,
	// or that they do not end yet, with a negative one; guarded by mu.
	ends map[string]func(*corev1.Pod) int32
	turn int // of the next pod; the loop's own
}

func (s *simulator) change(f func(*simulator)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

func simulate(t *testing.T, client kubernetes.Interface, names ...string) *simulator {
	t.Helper()
	s := &simulator{client: client, names: names, broken: map[string]bool{}, dead: map[string]bool{}, ends: map[string]func(*corev1.Pod) int32{}}
	for _, name := range names {
		_, err := client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Create(t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			errs := []error{s.pods(ctx)}
			if i%20 == 0 {
				errs = append(errs, s.beat(ctx)) // whatever became of the pods
			}
			for _, err := range errs {
				if err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
					t.Errorf("simulator: %v", err)
				}
			}
			time.Sleep(500 * time.Millisecond)
		}
	}()
	s.stop = func() { cancel(); <-done }
	t.Cleanup(s.stop)
	return s
}

// beat is the heartbeat of the living nodes.
func (s *simulator) beat(ctx context.Context) error {
	var failed error
	for _, name := range s.names {
		if !s.isDead(name) {
			failed = worse(failed, s.beatOf(ctx, name))
		}
	}
	return failed
}

// worse is err, unless it is of a kind that the next turn mends.
func worse(before, err error) error {
	if before != nil && (err == nil || apierrors.IsConflict(err) || apierrors.IsNotFound(err)) {
		return before
	}
	return err
}

// beatOf renews the lease of a node, and posts Ready where it is not.
func (s *simulator) beatOf(ctx context.Context, name string) error {
	lease, err := s.client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	lease.Spec.RenewTime = &metav1.MicroTime{Time: time.Now()}
	if _, err := s.client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Update(ctx, lease, metav1.UpdateOptions{}); err != nil {
		return err
	}
	node, err := s.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	ready := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now()}
	if n := len(node.Status.Conditions); n > 0 && node.Status.Conditions[0].Status == corev1.ConditionTrue {
		return nil
	}
	node.Status.Conditions = []corev1.NodeCondition{ready}
	_, err = s.client.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{})
	return err
}

func (s *simulator) isDead(node string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dead[node]
}

// pods moves every pod one step on.
func (s *simulator) pods(ctx context.Context) error {
	pods, err := s.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	var failed error
	for i := range pods.Items {
		failed = worse(failed, s.step(ctx, &pods.Items[i]))
	}
	return failed
}

func (s *simulator) step(ctx context.Context, pod *corev1.Pod) error {
	s.mu.Lock()
	hold, broken, ends := s.hold, s.broken[pod.Spec.Containers[0].Image], s.ends[pod.Spec.Containers[0].Image]
	s.mu.Unlock()
	client := s.client.CoreV1().Pods(pod.Namespace)
	switch {
	case pod.Spec.NodeName == "" && len(pod.Spec.SchedulingGates) > 0:
		return nil // nobody may bind it
	case pod.Spec.NodeName == "":
		s.turn++
		node := s.names[s.turn%len(s.names)]
		if a := pod.Spec.Affinity; a != nil && a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
			node = a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0].MatchFields[0].Values[0]
		}
		if s.isDead(node) {
			return nil // the next turn finds another
		}
		return client.Bind(ctx, &corev1.Binding{
			ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace, UID: pod.UID},
			Target:     corev1.ObjectReference{Kind: "Node", Name: node},
		}, metav1.CreateOptions{})
	case s.isDead(pod.Spec.NodeName):
		return nil
	case pod.DeletionTimestamp != nil:
		if hold {
			return nil
		}
		if len(pod.Finalizers) > 0 && pod.Status.Phase == corev1.PodRunning {
			return s.end(ctx, pod, 137)
		}
		var zero int64
		return client.Delete(ctx, pod.Name, metav1.DeleteOptions{
			GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &pod.UID},
		})
	case pod.Status.Phase == "" || pod.Status.Phase == corev1.PodPending:
		s.turn++
		ip := fmt.Sprintf("10.244.%d.%d", s.turn/250, s.turn%250+1)
		started := metav1.Now()
		pod.Status.StartTime = &started
		pod.Status.Phase, pod.Status.PodIP, pod.Status.PodIPs = corev1.PodRunning, ip, []corev1.PodIP{{IP: ip}}
		ready := corev1.ConditionTrue
		if broken {
			ready = corev1.ConditionFalse
		}
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: ready, LastTransitionTime: metav1.Now()})
		_, err := client.UpdateStatus(ctx, pod, metav1.UpdateOptions{})
		return err
	case pod.Status.Phase == corev1.PodRunning && ends != nil:
		if code := ends(pod); code >= 0 {
			return s.end(ctx, pod, code)
		}
	}
	return nil
}

// end posts that all of pod has ended with the exit code.
func (s *simulator) end(ctx context.Context, pod *corev1.Pod, code int32) error {
	pod.Status.Phase = corev1.PodSucceeded
	if code != 0 {
		pod.Status.Phase = corev1.PodFailed
	}
	for i := range pod.Status.Conditions {
		if c := &pod.Status.Conditions[i]; c.Type == corev1.PodReady {
			c.Status, c.LastTransitionTime = corev1.ConditionFalse, metav1.Now()
		}
	}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name:  pod.Spec.Containers[0].Name,
		State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, FinishedAt: metav1.Now()}},
	}}
	_, err := s.client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	return err
}
