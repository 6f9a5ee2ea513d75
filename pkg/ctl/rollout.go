package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/resource"
)

// restartedAt is the annotation whose change makes all pods anew.
const restartedAt = "kubectl.kubernetes.io/restartedAt"

func (t *tool) rollout() *cobra.Command {
	cmd := &cobra.Command{Use: "rollout", Short: "Watch, take back, pause and restart the rollout of a workload"}
	cmd.AddCommand(t.rolloutStatus(), t.rolloutHistory(), t.rolloutUndo(), t.rolloutRestart(),
		t.rolloutPause("pause", "Keep a Deployment from rolling changes out", "paused", true),
		t.rolloutPause("resume", "Roll changes of a paused Deployment out", "resumed", false))
	return cmd
}

func (t *tool) rolloutStatus() *cobra.Command {
	var follow bool
	var timeout time.Duration
	cmd := &cobra.Command{Use: "status TYPE/NAME", Short: "Wait until a rollout is complete, and say how far it is"}
	o := t.newChanging(cmd, true)
	cmd.Flags().BoolVarP(&follow, "watch", "w", true, "wait for the end")
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "how long to wait; 0 means without limit")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return o.visit(cmd.Context(), args, func(info *resource.Info) error {
			return o.rolloutStatus(cmd.Context(), info, follow, timeout)
		})
	}
	return cmd
}

func (o *changing) rolloutStatus(ctx context.Context, info *resource.Info, follow bool, timeout time.Duration) error {
	ctx, cancel := limited(ctx, timeout)
	defer cancel()
	last := ""
	err := o.awaitObject(ctx, info, func(obj metav1.Object) (bool, error) {
		if obj == nil {
			return false, fmt.Errorf("%s was deleted", objectName(info))
		}
		w, err := typed(obj.(runtime.Object))
		if err != nil {
			return false, err
		}
		text, done, err := progress(w)
		if err == nil && text != last {
			fmt.Fprintln(o.Out, text)
			last = text
		}
		return done || !follow, err
	})
	if errors.Is(err, errWaited) {
		return fmt.Errorf("the rollout of %s is not complete: %w", objectName(info), err)
	}
	return err
}

// progress says how far a rollout is. The error says why it will not end.
func progress(obj runtime.Object) (text string, done bool, err error) {
	switch w := obj.(type) {
	case *appsv1.Deployment:
		return deploymentProgress(w)
	case *appsv1.DaemonSet:
		s := w.Status
		switch {
		case w.Generation > s.ObservedGeneration:
			return "Waiting for the change to be noticed...", false, nil
		case s.UpdatedNumberScheduled < s.DesiredNumberScheduled:
			return fmt.Sprintf("Waiting for daemon set %q rollout to finish: %d out of %d new pods have been updated...", w.Name, s.UpdatedNumberScheduled, s.DesiredNumberScheduled), false, nil
		case s.NumberAvailable < s.DesiredNumberScheduled:
			return fmt.Sprintf("Waiting for daemon set %q rollout to finish: %d of %d updated pods are available...", w.Name, s.NumberAvailable, s.DesiredNumberScheduled), false, nil
		}
		return fmt.Sprintf("daemon set %q successfully rolled out", w.Name), true, nil
	case *appsv1.StatefulSet:
		s, want := w.Status, int32(1)
		if w.Spec.Replicas != nil {
			want = *w.Spec.Replicas
		}
		switch {
		case w.Generation > s.ObservedGeneration:
			return "Waiting for the change to be noticed...", false, nil
		case s.ReadyReplicas < want:
			return fmt.Sprintf("Waiting for %d pods to be ready...", want-s.ReadyReplicas), false, nil
		case partition(w) > 0 && s.UpdatedReplicas < want-partition(w):
			return fmt.Sprintf("Waiting for partitioned roll out to finish: %d out of %d new pods have been updated...", s.UpdatedReplicas, want-partition(w)), false, nil
		case partition(w) > 0:
			return fmt.Sprintf("partitioned roll out complete: %d new pods have been updated...", s.UpdatedReplicas), true, nil
		case s.UpdateRevision != s.CurrentRevision:
			return fmt.Sprintf("Waiting for statefulset rolling update to complete %d pods at revision %s...", s.UpdatedReplicas, s.UpdateRevision), false, nil
		}
		return fmt.Sprintf("statefulset rolling update complete %d pods at revision %s", s.CurrentReplicas, s.CurrentRevision), true, nil
	}
	return "", false, fmt.Errorf("a %s has no rollout: use a Deployment, StatefulSet or DaemonSet", obj.GetObjectKind().GroupVersionKind().Kind)
}

// partition is the first ordinal that a rolling update of w changes.
func partition(w *appsv1.StatefulSet) int32 {
	if u := w.Spec.UpdateStrategy.RollingUpdate; u != nil && u.Partition != nil {
		return *u.Partition
	}
	return 0
}

func deploymentProgress(d *appsv1.Deployment) (string, bool, error) {
	s, want := d.Status, int32(1)
	if d.Spec.Replicas != nil {
		want = *d.Spec.Replicas
	}
	if d.Generation > s.ObservedGeneration {
		return "Waiting for the change to be noticed...", false, nil
	}
	for _, c := range s.Conditions {
		if c.Type == appsv1.DeploymentProgressing && c.Reason == "ProgressDeadlineExceeded" {
			return "", false, fmt.Errorf("deployment %q exceeded its progress deadline: \"ctl describe deploy %[1]s\" and \"ctl get pods\" show why", d.Name)
		}
	}
	switch {
	case s.UpdatedReplicas < want:
		return fmt.Sprintf("Waiting for deployment %q rollout to finish: %d out of %d new replicas have been updated...", d.Name, s.UpdatedReplicas, want), false, nil
	case s.Replicas > s.UpdatedReplicas:
		return fmt.Sprintf("Waiting for deployment %q rollout to finish: %d old replicas are pending termination...", d.Name, s.Replicas-s.UpdatedReplicas), false, nil
	case s.AvailableReplicas < s.UpdatedReplicas:
		return fmt.Sprintf("Waiting for deployment %q rollout to finish: %d of %d updated replicas are available...", d.Name, s.AvailableReplicas, s.UpdatedReplicas), false, nil
	}
	return fmt.Sprintf("deployment %q successfully rolled out", d.Name), true, nil
}

func (t *tool) rolloutRestart() *cobra.Command {
	cmd := &cobra.Command{Use: "restart TYPE/NAME", Short: "Make all pods of a workload anew, as in a rollout"}
	o := t.newChanging(cmd, true)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		data, err := json.Marshal(map[string]any{"spec": map[string]any{"template": map[string]any{"metadata": map[string]any{
			"annotations": map[string]string{restartedAt: time.Now().Format(time.RFC3339)}}}}})
		if err != nil {
			return err
		}
		return o.visit(cmd.Context(), args, func(info *resource.Info) error {
			if nested(info.Object, "spec", "template") == nil {
				return fmt.Errorf("%s has no pod template, so there is nothing to restart", objectName(info))
			}
			if paused, _ := nested(info.Object, "spec", "paused").(bool); paused {
				return fmt.Errorf("%s is paused: resume it first with \"ctl rollout resume\"", objectName(info))
			}
			return o.patch(info, types.MergePatchType, data, "", "restarted")
		})
	}
	return cmd
}

func (t *tool) rolloutPause(verb, short, done string, paused bool) *cobra.Command {
	cmd := &cobra.Command{Use: verb + " deploy/NAME", Short: short}
	o := t.newChanging(cmd, true)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return o.visit(cmd.Context(), args, func(info *resource.Info) error {
			if info.Mapping.GroupVersionKind.Kind != "Deployment" {
				return fmt.Errorf("%s cannot be %s: only Deployments can", objectName(info), done)
			}
			if now, _ := nested(info.Object, "spec", "paused").(bool); now == paused {
				return fmt.Errorf("%s is %s already", objectName(info), done)
			}
			return o.patch(info, types.MergePatchType, fmt.Appendf(nil, `{"spec":{"paused":%t}}`, paused), "", done)
		})
	}
	return cmd
}
