package ctl

import (
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func describeDeployment(p *page, obj runtime.Object) error {
	d, ok := obj.(*appsv1.Deployment)
	if !ok {
		return fmt.Errorf("not a Deployment: %T", obj)
	}
	p.head(d)
	p.line("CreationTimestamp", d.CreationTimestamp.Format(time.RFC1123Z))
	p.line("Selector", metav1.FormatLabelSelector(d.Spec.Selector))
	want := int32(1)
	if d.Spec.Replicas != nil {
		want = *d.Spec.Replicas
	}
	s := d.Status
	p.line("Replicas", fmt.Sprintf("%d desired | %d updated | %d total | %d available | %d unavailable",
		want, s.UpdatedReplicas, s.Replicas, s.AvailableReplicas, s.UnavailableReplicas))
	p.line("StrategyType", d.Spec.Strategy.Type)
	p.line("MinReadySeconds", d.Spec.MinReadySeconds)
	if r := d.Spec.Strategy.RollingUpdate; r != nil && r.MaxUnavailable != nil && r.MaxSurge != nil {
		p.line("RollingUpdateStrategy", fmt.Sprintf("%s max unavailable, %s max surge", r.MaxUnavailable, r.MaxSurge))
	}
	if d.Spec.Paused {
		p.line("Paused", true)
	}
	p.template(&d.Spec.Template)
	var rows [][]string
	for _, c := range s.Conditions {
		rows = append(rows, []string{string(c.Type), string(c.Status), c.Reason})
	}
	if len(rows) > 0 {
		p.section("Conditions", func() { p.table([]string{"Type", "Status", "Reason"}, rows) })
	}
	return p.replicaSets(d)
}

// replicaSets writes the ReplicaSets of a Deployment that have pods.
func (p *page) replicaSets(d *appsv1.Deployment) error {
	list, err := p.client.AppsV1().ReplicaSets(d.Namespace).List(p.ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(d.Spec.Selector)})
	if err != nil {
		p.line("ReplicaSets", "<cannot be read: "+err.Error()+">")
		return nil
	}
	var current, old []string
	for i := range list.Items {
		rs := &list.Items[i]
		if !metav1.IsControlledBy(rs, d) {
			continue
		}
		want := int32(1)
		if rs.Spec.Replicas != nil {
			want = *rs.Spec.Replicas
		}
		text := fmt.Sprintf("%s (%d/%d replicas created)", rs.Name, rs.Status.Replicas, want)
		switch {
		case rs.Annotations[revisionAnnotation] == d.Annotations[revisionAnnotation]:
			current = append(current, text)
		case rs.Status.Replicas > 0 || want > 0:
			old = append(old, text)
		}
	}
	slices.Sort(old)
	p.line("OldReplicaSets", strings.Join(old, ", "))
	p.line("NewReplicaSet", strings.Join(current, ", "))
	return nil
}

// template writes a pod template.
func (p *page) template(t *corev1.PodTemplateSpec) {
	p.section("Pod Template", func() {
		p.set("Labels", t.Labels)
		if len(t.Annotations) > 0 {
			p.set("Annotations", t.Annotations)
		}
		if t.Spec.ServiceAccountName != "" {
			p.line("Service Account", t.Spec.ServiceAccountName)
		}
		p.containers("Init Containers", t.Spec.InitContainers, nil)
		p.containers("Containers", t.Spec.Containers, nil)
		p.volumes(t.Spec.Volumes)
		p.set("Node-Selectors", t.Spec.NodeSelector)
	})
}

func describeReplicaSet(p *page, obj runtime.Object) error {
	rs, ok := obj.(*appsv1.ReplicaSet)
	if !ok {
		return fmt.Errorf("not a ReplicaSet: %T", obj)
	}
	p.head(rs)
	p.owner(rs)
	p.line("Selector", metav1.FormatLabelSelector(rs.Spec.Selector))
	want := int32(1)
	if rs.Spec.Replicas != nil {
		want = *rs.Spec.Replicas
	}
	p.line("Replicas", fmt.Sprintf("%d current / %d desired", rs.Status.Replicas, want))
	list, err := p.client.CoreV1().Pods(rs.Namespace).List(p.ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(rs.Spec.Selector)})
	if err != nil {
		p.line("Pods Status", "<cannot be read: "+err.Error()+">")
	} else {
		count := map[corev1.PodPhase]int{}
		for i := range list.Items {
			if metav1.IsControlledBy(&list.Items[i], rs) {
				count[list.Items[i].Status.Phase]++
			}
		}
		p.line("Pods Status", fmt.Sprintf("%d Running / %d Waiting / %d Succeeded / %d Failed",
			count[corev1.PodRunning], count[corev1.PodPending], count[corev1.PodSucceeded], count[corev1.PodFailed]))
	}
	p.template(&rs.Spec.Template)
	return nil
}
