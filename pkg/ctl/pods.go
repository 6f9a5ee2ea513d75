package ctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/resource"
)

// defaultContainer is the annotation that names the container that is meant
// when none is named.
const defaultContainer = "kubectl.kubernetes.io/default-container"

// target is what a command for pods was pointed at.
type target struct {
	// info is the object named: a pod, or something that selects pods.
	info *resource.Info
	pods []corev1.Pod
}

// podsOf finds the pods of NAME, pod/NAME, deploy/NAME, svc/NAME and all else
// that has a selector, the readiest pod first.
func (t *tool) podsOf(ctx context.Context, arg string) (*target, error) {
	b, err := t.builder(false)
	if err != nil {
		return nil, err
	}
	args := []string{arg}
	if !strings.Contains(arg, "/") {
		args = []string{"pods", arg}
	}
	infos, err := b.ResourceTypeOrNameArgs(false, args...).SingleResourceType().Flatten().Latest().Do().Infos()
	if err != nil {
		return nil, err
	}
	if len(infos) != 1 {
		return nil, usagef("%s names %d objects, expected one", arg, len(infos))
	}
	tg := &target{info: infos[0]}
	obj, err := typed(infos[0].Object)
	if pod, ok := obj.(*corev1.Pod); ok && err == nil {
		tg.pods = []corev1.Pod{*pod}
		return tg, nil
	}
	selector, err := selectorOf(infos[0].Object)
	if err != nil {
		return nil, fmt.Errorf("%s has no pods: %w", objectName(infos[0]), err)
	}
	tg.pods, err = t.listPods(ctx, infos[0].Namespace, selector.String())
	if err != nil {
		return nil, err
	}
	if len(tg.pods) == 0 {
		return nil, fmt.Errorf("%s has no pods now: none has the labels %s", objectName(infos[0]), selector)
	}
	return tg, nil
}

// listPods lists the pods that a selector matches, the readiest first.
func (t *tool) listPods(ctx context.Context, ns, selector string) ([]corev1.Pod, error) {
	client, err := t.client()
	if err != nil {
		return nil, err
	}
	list, err := client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(list.Items, func(a, b corev1.Pod) int {
		return cmp.Or(-cmp.Compare(readiness(&a), readiness(&b)), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	return list.Items, nil
}

// readiness orders pods by how much can be done with them.
func readiness(p *corev1.Pod) int {
	switch {
	case p.DeletionTimestamp != nil:
		return 0
	case podReady(p):
		return 4
	case p.Status.Phase == corev1.PodRunning:
		return 3
	case p.Spec.NodeName != "":
		return 2
	}
	return 1
}

func podReady(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// selectorOf reads spec.selector, which is a map in a Service and a selector
// in workloads.
func selectorOf(obj runtime.Object) (labels.Selector, error) {
	u, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return nil, fmt.Errorf("the server answered with a %T", obj)
	}
	raw, found, err := unstructured.NestedMap(u.Object, "spec", "selector")
	if err != nil || !found || len(raw) == 0 {
		return nil, errors.New("it has no spec.selector")
	}
	if _, isMap := raw["matchLabels"]; !isMap {
		if _, isExpr := raw["matchExpressions"]; !isExpr {
			set, _, err := unstructured.NestedStringMap(u.Object, "spec", "selector")
			return labels.SelectorFromSet(set), err
		}
	}
	var s metav1.LabelSelector
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(raw, &s); err != nil {
		return nil, err
	}
	return metav1.LabelSelectorAsSelector(&s)
}

// containerOf returns the container that is meant by name, or by default, and
// says so when there is a choice.
func (t *tool) containerOf(pod *corev1.Pod, name string, quiet bool) (string, error) {
	var all []string
	for _, c := range pod.Spec.Containers {
		all = append(all, c.Name)
	}
	running := len(all)
	for _, c := range pod.Spec.InitContainers {
		all = append(all, c.Name)
	}
	for _, c := range pod.Spec.EphemeralContainers {
		all = append(all, c.Name)
	}
	if name != "" {
		if !slices.Contains(all, name) {
			return "", fmt.Errorf("pod %s has no container %s; it has: %s", pod.Name, name, strings.Join(all, ", "))
		}
		return name, nil
	}
	if chosen := pod.Annotations[defaultContainer]; slices.Contains(all, chosen) {
		return chosen, nil
	}
	if running == 0 {
		return "", fmt.Errorf("pod %s has no containers", pod.Name)
	}
	if len(all) > 1 && !quiet {
		fmt.Fprintf(t.Err, "Defaulted container %q out of: %s\n", all[0], strings.Join(all, ", "))
	}
	return all[0], nil
}

// awaitPod waits until ready says that the pod is as wanted, and returns it.
// It stops early for a pod that will not get there.
func (t *tool) awaitPod(ctx context.Context, pod *corev1.Pod, limit time.Duration, ready func(*corev1.Pod) (bool, error)) (*corev1.Pod, error) {
	ctx, cancel := limited(ctx, limit)
	defer cancel()
	b, err := t.builder(false)
	if err != nil {
		return nil, err
	}
	infos, err := b.NamespaceParam(pod.Namespace).ResourceTypeOrNameArgs(false, "pods", pod.Name).Do().Infos()
	if err != nil {
		return nil, err
	}
	var last *corev1.Pod
	err = t.awaitObject(ctx, infos[0], func(obj metav1.Object) (bool, error) {
		if obj == nil {
			return false, fmt.Errorf("pod %s was deleted meanwhile", pod.Name)
		}
		o, err := typed(obj.(runtime.Object))
		if err != nil {
			return false, err
		}
		last = o.(*corev1.Pod)
		return ready(last)
	})
	if errors.Is(err, errWaited) && last != nil {
		return last, fmt.Errorf("pod %s: %w: %s (\"ctl describe pod %[1]s\" shows why)", pod.Name, err, podTrouble(last))
	}
	return last, err
}

// podTrouble says in a few words why a pod does not run.
func podTrouble(p *corev1.Pod) string {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return "no node: " + c.Message
		}
	}
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if w := s.State.Waiting; w != nil && w.Reason != "" {
			return strings.TrimSuffix(fmt.Sprintf("container %s is waiting: %s: %s", s.Name, w.Reason, w.Message), ": ")
		}
	}
	return "it is " + string(p.Status.Phase)
}
