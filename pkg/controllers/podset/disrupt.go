package podset

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// Disruption is why a controller ends a pod, as users and the pod's owners read
// it in the pod's condition DisruptionTarget.
type Disruption struct {
	Reason, Message string
	// Failed makes the pod's phase Failed, for a node that cannot report any more.
	Failed bool
}

// Disrupt writes the condition. A pod that has finished keeps the status that it
// has. A pod of the name with another UID is left alone: that is a conflict.
func Disrupt(ctx context.Context, client kubernetes.Interface, pod *corev1.Pod, d Disruption, now time.Time) error {
	if Finished(pod) {
		return nil
	}
	status := map[string]any{"conditions": []corev1.PodCondition{{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: d.Reason, Message: d.Message,
		LastTransitionTime: metav1.Time{Time: now},
	}}}
	if d.Failed {
		status["phase"] = corev1.PodFailed
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": status})
	if err != nil {
		return fmt.Errorf("encode condition %s: %w", corev1.DisruptionTarget, err)
	}
	_, err = client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		return fmt.Errorf("mark pod %s/%s as a target of disruption: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}

// Evict tells why a pod goes, and deletes it with its grace. tell records the
// Event, also when the server refuses the rest. It is no error when the pod is gone.
func Evict(ctx context.Context, client kubernetes.Interface, pod *corev1.Pod, d Disruption, now time.Time, tell func()) error {
	err := Disrupt(ctx, client, pod, d, now)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if !apierrors.IsConflict(err) {
		tell()
	}
	if err != nil {
		return err
	}
	err = client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID}})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("evict pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}
