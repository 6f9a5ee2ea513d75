package testcluster_test

import (
	"context"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"coracle/pkg/testcluster"
)

func eventually(t *testing.T, what string, ok func(ctx context.Context) (bool, error)) {
	t.Helper()
	if err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, 30*time.Second, true, ok); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func web(replicas int32, image string) *appsv1.Deployment {
	labels := map[string]string{"app": "web"}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Labels: labels},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: image,
					Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}}},
			},
		},
	}
}

// TestDeploymentLife follows a Deployment through the whole control plane: its
// pods are bound to simulated nodes, run, become endpoints, roll to another
// image and are collected when it is deleted.
func TestDeploymentLife(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithRoles())
	c.AddNode(t, 1)
	c.AddNode(t, 2)
	ctx := t.Context()
	deployments := c.Client.AppsV1().Deployments("default")
	if _, err := deployments.Create(ctx, web(4, "fake/web:1"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Client.CoreV1().Services("default").Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	available := func(image string) func(context.Context) (bool, error) {
		return func(ctx context.Context) (bool, error) {
			d, err := deployments.Get(ctx, "web", metav1.GetOptions{})
			if err != nil {
				return false, err
			}
			if d.Status.AvailableReplicas != 4 || d.Status.UpdatedReplicas != 4 || d.Status.Replicas != 4 || d.Status.ObservedGeneration != d.Generation {
				return false, nil
			}
			pods, err := c.Client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{LabelSelector: "app=web"})
			if err != nil {
				return false, err
			}
			running := 0 // on whichever node: one may have become ready later
			for i := range pods.Items {
				p := &pods.Items[i]
				if p.DeletionTimestamp == nil && p.Status.Phase == corev1.PodRunning && p.Spec.Containers[0].Image == image && p.Status.PodIP != "" {
					running++
				}
			}
			return running == 4, nil
		}
	}
	eventually(t, "four pods of version 1 run", available("fake/web:1"))
	eventually(t, "the Service has four ready endpoints", func(ctx context.Context) (bool, error) {
		slices, err := c.Client.DiscoveryV1().EndpointSlices("default").List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=web"})
		if err != nil {
			return false, err
		}
		ready := 0
		for _, s := range slices.Items {
			for _, e := range s.Endpoints {
				if e.Conditions.Ready != nil && *e.Conditions.Ready {
					ready++
				}
			}
		}
		return ready == 4, nil
	})
	patch := []byte(`{"spec":{"template":{"spec":{"terminationGracePeriodSeconds":0,"containers":[{"name":"c","image":"fake/web:2"}]}}}}`)
	if _, err := deployments.Patch(ctx, "web", "application/strategic-merge-patch+json", patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "version 2 has replaced version 1", available("fake/web:2"))
	policy := metav1.DeletePropagationForeground
	if err := deployments.Delete(ctx, "web", metav1.DeleteOptions{PropagationPolicy: &policy}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the Deployment, its ReplicaSets and pods are gone", func(ctx context.Context) (bool, error) {
		pods, err := c.Client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		sets, err := c.Client.AppsV1().ReplicaSets("default").List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		_, err = deployments.Get(ctx, "web", metav1.GetOptions{})
		return len(pods.Items) == 0 && len(sets.Items) == 0 && apierrors.IsNotFound(err), nil
	})
}
