package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/hack/lab"
	"coracle/hack/proc"
	"coracle/hack/report"
)

// measure fills the cluster, holds it and reports.
func (c *cluster) measure(ctx context.Context, r *report.Report) error {
	if err := c.prepare(ctx); err != nil {
		return err
	}
	empty, err := c.usage()
	if err != nil {
		return err
	}
	p := &probes{took: map[string]map[string][]float64{}, refused: map[string]int{}}
	p.enter("filling")
	probing, stop := context.WithCancel(ctx)
	probed := make(chan struct{})
	go func() { p.run(probing, c); close(probed) }()
	defer func() { stop(); <-probed }()
	begin := time.Now()
	running, err := c.fillUp(ctx)
	if err != nil {
		return err
	}
	took := time.Since(begin)
	filled, err := c.usage()
	if err != nil {
		return err
	}
	p.enter("holding")
	begin = time.Now()
	lab.Rest(ctx, c.hold)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	held := time.Since(begin)
	stop()
	<-probed
	full, err := c.usage()
	if err != nil {
		return err
	}
	notReady, err := c.notReady(ctx)
	if err != nil {
		return err
	}
	part := fmt.Sprintf("%d simulated nodes, %d pods", c.nodes, c.pods)
	r.Add(report.Row{Part: part, Name: "pods running", Value: float64(running), Goal: report.Ptr(float64(c.pods)), AtLeast: true},
		report.Row{Part: part, Name: "created to running, all", Unit: "s", Value: took.Seconds()},
		report.Row{Part: part, Name: "pods running per second", Unit: "/s", Value: float64(running) / took.Seconds()},
		report.Row{Part: part, Name: "nodes not ready at the end", Value: float64(notReady), Goal: report.Ptr(0)})
	for _, phase := range []string{"filling", "holding"} {
		p.rows(r, phase)
	}
	c.processRows(r, empty, filled, full, took, held)
	if p.err != nil {
		fmt.Fprintln(c.log, "the last probe that failed:", p.err)
	}
	return nil
}

// prepare makes what the probes look at.
func (c *cluster) prepare(ctx context.Context) error {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "probed"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "fake/web:1"}}}}
	err := lab.Until(ctx, "a pod can be made", startTimeout, 50*time.Millisecond, func(ctx context.Context) (bool, error) {
		_, err := c.client.CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{})
		return err == nil || apierrors.IsAlreadyExists(err), err
	})
	if err != nil {
		return err
	}
	_, err = c.client.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "patched"}}, metav1.CreateOptions{})
	return err
}

// fillUp creates the Deployments and returns how many replicas are ready when
// all are, or the time is up.
func (c *cluster) fillUp(ctx context.Context) (int, error) {
	for i, left := 0, c.pods; left > 0; i++ {
		d := deployment(fmt.Sprintf("web-%d", i), min(left, c.each))
		if _, err := c.client.AppsV1().Deployments("default").Create(ctx, d, metav1.CreateOptions{}); err != nil {
			return 0, fmt.Errorf("create Deployment %s: %w", d.Name, err)
		}
		left -= c.each
	}
	ready, said := 0, time.Now()
	err := lab.Until(ctx, "all pods run", c.fill, time.Second, func(ctx context.Context) (bool, error) {
		if err := errors.Join(c.apiserver.alive(), c.kubelet.alive()); err != nil {
			return false, err
		}
		list, err := c.client.AppsV1().Deployments("default").List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		ready = 0
		for i := range list.Items {
			ready += int(list.Items[i].Status.ReadyReplicas)
		}
		if time.Since(said) > 10*time.Second {
			said = time.Now()
			fmt.Fprintf(c.log, "%d of %d pods run\n", ready, c.pods)
		}
		return ready >= c.pods, nil
	})
	if dead := errors.Join(c.apiserver.alive(), c.kubelet.alive(), ctx.Err()); dead != nil {
		return ready, dead
	}
	if err != nil {
		fmt.Fprintln(c.log, err)
	}
	return ready, nil
}

func deployment(name string, replicas int) *appsv1.Deployment {
	n, labels := int32(replicas), map[string]string{"app": name}
	asks := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("100Mi")}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: appsv1.DeploymentSpec{Replicas: &n, Selector: &metav1.LabelSelector{MatchLabels: labels}}}
	d.Spec.Template.Labels = labels
	d.Spec.Template.Spec.Containers = []corev1.Container{{Name: "web", Image: "fake/web:1", Resources: corev1.ResourceRequirements{Requests: asks}}}
	return d
}

// notReady counts the nodes that are not.
func (c *cluster) notReady(ctx context.Context) (int, error) {
	n := 0
	options := metav1.ListOptions{Limit: 500}
	for {
		list, err := c.client.CoreV1().Nodes().List(ctx, options)
		if err != nil {
			return 0, err
		}
		for i := range list.Items {
			ready := false
			for _, cond := range list.Items[i].Status.Conditions {
				ready = ready || cond.Type == corev1.NodeReady && cond.Status == corev1.ConditionTrue
			}
			if !ready {
				n++
			}
		}
		if options.Continue = list.Continue; options.Continue == "" {
			return n, nil
		}
	}
}

// rows are the latencies of a phase.
func (p *probes) rows(r *report.Report, phase string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	part := "Latency of a client while " + phase
	for _, kind := range kinds {
		samples := p.took[phase][kind]
		r.Add(report.Row{Part: part, Name: kind + ", p50", Unit: "ms", Value: report.Median(samples)},
			report.Row{Part: part, Name: fmt.Sprintf("%s, p99 of %d", kind, len(samples)), Unit: "ms", Value: report.Quantile(samples, 0.99), Goal: report.Ptr(1000)})
	}
	r.Add(report.Row{Part: part, Name: "requests that failed", Value: float64(p.refused[phase]), Goal: report.Ptr(0)})
}

// usage is what both programs use now.
func (c *cluster) usage() (out [2]proc.Usage, err error) {
	for i, p := range []*program{c.apiserver, c.kubelet} {
		if out[i], err = proc.Of(p.cmd.Process.Pid); err != nil {
			return out, errors.Join(p.alive(), err)
		}
	}
	return out, nil
}

func (c *cluster) processRows(r *report.Report, empty, filled, full [2]proc.Usage, filling, holding time.Duration) {
	for i, name := range []string{"apiserver (scheduler, controllers, etcd)", "kubelet --simulated"} {
		r.Add(report.Row{Part: name, Name: "RSS, nodes without pods", Unit: "MB", Value: empty[i].RSS},
			report.Row{Part: name, Name: "RSS at the end", Unit: "MB", Value: full[i].RSS},
			report.Row{Part: name, Name: "- of it its own (RssAnon)", Unit: "MB", Value: full[i].Anon},
			report.Row{Part: name, Name: "- its own, for each pod", Unit: "KB", Value: (full[i].Anon - empty[i].Anon) * 1000 / float64(c.pods)},
			report.Row{Part: name, Name: "CPU while filling, of a core", Unit: "%", Value: 100 * (filled[i].CPU - empty[i].CPU) / filling.Seconds()},
			report.Row{Part: name, Name: "CPU while holding, of a core", Unit: "%", Value: 100 * (full[i].CPU - filled[i].CPU) / holding.Seconds()})
	}
}
