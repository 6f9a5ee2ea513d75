package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"coracle/hack/lab"
	"coracle/hack/report"
)

const (
	sameClients = "the same requests by as many clients, just before"
	deployer    = "system:serviceaccount:kube-system:deployment-controller"
	replicator  = "system:serviceaccount:kube-system:replicaset-controller"
	slicer      = "system:serviceaccount:kube-system:endpointslice-controller"
)

// deploymentOf is a Deployment; its pods wait for a scheduler of that name.
func deploymentOf(replicas int, scheduler string) *appsv1.Deployment {
	n, labels := int32(replicas), map[string]string{"app": "web"}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: appsv1.DeploymentSpec{Replicas: &n, Selector: &metav1.LabelSelector{MatchLabels: labels}}}
	d.Spec.Template.Labels = labels
	d.Spec.Template.Spec = corev1.PodSpec{SchedulerName: scheduler, Containers: []corev1.Container{{
		Name: "web", Image: "fake/web:1", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
	}}}
	return d
}

// deployment compares a Deployment's pods with pods created by clients.
func (b *bench) deployment(ctx context.Context) (err error) {
	c, err := b.start(ctx, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	n := b.scaled(10_000)
	for _, name := range []string{"raw", "deploy"} {
		if err := c.namespace(ctx, name); err != nil {
			return err
		}
	}
	d := deploymentOf(n, "nobody")
	begin := time.Now()
	err = lab.Each(ctx, n, clients, func(ctx context.Context, i int) error {
		p := &corev1.Pod{ObjectMeta: *d.Spec.Template.ObjectMeta.DeepCopy(), Spec: *d.Spec.Template.Spec.DeepCopy()}
		p.GenerateName = "web-5d59d67564-"
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "example.com/v1", Kind: "Thing", Name: "a", UID: "00000000-0000-0000-0000-000000000000"}}
		_, err := c.Admin.CoreV1().Pods("raw").Create(ctx, p, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("create pods: %w", err)
	}
	raw := float64(n) / time.Since(begin).Seconds()
	begin = time.Now()
	if _, err := c.Admin.AppsV1().Deployments("deploy").Create(ctx, d, metav1.CreateOptions{}); err != nil {
		return err
	}
	err = lab.Until(ctx, "all pods of the Deployment are there", limit, look, func(ctx context.Context) (bool, error) {
		there, err := c.countPods(ctx, "deploy")
		return there >= n, err
	})
	rate := float64(n) / time.Since(begin).Seconds()
	b.r.Add(report.Row{Part: fmt.Sprintf("A Deployment of %d replicas, not placed", n), Name: "pods created per second", Unit: "/s", Value: rate,
		Reference: report.Ptr(raw), Source: sameClients, Goal: report.Ptr(0.8 * raw), AtLeast: true})
	return err
}

// rollout counts what a rolling update writes.
func (b *bench) rollout(ctx context.Context) (err error) {
	n := b.scaled(1000)
	c, err := b.start(ctx, max(3, n/20))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	_, err = c.Admin.CoreV1().Services("default").Create(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80}}}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	deployments := c.Admin.AppsV1().Deployments("default")
	begin := time.Now()
	if _, err := deployments.Create(ctx, deploymentOf(n, ""), metav1.CreateOptions{}); err != nil {
		return err
	}
	available := func(ctx context.Context) (bool, error) {
		d, err := deployments.Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		s, want := &d.Status, *d.Spec.Replicas
		return s.ObservedGeneration == d.Generation && s.UpdatedReplicas == want && s.AvailableReplicas == want && s.Replicas == want, nil
	}
	if err := lab.Until(ctx, "all replicas are available", limit, 10*look, available); err != nil {
		return err
	}
	part := fmt.Sprintf("Rolling update of %d replicas on %d simulated nodes", n, max(3, n/20))
	b.r.Add(report.Row{Part: part, Name: "created to all available, before", Unit: "s", Value: time.Since(begin).Seconds()})
	lab.Rest(ctx, 5*time.Second) // what is still to be written is not the update's
	log, err := newWrites(c.AuditFile())
	if err != nil {
		return err
	}
	begin = time.Now()
	patch := []byte(`{"spec":{"template":{"spec":{"containers":[{"name":"web","image":"fake/web:2"}]}}}}`)
	if _, err := deployments.Patch(ctx, "web", types.StrategicMergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return err
	}
	if err := lab.Until(ctx, "all replicas are updated", limit, 10*look, available); err != nil {
		return err
	}
	took := time.Since(begin)
	if err := lab.Until(ctx, "the old pods are gone", limit, 10*look, func(ctx context.Context) (bool, error) {
		there, err := c.countPods(ctx, "default")
		return there == n, err
	}); err != nil {
		return err
	}
	lab.Rest(ctx, 5*time.Second) // for what is written late, and for the log
	counts, err := log.count()
	if err != nil {
		return err
	}
	b.r.Add(report.Row{Part: part, Name: "the update takes", Unit: "s", Value: took.Seconds()})
	b.r.Add(rolloutRows(part, counts, n)...)
	return nil
}

// rolloutRows puts the controllers' writes for each pod beside their goals, and
// lists all others.
func rolloutRows(part string, counts map[write]int, pods int) []report.Row {
	per := func(match func(write) bool) float64 {
		sum := 0
		for w, n := range counts {
			if match(w) {
				sum += n
			}
		}
		return float64(sum) / float64(pods)
	}
	own := func(w write) bool { return w.user == deployer || w.user == replicator }
	pod := func(w write, verb string) bool { return own(w) && w.verb == verb && w.resource == "pods" }
	unit := "per pod"
	rows := []report.Row{
		{Part: part, Name: "ReplicaSet: creates of pods", Unit: unit, Value: per(func(w write) bool { return pod(w, "create") }), Goal: report.Ptr(1)},
		{Part: part, Name: "ReplicaSet: deletes of pods", Unit: unit, Value: per(func(w write) bool { return pod(w, "delete") }), Goal: report.Ptr(1)},
		{Part: part, Name: "Deployment and ReplicaSet: other writes", Unit: unit, Value: per(func(w write) bool {
			return own(w) && !pod(w, "create") && !pod(w, "delete") && w.resource != "events"
		}), Goal: report.Ptr(0.2)},
		{Part: part, Name: "EndpointSlice: writes", Unit: unit, Value: per(func(w write) bool { return w.user == slicer && w.resource != "events" }), Goal: report.Ptr(0.2)},
	}
	for _, w := range sorted(counts) {
		rows = append(rows, report.Row{Part: part, Name: "- " + w.String(), Unit: unit, Value: float64(counts[w]) / float64(pods)})
	}
	return rows
}

// collection compares the collector with clients that delete.
func (b *bench) collection(ctx context.Context) (err error) {
	c, err := b.start(ctx, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	n := b.scaled(100_000)
	for _, name := range []string{"raw", "owned"} {
		if err := c.namespace(ctx, name); err != nil {
			return err
		}
	}
	owner, err := c.Admin.CoreV1().ConfigMaps("owned").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "owner"}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	create := func(namespace string, n int, refs []metav1.OwnerReference) error {
		return lab.Each(ctx, n, clients, func(ctx context.Context, i int) error {
			m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("m-%d", i), OwnerReferences: refs}, Data: map[string]string{"k": "v"}}
			_, err := c.Admin.CoreV1().ConfigMaps(namespace).Create(ctx, m, metav1.CreateOptions{})
			return err
		})
	}
	bare := max(1, n/5)
	if err := errors.Join(create("owned", n, []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: owner.Name, UID: owner.UID}}), create("raw", bare, nil)); err != nil {
		return fmt.Errorf("create objects: %w", err)
	}
	lab.Rest(ctx, 2*time.Second) // the collector has seen them all
	begin := time.Now()
	err = lab.Each(ctx, bare, clients, func(ctx context.Context, i int) error {
		return c.Admin.CoreV1().ConfigMaps("raw").Delete(ctx, fmt.Sprintf("m-%d", i), metav1.DeleteOptions{})
	})
	if err != nil {
		return fmt.Errorf("delete objects: %w", err)
	}
	raw := float64(bare) / time.Since(begin).Seconds()
	before, err := c.countMaps(ctx, "owned")
	if err != nil {
		return err
	}
	begin = time.Now()
	background := metav1.DeletePropagationBackground
	if err := c.Admin.CoreV1().ConfigMaps("owned").Delete(ctx, "owner", metav1.DeleteOptions{PropagationPolicy: &background}); err != nil {
		return err
	}
	err = lab.Until(ctx, "all owned objects are gone", limit, look, func(ctx context.Context) (bool, error) {
		left, err := c.countMaps(ctx, "owned")
		return left <= before-n-1, err
	})
	rate := float64(n) / time.Since(begin).Seconds()
	b.r.Add(report.Row{Part: fmt.Sprintf("%d objects of one owner", n), Name: "collected per second", Unit: "/s", Value: rate,
		Reference: report.Ptr(raw), Source: sameClients, Goal: report.Ptr(0.8 * raw), AtLeast: true})
	return err
}
