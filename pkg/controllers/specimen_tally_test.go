package controllers_test

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/controllers/podset"
	"coracle/pkg/reconcile"
)

const tallyFinalizer = "example.org/count"

// countThree makes three pods that end, of which each must count once and go.
func countThree(c *cluster) {
	if _, err := c.Client.CoreV1().ConfigMaps("default").Create(c.t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "tally"}}, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
	for i := range 3 {
		pod := podLike(fmt.Sprintf("task-%d", i), "task")
		pod.Finalizers, pod.Spec.Containers[0].Image = []string{tallyFinalizer}, "task"
		if _, err := c.Client.CoreV1().Pods("default").Create(c.t.Context(), pod, metav1.CreateOptions{}); err != nil {
			c.t.Fatal(err)
		}
	}
	c.eventually("three are counted and gone", func() error {
		tally, err := c.Client.CoreV1().ConfigMaps("default").Get(c.t.Context(), "tally", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if n, left := len(strings.Fields(tally.Data["uids"])), c.podNames("task"); n != 3 || len(left) > 0 {
			return fmt.Errorf("%d are counted and %v are left", n, left)
		}
		return nil
	})
}

// tally counts the pods that ended and lets go of them.
type tally struct {
	env  reconcile.Env
	pods cache.SharedIndexInformer
	bug  bug
}

func newTally(env reconcile.Env, b bug) reconcile.Runner {
	y := &tally{env: env, bug: b, pods: env.Informers.Core().V1().Pods().Informer()}
	loop := env.Loop("tally", y.reconcile)
	reconcile.Watch(loop, y.pods, func(p *corev1.Pod) []reconcile.Key {
		if !slices.Contains(p.Finalizers, tallyFinalizer) {
			return nil
		}
		return []reconcile.Key{{Namespace: p.Namespace, Name: "tally"}}
	})
	return loop
}

func (y *tally) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	var ended []*corev1.Pod
	for _, obj := range y.pods.GetStore().List() {
		if p := obj.(*corev1.Pod); slices.Contains(p.Finalizers, tallyFinalizer) && podset.Finished(p) {
			ended = append(ended, p)
		}
	}
	steps := []func(context.Context, []*corev1.Pod) error{y.count, y.release}
	if y.bug == countsLast {
		slices.Reverse(steps)
	}
	for _, step := range steps {
		if err := step(ctx, ended); err != nil {
			return reconcile.Result{}, err
		}
	}
	return reconcile.Result{}, nil
}

// count adds to the set of those that ended.
func (y *tally) count(ctx context.Context, ended []*corev1.Pod) error {
	client := y.env.Client.CoreV1().ConfigMaps("default")
	have, err := client.Get(ctx, "tally", metav1.GetOptions{})
	if err != nil {
		return err
	}
	uids := strings.Fields(have.Data["uids"])
	n := len(uids)
	for _, p := range ended {
		if !slices.Contains(uids, string(p.UID)) {
			uids = append(uids, string(p.UID))
		}
	}
	if len(uids) == n {
		return nil
	}
	have.Data = map[string]string{"uids": strings.Join(uids, " ")}
	_, err = client.Update(ctx, have, metav1.UpdateOptions{})
	return err
}

// release deletes them; the finalizer goes last, so that a crash leaves what is
// found again.
func (y *tally) release(ctx context.Context, ended []*corev1.Pod) error {
	client := y.env.Client.CoreV1().Pods("default")
	for _, p := range ended {
		options := metav1.NewPreconditionDeleteOptions(string(p.UID))
		options.GracePeriodSeconds = new(int64)
		if err := client.Delete(ctx, p.Name, *options); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		patch := fmt.Appendf(nil, `{"metadata":{"uid":%q,"finalizers":null}}`, p.UID)
		if _, err := client.Patch(ctx, p.Name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}
