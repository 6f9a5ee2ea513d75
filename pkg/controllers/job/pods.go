package job

import (
	"fmt"
	"slices"
	"strconv"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"coracle/pkg/controllers/podset"
)

var kind = batchv1.SchemeGroupVersion.WithKind("Job")

// manage decides which pods come or go, never both at once.
func (v *view) manage(p *plan) {
	if v.suspended {
		p.remove, p.forget = v.active[:min(len(v.active), batchLimit)], true
		return
	}
	want := v.wanted()
	if surplus := v.surplus(len(v.active) - want); len(surplus) > 0 {
		p.remove, p.forget = surplus[:min(len(surplus), batchLimit)], true
		return
	}
	n := want - len(v.active)
	if v.patient {
		n -= v.terminating
	}
	if n = min(n, batchLimit); n <= 0 {
		return
	}
	if !v.perIndex {
		if wait := v.failures.wait(v.now); wait > 0 {
			p.wakeIn(wait)
			return
		}
	}
	if !v.indexed {
		for range n {
			p.create = append(p.create, v.newPod(noIndex))
		}
		return
	}
	v.createIndexes(p, n)
}

// wanted is how many pods should be active.
func (v *view) wanted() int {
	parallelism := int(*v.job.Spec.Parallelism)
	if v.completions >= 0 {
		return max(min(parallelism, v.completions-v.succeeded), 0)
	}
	if v.succeeded > 0 {
		// The first success means that the work is done: those that run may
		// come to their end, and no others start.
		return len(v.active)
	}
	return parallelism
}

// surplus returns n active pods, those that do no good first, and all of
// those.
func (v *view) surplus(n int) []*corev1.Pod {
	left := v.active
	var useless []*corev1.Pod
	if v.indexed {
		byIndex := map[int][]*corev1.Pod{}
		for _, pod := range v.active {
			byIndex[indexOf(pod)] = append(byIndex[indexOf(pod)], pod)
		}
		left = nil
		for _, pod := range v.active {
			i := indexOf(pod)
			same := byIndex[i]
			if same == nil {
				continue
			}
			delete(byIndex, i)
			keep := 1
			if !v.counts(pod) || v.done.has(i) || v.bad.has(i) {
				keep = 0
			}
			victims := podset.Victims(same, len(same)-keep, nil, v.now)
			useless = append(useless, victims...)
			for _, pod := range same {
				if !slices.Contains(victims, pod) {
					left = append(left, pod)
				}
			}
		}
	}
	return append(useless, podset.Victims(left, n-len(useless), nil, v.now)...)
}

// createIndexes adds pods for the first n indexes that need one and need not
// wait.
func (v *view) createIndexes(p *plan, n int) {
	taken := v.done.union(v.bad, indexesOfPods(v.active))
	if v.patient {
		taken = taken.union(indexesOfPods(slices.DeleteFunc(slices.Clone(v.pods), func(pod *corev1.Pod) bool {
			return pod.DeletionTimestamp == nil || podset.Finished(pod)
		})))
	}
	for i := range taken.missing(v.completions) {
		if len(p.create) == n {
			return
		}
		if last := v.held[i]; last != nil {
			f := failures{count: failuresOf(last).total() + 1, last: finishedAt(last)}
			if wait := f.wait(v.now); wait > 0 {
				p.wakeIn(wait)
				continue
			}
		}
		p.create = append(p.create, v.newPod(i))
	}
}

// indexFailures are the failures of an index before a pod of it.
type indexFailures struct{ counted, ignored int }

func (f indexFailures) total() int { return f.counted + f.ignored }

func failuresOf(pod *corev1.Pod) indexFailures {
	number := func(key string) int {
		n, err := strconv.Atoi(pod.Annotations[key])
		if err != nil || n < 0 {
			return 0
		}
		return n
	}
	return indexFailures{number(batchv1.JobIndexFailureCountAnnotation), number(batchv1.JobIndexIgnoredFailureCountAnnotation)}
}

// maxGenerateName is the length to which the server cuts a name before it
// appends to it.
const maxGenerateName = 58

// newPod makes the pod for index, or one without.
func (v *view) newPod(index int) *corev1.Pod {
	pod := podset.FromTemplate(&v.job.Spec.Template, v.job, kind)
	if !tracked(pod) {
		pod.Finalizers = append(pod.Finalizers, batchv1.JobTrackingFinalizer)
	}
	if index == noIndex {
		return pod
	}
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	if pod.Labels == nil {
		pod.Labels = map[string]string{}
	}
	text := strconv.Itoa(index)
	pod.Annotations[batchv1.JobCompletionIndexAnnotation] = text
	pod.Labels[batchv1.JobCompletionIndexAnnotation] = text
	pod.Spec.Hostname = fmt.Sprintf("%s-%d", v.job.Name, index)
	suffix := "-" + text + "-"
	pod.GenerateName = v.job.Name[:min(len(v.job.Name), maxGenerateName-len(suffix))] + suffix
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			tellIndex(&list[i])
		}
	}
	if v.perIndex {
		f := indexFailures{}
		if last := v.held[index]; last != nil {
			f = failuresOf(last)
			if judge(v.job.Spec.PodFailurePolicy, last).counts() {
				f.counted++
			} else {
				f.ignored++
			}
		}
		pod.Annotations[batchv1.JobIndexFailureCountAnnotation] = strconv.Itoa(f.counted)
		if f.ignored > 0 {
			pod.Annotations[batchv1.JobIndexIgnoredFailureCountAnnotation] = strconv.Itoa(f.ignored)
		}
	}
	return pod
}

// tellIndex sets the variable by which a container knows its index.
func tellIndex(c *corev1.Container) {
	const name = "JOB_COMPLETION_INDEX"
	if slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == name }) {
		return
	}
	c.Env = append(c.Env, corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{
		FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels['" + batchv1.JobCompletionIndexAnnotation + "']"},
	}})
}
