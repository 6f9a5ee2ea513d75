package controllers_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/controllers/podset"
	"coracle/pkg/reconcile"
)

// The bugs that are planted.
const (
	forgetsOwnCreation bug = "what it made counts only once it has written that down"
	createsAgain       bug = "it creates again before it has seen its creation"
	trustsStaleCache   bug = "it deletes by a count that does not show its deletes"
	boasts             bug = "it says that it is done before it is"
	restless           bug = "it writes though nothing changed"
	ownerByCache       bug = "an owner that its cache lacks is gone to it"
	deletesByName      bug = "it deletes whatever has the name"
	countsLast         bug = "it lets go of what it has not counted yet"
)

func specimens() []specimen {
	return []specimen{
		{
			make: newKeeper,
			script: script{name: "keeper", pods: 3, steps: []func(*cluster){
				func(c *cluster) { c.makeReplicaSet("web", 3); c.wantPods(map[string]int{"v1": 3}) },
				func(c *cluster) { c.scaleReplicaSet("web", 1); c.wantPods(map[string]int{"v1": 1}) },
			}},
			bugs: []planted{{forgetsOwnCreation, crashes}, {createsAgain, lateEchoes}, {trustsStaleCache, lateEchoes}, {boasts, crashes}, {restless, ""}},
		},
		{
			make: newReaper,
			script: script{name: "reaper", pods: 4, steps: []func(*cluster){
				func(c *cluster) {
					c.makeReplicaSet("web", 2)
					c.makeOwned("web", "web-0")
					c.makeOwned("web", "web-1")
					c.wantPods(map[string]int{"v1": 2})
				},
				func(c *cluster) {
					c.deleteReplicaSet("web")
					c.wantGone("pods", func() int { return len(c.podNames("web")) })
				},
				replaceOwned,
			}},
			bugs: []planted{{ownerByCache, lateOwners}, {deletesByName, lateEchoes}},
		},
		{
			make:   newTally,
			script: script{name: "tally", pods: 3, objects: func(c *cluster) { c.tasks(always(0)) }, steps: []func(*cluster){countThree}},
			bugs:   []planted{{countsLast, crashes}},
		},
	}
}

// keeper keeps as many pods as a ReplicaSet says, each under a name of its own.
type keeper struct {
	env        reconcile.Env
	loop       *reconcile.Loop
	sets, pods cache.SharedIndexInformer
	bug        bug
	turn       int // of the bug that deletes by a stale count
}

func newKeeper(env reconcile.Env, b bug) reconcile.Runner {
	k := &keeper{env: env, bug: b, sets: env.Informers.Apps().V1().ReplicaSets().Informer(), pods: env.Informers.Core().V1().Pods().Informer()}
	reconcile.AddControllerIndex(k.pods)
	k.loop = env.Loop("keeper", k.reconcile)
	reconcile.Watch(k.loop, k.sets, reconcile.Self[*appsv1.ReplicaSet])
	reconcile.Watch(k.loop, k.pods, reconcile.Controller[*corev1.Pod]("ReplicaSet"))
	return k.loop
}

func (k *keeper) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	rs := reconcile.Cached[*appsv1.ReplicaSet](k.sets, req.Key)
	if rs == nil || rs.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	var active []*corev1.Pod
	for _, p := range reconcile.Indexed[*corev1.Pod](k.pods, reconcile.ByController, string(rs.UID)) {
		if podset.Active(p) {
			active = append(active, p)
		}
	}
	slices.SortFunc(active, func(a, b *corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	const soon = 200 * time.Millisecond
	switch k.bug {
	case forgetsOwnCreation:
		return reconcile.Result{}, k.byRecord(ctx, rs)
	case createsAgain:
		return reconcile.Result{RequeueAfter: soon}, k.byCount(ctx, rs, active, nil)
	case trustsStaleCache:
		return reconcile.Result{RequeueAfter: soon}, k.byCount(ctx, rs, active, req)
	case boasts:
		done := fmt.Sprint(rs.Generation)
		if rs.Annotations["example.org/done"] == done {
			return reconcile.Result{}, nil
		}
		if err := k.annotate(ctx, rs, "done", done); err != nil {
			return reconcile.Result{}, err
		}
	case restless:
		if err := k.annotate(ctx, rs, "seen", k.env.Clock.Now().String()); err != nil {
			return reconcile.Result{}, err
		}
		return reconcile.Result{RequeueAfter: time.Second}, k.byName(ctx, req, rs, active)
	}
	return reconcile.Result{}, k.byName(ctx, req, rs, active)
}

// byName is what is right.
func (k *keeper) byName(ctx context.Context, req *reconcile.Request, rs *appsv1.ReplicaSet, active []*corev1.Pod) error {
	spare := map[string]*corev1.Pod{}
	for _, p := range active {
		spare[p.Name] = p
	}
	client := k.env.Client.CoreV1().Pods(rs.Namespace)
	for i := range *rs.Spec.Replicas {
		name := fmt.Sprintf("%s-%d", rs.Name, i)
		if spare[name] != nil {
			delete(spare, name)
			continue
		}
		pod, err := client.Create(ctx, ownedPod(rs, name), metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			pod, err = client.Get(ctx, name, metav1.GetOptions{})
			if err == nil && (!metav1.IsControlledBy(pod, rs) || pod.DeletionTimestamp != nil) {
				err = reconcile.ErrStale
			}
		}
		if err != nil {
			return err
		}
		req.Wrote(k.pods, pod)
	}
	if len(spare) == 0 {
		return nil
	}
	live, err := k.env.Client.AppsV1().ReplicaSets(rs.Namespace).Get(ctx, rs.Name, metav1.GetOptions{})
	if err != nil || live.UID != rs.UID || live.Generation != rs.Generation {
		return cmp.Or(err, reconcile.ErrStale)
	}
	for _, p := range spare {
		err := client.Delete(ctx, p.Name, *metav1.NewPreconditionDeleteOptions(string(p.UID)))
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return err
		}
		req.Deleted(k.pods, p)
	}
	return nil
}

// byRecord has the bug that a pod counts only once its name is written down.
func (k *keeper) byRecord(ctx context.Context, rs *appsv1.ReplicaSet) error {
	live, err := k.env.Client.AppsV1().ReplicaSets(rs.Namespace).Get(ctx, rs.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	names := strings.Fields(live.Annotations["example.org/made"])
	client := k.env.Client.CoreV1().Pods(rs.Namespace)
	for len(names) < int(*live.Spec.Replicas) {
		pod, err := client.Create(ctx, ownedPod(live, ""), metav1.CreateOptions{})
		if err != nil {
			return err
		}
		names = append(names, pod.Name)
		if err := k.annotate(ctx, live, "made", strings.Join(names, " ")); err != nil {
			return err
		}
	}
	for len(names) > int(*live.Spec.Replicas) {
		if err := client.Delete(ctx, names[0], metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		names = names[1:]
		if err := k.annotate(ctx, live, "made", strings.Join(names, " ")); err != nil {
			return err
		}
	}
	return nil
}

// byCount has the bugs of one who believes what the cache shows: of creations,
// unless they are reported to req, and of deletes.
func (k *keeper) byCount(ctx context.Context, rs *appsv1.ReplicaSet, active []*corev1.Pod, req *reconcile.Request) error {
	client := k.env.Client.CoreV1().Pods(rs.Namespace)
	for range int(*rs.Spec.Replicas) - len(active) {
		pod, err := client.Create(ctx, ownedPod(rs, ""), metav1.CreateOptions{})
		if err != nil {
			return err
		}
		if req != nil {
			req.Wrote(k.pods, pod)
		}
	}
	for i := range len(active) - int(*rs.Spec.Replicas) {
		victim := active[(k.turn+i)%len(active)]
		if err := client.Delete(ctx, victim.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	k.turn++
	return nil
}

func (k *keeper) annotate(ctx context.Context, rs *appsv1.ReplicaSet, key, value string) error {
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{"example.org/%s":%q}}}`, key, value)
	_, err := k.env.Client.AppsV1().ReplicaSets(rs.Namespace).Patch(ctx, rs.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// ownedPod is a pod of a set, with a name that the server makes up if none is
// given.
func ownedPod(rs *appsv1.ReplicaSet, name string) *corev1.Pod {
	pod := podLike(name, rs.Name)
	if name == "" {
		pod.GenerateName = rs.Name + "-"
	}
	pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(rs, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))}
	return pod
}

func (c *cluster) makeOwned(set, name string) {
	c.t.Helper()
	rs, err := c.Client.AppsV1().ReplicaSets("default").Get(c.t.Context(), set, metav1.GetOptions{})
	if err == nil {
		_, err = c.Client.CoreV1().Pods("default").Create(c.t.Context(), ownedPod(rs, name), metav1.CreateOptions{})
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) deleteReplicaSet(name string) {
	c.t.Helper()
	if err := c.Client.AppsV1().ReplicaSets("default").Delete(c.t.Context(), name, metav1.DeleteOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

// replaceOwned deletes a set and makes, before the echo of that has come, a pod
// of its pod's name that nobody owns, which must stay.
func replaceOwned(c *cluster) {
	c.makeReplicaSet("db", 1)
	c.makeOwned("db", "db-0")
	time.Sleep(5 * time.Second)
	c.deleteReplicaSet("db")
	time.Sleep(300 * time.Millisecond)
	pods := c.Client.CoreV1().Pods("default")
	if err := pods.Delete(c.t.Context(), "db-0", metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil && !apierrors.IsNotFound(err) {
		c.t.Fatal(err)
	}
	made, err := pods.Create(c.t.Context(), podLike("db-0", "db"), metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	time.Sleep(10 * time.Second)
	if now, err := pods.Get(c.t.Context(), "db-0", metav1.GetOptions{}); err != nil || now.UID != made.UID || now.DeletionTimestamp != nil {
		c.t.Errorf("a pod that nobody owns was deleted for one of its name: %v", err)
	}
}

// reaper deletes the pods of ReplicaSets that are gone.
type reaper struct {
	env        reconcile.Env
	sets, pods cache.SharedIndexInformer
	bug        bug
}

func newReaper(env reconcile.Env, b bug) reconcile.Runner {
	r := &reaper{env: env, bug: b, sets: env.Informers.Apps().V1().ReplicaSets().Informer(), pods: env.Informers.Core().V1().Pods().Informer()}
	reconcile.AddControllerIndex(r.pods)
	loop := env.Loop("reaper", r.reconcile)
	reconcile.Watch(loop, r.pods, reconcile.Self[*corev1.Pod])
	reconcile.Watch(loop, r.sets, func(rs *appsv1.ReplicaSet) []reconcile.Key {
		var keys []reconcile.Key
		for _, p := range reconcile.Indexed[*corev1.Pod](r.pods, reconcile.ByController, string(rs.UID)) {
			keys = append(keys, reconcile.KeyOf(p))
		}
		return keys
	})
	return loop
}

func (r *reaper) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	pod := reconcile.Cached[*corev1.Pod](r.pods, req.Key)
	if pod == nil || pod.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	ref := metav1.GetControllerOfNoCopy(pod)
	if ref == nil {
		return reconcile.Result{}, nil
	}
	rs := reconcile.Cached[*appsv1.ReplicaSet](r.sets, reconcile.Key{Namespace: pod.Namespace, Name: ref.Name})
	if rs != nil && rs.UID == ref.UID {
		return reconcile.Result{}, nil
	}
	if r.bug != ownerByCache {
		live, err := r.env.Client.AppsV1().ReplicaSets(pod.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return reconcile.Result{}, err
		}
		if err == nil && live.UID == ref.UID {
			// The cache may never see it come, nor go.
			return reconcile.Result{RequeueAfter: 5 * time.Second}, nil
		}
	}
	options := *metav1.NewPreconditionDeleteOptions(string(pod.UID))
	if r.bug == deletesByName {
		options = metav1.DeleteOptions{}
	}
	err := r.env.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, options)
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		err = nil // another of that name is none of its business
	}
	return reconcile.Result{}, err
}
