package ctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/resource"
	"k8s.io/client-go/kubernetes"
)

func nodeReady(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

func (t *tool) cordon() *cobra.Command {
	return t.schedulable("cordon", "Keep new pods off nodes", "cordoned", true)
}

func (t *tool) uncordon() *cobra.Command {
	return t.schedulable("uncordon", "Let new pods onto nodes again", "uncordoned", false)
}

func (t *tool) schedulable(verb, short, done string, off bool) *cobra.Command {
	cmd := &cobra.Command{Use: verb + " NODE...", Short: short}
	o := t.newChanging(cmd, true)
	cmd.ValidArgsFunction = t.completeNames("nodes")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return o.cordonAll(cmd.Context(), args, done, off)
	}
	return cmd
}

func (o *changing) cordonAll(ctx context.Context, args []string, done string, off bool) error {
	data := fmt.Appendf(nil, `{"spec":{"unschedulable":%t}}`, off)
	if !off {
		data = []byte(`{"spec":{"unschedulable":null}}`)
	}
	return o.visit(ctx, append([]string{"nodes"}, args...), func(info *resource.Info) error {
		return o.patch(info, types.StrategicMergePatchType, data, "", done)
	})
}

// draining is one run of drain.
type draining struct {
	*changing
	ignoreDaemonSets bool
	deleteEmptyDir   bool
	force            bool
	grace            int
	timeout          time.Duration
}

func (t *tool) drain() *cobra.Command {
	o := &draining{}
	cmd := &cobra.Command{
		Use:   "drain NODE",
		Short: "Move all pods off a node, for maintenance",
		Long:  "Keep new pods off a node and evict those that are there. PodDisruptionBudgets are kept: drain waits for them.",
		Args:  between(1, 1, "one node"),
	}
	o.changing = t.newChanging(cmd, false)
	cmd.ValidArgsFunction = t.completeNames("nodes")
	f := cmd.Flags()
	f.BoolVar(&o.ignoreDaemonSets, "ignore-daemonsets", false, "leave the pods of DaemonSets, which would come back at once")
	f.BoolVar(&o.deleteEmptyDir, "delete-emptydir-data", false, "evict pods with emptyDir volumes too; what is in these is lost")
	f.BoolVar(&o.force, "force", false, "evict pods too that no controller makes again")
	f.IntVar(&o.grace, "grace-period", -1, "seconds that pods get to end; below 0 for their own")
	f.DurationVar(&o.timeout, "timeout", 0, "how long to try; 0 means without limit")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) }
	return cmd
}

func (o *draining) run(ctx context.Context, node string) error {
	ctx, cancel := limited(ctx, o.timeout)
	defer cancel()
	if err := o.cordonAll(ctx, []string{node}, "cordoned", true); err != nil {
		return err
	}
	client, err := o.client()
	if err != nil {
		return err
	}
	list, err := client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + node})
	if err != nil {
		return err
	}
	var evict []corev1.Pod
	var refused []error
	for _, p := range list.Items {
		switch why := o.refusal(&p); {
		case why == nil:
			evict = append(evict, p)
		case !errors.Is(why, errLeave):
			refused = append(refused, why)
		}
	}
	if len(refused) > 0 {
		return errors.Join(refused...)
	}
	for i := range evict {
		if o.dry == dryNone {
			if err := o.evict(ctx, client, &evict[i]); err != nil {
				return err
			}
		}
		fmt.Fprintf(o.Out, "pod/%s evicted%s\n", evict[i].Name, o.dry.suffix())
	}
	fmt.Fprintf(o.Out, "node/%s drained%s\n", node, o.dry.suffix())
	return nil
}

// errLeave is why a pod is left where it is.
var errLeave = errors.New("left alone")

// refusal says why a pod is not evicted, or nil.
func (o *draining) refusal(p *corev1.Pod) error {
	if _, mirror := p.Annotations[corev1.MirrorPodAnnotationKey]; mirror || p.DeletionTimestamp != nil {
		return errLeave
	}
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return nil
	}
	owner := metav1.GetControllerOf(p)
	switch {
	case owner != nil && owner.Kind == "DaemonSet" && o.ignoreDaemonSets:
		return errLeave
	case owner != nil && owner.Kind == "DaemonSet":
		return fmt.Errorf("pod %s/%s is a DaemonSet's and would come back at once: leave such pods with --ignore-daemonsets", p.Namespace, p.Name)
	case owner == nil && !o.force:
		return fmt.Errorf("pod %s/%s has no controller that makes it again: evict it for good with --force", p.Namespace, p.Name)
	}
	if !o.deleteEmptyDir && slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.EmptyDir != nil }) {
		return fmt.Errorf("pod %s/%s has an emptyDir volume, which would be lost: accept that with --delete-emptydir-data", p.Namespace, p.Name)
	}
	return nil
}

// evict evicts a pod, trying again while a disruption budget forbids it, and
// waits until it is gone.
func (o *draining) evict(ctx context.Context, client kubernetes.Interface, p *corev1.Pod) error {
	eviction := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: p.Namespace},
		DeleteOptions: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &p.UID}}}
	if o.grace >= 0 {
		grace := int64(o.grace)
		eviction.DeleteOptions.GracePeriodSeconds = &grace
	}
	for {
		err := client.PolicyV1().Evictions(p.Namespace).Evict(ctx, eviction)
		if err == nil {
			break
		}
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil
		}
		if !apierrors.IsTooManyRequests(err) {
			return fmt.Errorf("evict pod %s/%s: %w", p.Namespace, p.Name, err)
		}
		fmt.Fprintf(o.Err, "pod/%s: %s; trying again in 5 s\n", p.Name, escape(err.Error()))
		select {
		case <-ctx.Done():
			return fmt.Errorf("evict pod %s/%s: %w", p.Namespace, p.Name, context.Cause(ctx))
		case <-time.After(5 * time.Second):
		}
	}
	return o.awaitGone(ctx, p)
}

// awaitGone waits until the pod is gone.
func (o *draining) awaitGone(ctx context.Context, p *corev1.Pod) error {
	b, err := o.builder(false)
	if err != nil {
		return err
	}
	infos, err := b.NamespaceParam(p.Namespace).ResourceTypeOrNameArgs(false, "pods", p.Name).Do().Infos()
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return o.awaitObject(ctx, infos[0], func(obj metav1.Object) (bool, error) {
		return obj == nil || obj.GetUID() != p.UID, nil
	})
}
