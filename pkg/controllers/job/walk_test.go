package job

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// world is a job and its pods as a server would hold them.
type world struct {
	t     *testing.T
	rnd   *rand.Rand
	now   time.Time
	job   *batchv1.Job
	pods  map[types.UID]*corev1.Pod
	made  int
	known *failures
	// good and bad are the pods that ended, each once, as they ended first,
	// without those that the job itself gave up.
	good, bad map[types.UID]bool
}

func newWorld(t *testing.T, rnd *rand.Rand, job *batchv1.Job) *world {
	return &world{t: t, rnd: rnd, now: noon, job: job, pods: map[types.UID]*corev1.Pod{},
		good: map[types.UID]bool{}, bad: map[types.UID]bool{}}
}

func (w *world) list() []*corev1.Pod {
	var out []*corev1.Pod
	for i := range w.made {
		if pod := w.pods[types.UID(fmt.Sprint(i))]; pod != nil {
			out = append(out, pod.DeepCopy())
		}
	}
	return out
}

// steps are the writes that carry out p, in order.
func (w *world) steps(p plan) []func() {
	var steps []func()
	for _, pod := range p.remove {
		if p.forget {
			steps = append(steps, func() { w.pods[pod.UID].Finalizers = nil })
		}
		steps = append(steps, func() {
			if tracked(w.pods[pod.UID]) {
				w.pods[pod.UID].DeletionTimestamp = &metav1.Time{Time: w.now}
				w.bad[pod.UID] = true
				return
			}
			delete(w.pods, pod.UID)
		})
	}
	for _, pod := range p.create {
		steps = append(steps, func() {
			pod.UID = types.UID(fmt.Sprint(w.made))
			pod.Name = string(pod.UID)
			pod.CreationTimestamp = metav1.NewTime(w.now)
			pod.Status.Phase = corev1.PodRunning
			w.made++
			w.pods[pod.UID] = pod
		})
	}
	steps = append(steps, func() { w.job.Status, w.known = *p.status.DeepCopy(), &p.failures })
	for _, pod := range p.release {
		steps = append(steps, func() {
			if pod = w.pods[pod.UID]; pod != nil {
				pod.Finalizers = nil
				if pod.DeletionTimestamp != nil {
					delete(w.pods, pod.UID)
				}
			}
		})
	}
	return append(steps, func() {
		held := map[types.UID]bool{}
		for uid, pod := range w.pods {
			held[uid] = tracked(pod)
		}
		settle(&w.job.Status, held)
		if !p.more {
			finish(w.job, &w.job.Status, p.verdict, w.now)
		}
	})
}

// reconcile carries out a plan up to a random write when it crashes.
func (w *world) reconcile(crash bool) {
	p := compute(observed{job: w.job.DeepCopy(), pods: w.list(), failures: w.known}, w.now)
	if len(p.create) > 0 && len(p.remove) > 0 {
		w.t.Fatalf("creates %d and removes %d at once", len(p.create), len(p.remove))
	}
	steps := w.steps(p)
	if crash {
		steps = steps[:w.rnd.IntN(len(steps))]
		w.known = nil
	}
	for _, step := range steps {
		step()
		w.check()
	}
}

// check holds after every single write.
func (w *world) check() {
	w.t.Helper()
	taken, active := map[int]int{}, 0
	for _, pod := range w.pods {
		if pod.DeletionTimestamp == nil && pod.Status.Phase == corev1.PodRunning {
			active++
			taken[indexOf(pod)]++
		}
	}
	if active > int(*w.job.Spec.Parallelism) {
		w.t.Fatalf("%d pods are active, %d are allowed", active, *w.job.Spec.Parallelism)
	}
	for i, n := range taken {
		if i != noIndex && n > 1 {
			w.t.Fatalf("index %d is active %d times", i, n)
		}
	}
	s := &w.job.Status
	if int(s.Failed) > len(w.bad) || !isIndexed(w.job) && int(s.Succeeded) > len(w.good) {
		w.t.Fatalf("counted %d and %d, there were %d and %d", s.Succeeded, s.Failed, len(w.good), len(w.bad))
	}
}

// end ends a random running pod. One that was deleted counts as it ends, unless
// the status has noted it before.
func (w *world) end() {
	for _, i := range w.rnd.Perm(w.made) {
		pod := w.pods[types.UID(fmt.Sprint(i))]
		if pod == nil || pod.Status.Phase != corev1.PodRunning {
			continue
		}
		pod.Status.Phase = corev1.PodSucceeded
		code := int32(0)
		if w.rnd.IntN(2) == 0 {
			pod.Status.Phase = corev1.PodFailed
			code = 1 + w.rnd.Int32N(2)
		}
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{
			Terminated: &corev1.ContainerStateTerminated{ExitCode: code, FinishedAt: metav1.NewTime(w.now)},
		}}}
		if !tracked(pod) || slices.Contains(withUncounted(w.job).Status.UncountedTerminatedPods.Failed, pod.UID) {
			return // counted, or given up
		}
		delete(w.bad, pod.UID)
		switch {
		case code == 0:
			w.good[pod.UID] = true
		case judge(w.job.Spec.PodFailurePolicy, pod).counts():
			w.bad[pod.UID] = true
		}
		return
	}
}

// TestRandomLives walks jobs through random ends of pods and crashes between
// any two writes: every pod counts once, there are never too many, and the job
// ends.
func TestRandomLives(t *testing.T) {
	kinds := map[string]func(*batchv1.Job){
		"plain":     func(*batchv1.Job) {},
		"indexed":   indexed,
		"per index": perIndex(1),
		"policy": func(j *batchv1.Job) {
			policy(onExit(batchv1.PodFailurePolicyActionIgnore, 2))(j)
		},
	}
	for name, change := range kinds {
		t.Run(name, func(t *testing.T) {
			ends := map[batchv1.JobConditionType]int{}
			for seed := range uint64(400) {
				rnd := rand.New(rand.NewPCG(seed, 7))
				w := newWorld(t, rnd, newJob(change, sized(1+rnd.Int32N(4), 1+rnd.Int32N(6))))
				w.job.Status = batchv1.JobStatus{}
				if !isIndexed(w.job) || w.job.Spec.BackoffLimitPerIndex == nil {
					w.job.Spec.BackoffLimit = new(rnd.Int32N(8))
				}
				for step := 0; !finished(w.job); step++ {
					if step == 5000 {
						t.Fatalf("seed %d: it does not end: %+v", seed, w.job.Status)
					}
					w.now = w.now.Add(time.Duration(rnd.IntN(60)) * time.Second)
					if rnd.IntN(2) == 0 {
						w.end()
					}
					if step < 4000 && rnd.IntN(10) == 0 {
						w.job.Spec.Suspend = new(!isSuspended(w.job))
					} else if step > 4000 {
						w.job.Spec.Suspend = new(false)
					}
					w.reconcile(rnd.IntN(3) == 0)
				}
				ends[w.verify(seed)]++
			}
			if len(ends) != 2 {
				t.Errorf("all jobs ended the same way: %v", ends)
			}
		})
	}
}

// verify compares the counters of the finished job with what happened.
func (w *world) verify(seed uint64) batchv1.JobConditionType {
	w.t.Helper()
	s := &w.job.Status
	if s.Active != 0 || len(s.UncountedTerminatedPods.Succeeded)+len(s.UncountedTerminatedPods.Failed) > 0 {
		w.t.Fatalf("seed %d: finished with %+v", seed, s)
	}
	for _, pod := range w.pods {
		if tracked(pod) {
			w.t.Fatalf("seed %d: pod %s kept its finalizer", seed, pod.Name)
		}
	}
	succeeded := len(w.good)
	if isIndexed(w.job) {
		succeeded = parseIndexes(s.CompletedIndexes, int(*w.job.Spec.Completions)).count()
	}
	if int(s.Succeeded) != succeeded || int(s.Failed) != len(w.bad) {
		w.t.Fatalf("seed %d: counted %d and %d, there were %d and %d", seed, s.Succeeded, s.Failed, succeeded, len(w.bad))
	}
	failed := condition(s, batchv1.JobFailed) != nil
	switch {
	case !failed && s.Succeeded < *w.job.Spec.Completions:
		w.t.Fatalf("seed %d: complete with %+v", seed, s)
	case failed && s.Failed <= *w.job.Spec.BackoffLimit && w.job.Spec.BackoffLimitPerIndex == nil:
		w.t.Fatalf("seed %d: failed with %+v", seed, s)
	}
	if failed {
		return batchv1.JobFailed
	}
	return batchv1.JobComplete
}
