package resource

import (
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// validateJobStatus holds every controller of jobs, the cluster's own and those
// that spec.managedBy names, to the order in which a job may end. What is wrong
// already is no error until a write touches it.
func validateJobStatus(j, old *batchv1.Job) field.ErrorList {
	s, path := &j.Status, field.NewPath("status")
	errs := checkNotNegative(path.Child("active"), s.Active)
	errs = append(errs, checkNotNegative(path.Child("succeeded"), s.Succeeded)...)
	errs = append(errs, checkNotNegative(path.Child("failed"), s.Failed)...)
	errs = append(errs, checkOptionalNotNegative(path.Child("ready"), s.Ready)...)
	errs = append(errs, checkOptionalNotNegative(path.Child("terminating"), s.Terminating)...)
	errs = append(errs, checkUncounted(path.Child("uncountedTerminatedPods"), s.UncountedTerminatedPods)...)
	errs = append(errs, checkJobConditions(path.Child("conditions"), j, old)...)
	errs = append(errs, checkJobTimes(path, j, old)...)
	errs = append(errs, checkJobCounters(path, j, old)...)
	return append(errs, checkJobIndexes(path, j, old)...)
}

func jobIs(j *batchv1.Job, t batchv1.JobConditionType) bool {
	return slices.ContainsFunc(j.Status.Conditions, func(c batchv1.JobCondition) bool {
		return c.Type == t && c.Status == corev1.ConditionTrue
	})
}

func jobFinished(j *batchv1.Job) bool {
	return jobIs(j, batchv1.JobComplete) || jobIs(j, batchv1.JobFailed)
}

// checkUncounted wants each pod to be listed once, as succeeded or as failed.
func checkUncounted(path *field.Path, u *batchv1.UncountedTerminatedPods) field.ErrorList {
	if u == nil {
		return nil
	}
	var errs field.ErrorList
	seen := map[types.UID]bool{}
	for _, list := range []struct {
		name string
		uids []types.UID
	}{{"succeeded", u.Succeeded}, {"failed", u.Failed}} {
		for i, uid := range list.uids {
			p := path.Child(list.name).Index(i)
			switch {
			case uid == "":
				errs = append(errs, field.Invalid(p, uid, "must not be empty"))
			case seen[uid]:
				errs = append(errs, field.Duplicate(p, uid))
			}
			seen[uid] = true
		}
	}
	return errs
}

// checkJobConditions: a job first meets its criteria of success or of failure,
// then it is complete or failed, and stays so.
func checkJobConditions(path *field.Path, j, old *batchv1.Job) field.ErrorList {
	var errs field.ErrorList
	refuse := func(wrong bool, message string) {
		if wrong {
			errs = append(errs, field.Invalid(path, field.OmitValueType{}, message))
		}
	}
	complete, failed := jobIs(j, batchv1.JobComplete), jobIs(j, batchv1.JobFailed)
	met, target := jobIs(j, batchv1.JobSuccessCriteriaMet), jobIs(j, batchv1.JobFailureTarget)
	wasMet := jobIs(old, batchv1.JobSuccessCriteriaMet)
	newComplete := complete != jobIs(old, batchv1.JobComplete)
	newFailed := failed != jobIs(old, batchv1.JobFailed)
	newTarget := target != jobIs(old, batchv1.JobFailureTarget)
	refuse(complete && failed && (newComplete || newFailed), "cannot set Complete=True and Failed=true conditions")
	refuse(complete && target && (newComplete || newTarget), "cannot set Complete=True and FailureTarget=true conditions")
	refuse(failed && !target && newFailed, "cannot set Failed=True condition without the FailureTarget=true condition")
	refuse(complete && !met && newComplete, "cannot set Complete=True condition without the SuccessCriteriaMet=true condition")
	refuse(met && failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions")
	refuse(met && target, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions")
	refuse(j.Spec.SuccessPolicy != nil && !met && complete, "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True")
	for _, t := range []batchv1.JobConditionType{batchv1.JobFailed, batchv1.JobComplete, batchv1.JobFailureTarget} {
		refuse(jobIs(old, t) && !jobIs(j, t), "cannot disable the terminal "+string(t)+"=True condition")
	}
	refuse(wasMet && !met, "cannot disable the SuccessCriteriaMet=True condition")
	refuse(jobIs(old, batchv1.JobComplete) && !wasMet && met, "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions")
	return errs
}

func checkJobTimes(path *field.Path, j, old *batchv1.Job) field.ErrorList {
	var errs field.ErrorList
	start, end := path.Child("startTime"), path.Child("completionTime")
	s, was := &j.Status, &old.Status
	complete := jobIs(j, batchv1.JobComplete)
	newStart, newEnd := !sameTime(s.StartTime, was.StartTime), !sameTime(s.CompletionTime, was.CompletionTime)
	suspended := j.Spec.Suspend != nil && *j.Spec.Suspend
	if newEnd || complete != jobIs(old, batchv1.JobComplete) {
		switch {
		case s.CompletionTime != nil && !complete:
			errs = append(errs, field.Invalid(end, s.CompletionTime, "cannot set completionTime when there is no Complete=True condition"))
		case s.CompletionTime == nil && complete:
			errs = append(errs, field.Required(end, "completionTime is required for Complete jobs"))
		}
	}
	if (newStart || newEnd) && s.StartTime != nil && s.CompletionTime != nil && s.CompletionTime.Before(s.StartTime) {
		errs = append(errs, field.Invalid(end, s.CompletionTime, "completionTime cannot be set before startTime"))
	}
	if newEnd && s.CompletionTime != nil && was.CompletionTime != nil {
		errs = append(errs, field.Invalid(end, s.CompletionTime, "completionTime cannot be mutated"))
	}
	neverRuns := suspended && j.Spec.Completions != nil && *j.Spec.Completions == 0
	if (newStart || jobFinished(j) != jobFinished(old)) && jobFinished(j) && s.StartTime == nil && !neverRuns {
		errs = append(errs, field.Required(start, "startTime is required for finished job"))
	}
	if newStart && was.StartTime != nil && !suspended {
		errs = append(errs, field.Required(start, "startTime cannot be removed for unsuspended job"))
	}
	return errs
}

func sameTime(a, b *metav1.Time) bool {
	return a == nil && b == nil || a != nil && b != nil && a.Equal(b)
}

func checkJobCounters(path *field.Path, j, old *batchv1.Job) field.ErrorList {
	var errs field.ErrorList
	s, was := &j.Status, &old.Status
	finished := jobFinished(j)
	ended := finished && !jobFinished(old)
	// An indexed job that is as wide as it is long can shrink.
	elastic := isIndexed(&j.Spec) && equalCounts(j.Spec.Completions, j.Spec.Parallelism)
	if s.Succeeded < was.Succeeded && !elastic {
		errs = append(errs, field.Invalid(path.Child("succeeded"), s.Succeeded, "cannot decrease the succeeded counter"))
	}
	if s.Failed < was.Failed {
		errs = append(errs, field.Invalid(path.Child("failed"), s.Failed, "cannot decrease the failed counter"))
	}
	if finished && s.Active > 0 && (ended || s.Active != was.Active) {
		errs = append(errs, field.Invalid(path.Child("active"), s.Active, "active>0 is invalid for finished job"))
	}
	if n := count(s.Terminating, 0); finished && n > 0 && (ended || !equalCounts(s.Terminating, was.Terminating)) {
		errs = append(errs, field.Invalid(path.Child("terminating"), n, "terminating>0 is invalid for finished job"))
	}
	if n := count(s.Ready, 0); n > s.Active && s.Ready != nil && (!equalCounts(s.Ready, was.Ready) || s.Active != was.Active) {
		errs = append(errs, field.Invalid(path.Child("ready"), n, "cannot set more ready pods than active"))
	}
	if u := s.UncountedTerminatedPods; finished && u != nil && len(u.Failed)+len(u.Succeeded) > 0 &&
		(ended || !sameUncounted(u, was.UncountedTerminatedPods)) {
		errs = append(errs, field.Invalid(path.Child("uncountedTerminatedPods"), u, "uncountedTerminatedPods needs to be empty for finished job"))
	}
	return errs
}

func equalCounts(a, b *int32) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}

func sameUncounted(a, b *batchv1.UncountedTerminatedPods) bool {
	return b != nil && slices.Equal(a.Succeeded, b.Succeeded) && slices.Equal(a.Failed, b.Failed)
}

func checkJobIndexes(path *field.Path, j, old *batchv1.Job) field.ErrorList {
	var errs field.ErrorList
	s, was, spec := &j.Status, &old.Status, &j.Spec
	var done, bad indexList
	p := path.Child("completedIndexes")
	newDone := s.CompletedIndexes != was.CompletedIndexes
	if spec.Completions != nil {
		var err error
		if done, err = parseIndexes(s.CompletedIndexes, *spec.Completions); err != nil && newDone {
			errs = append(errs, field.Invalid(p, s.CompletedIndexes, "error parsing completedIndexes: "+err.Error()))
		}
	}
	if newDone && s.CompletedIndexes != "" && !isIndexed(spec) {
		errs = append(errs, field.Invalid(p, s.CompletedIndexes, "cannot set non-empty completedIndexes when non-indexed completion mode"))
	}
	if s.FailedIndexes == nil {
		return errs
	}
	p = path.Child("failedIndexes")
	newBad := was.FailedIndexes == nil || *was.FailedIndexes != *s.FailedIndexes
	if spec.BackoffLimitPerIndex == nil && newBad {
		errs = append(errs, field.Invalid(p, *s.FailedIndexes, "cannot set non-null failedIndexes when backoffLimitPerIndex is null"))
	}
	if spec.Completions == nil {
		return errs
	}
	var err error
	if bad, err = parseIndexes(*s.FailedIndexes, *spec.Completions); err != nil && newBad && spec.BackoffLimitPerIndex != nil {
		errs = append(errs, field.Invalid(p, *s.FailedIndexes, "error parsing failedIndexes: "+err.Error()))
	}
	if i, ok := done.overlap(bad); ok && (newDone || newBad) {
		errs = append(errs, field.Invalid(p, *s.FailedIndexes, "failedIndexes and completedIndexes overlap at index: "+i))
	}
	return errs
}
