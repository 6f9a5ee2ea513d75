package resource

import (
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	maxIndexedPods   = 100000
	maxFailureRules  = 20
	maxFailureValues = 255
	maxSuccessRules  = 20
	maxManagedBy     = 63
)

func validateJob(j *batchv1.Job) field.ErrorList {
	path, spec := field.NewPath("spec"), &j.Spec
	errs := checkJobSpec(path, spec)
	p := path.Child("selector")
	selector, err := metav1.LabelSelectorAsSelector(spec.Selector)
	switch {
	case spec.Selector == nil:
		errs = append(errs, field.Required(p, ""))
	default:
		errs = append(errs, checkLabelSelector(p, spec.Selector)...)
	}
	if err == nil && spec.Selector != nil && !selector.Matches(labels.Set(spec.Template.Labels)) {
		errs = append(errs, field.Invalid(path.Child("template", "metadata", "labels"), spec.Template.Labels, "`selector` does not match template `labels`"))
	}
	if spec.ManualSelector == nil || !*spec.ManualSelector {
		errs = append(errs, checkGeneratedLabels(path, j)...)
	}
	if len(j.Name) > 63 && spec.CompletionMode != nil && *spec.CompletionMode == batchv1.IndexedCompletion {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), j.Name, utilvalidation.MaxLenError(63)))
	}
	return errs
}

// checkGeneratedLabels: where the server makes the selector, what a client
// wrote in its place must be the same.
func checkGeneratedLabels(path *field.Path, j *batchv1.Job) field.ErrorList {
	p := path.Child("template", "metadata", "labels")
	var errs field.ErrorList
	for _, l := range []struct{ key, want string }{
		{batchv1.ControllerUidLabel, string(j.UID)}, {"controller-uid", string(j.UID)}, {batchv1.JobNameLabel, j.Name}, {"job-name", j.Name},
	} {
		if got, ok := j.Spec.Template.Labels[l.key]; !ok {
			errs = append(errs, field.Required(p.Key(l.key), fmt.Sprintf("must be '%s'", l.want)))
		} else if got != l.want {
			errs = append(errs, field.Invalid(p, j.Spec.Template.Labels, fmt.Sprintf("must be '%s'", l.want)))
		}
	}
	if j.Spec.Selector != nil && j.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel] != string(j.UID) {
		errs = append(errs, field.Invalid(path.Child("selector"), j.Spec.Selector, "`selector` not auto-generated"))
	}
	return errs
}

// checkJobSpec is what a job and a cron job's template have in common.
func checkJobSpec(path *field.Path, spec *batchv1.JobSpec) field.ErrorList {
	errs := checkOptionalNotNegative(path.Child("parallelism"), spec.Parallelism)
	errs = append(errs, checkOptionalNotNegative(path.Child("completions"), spec.Completions)...)
	errs = append(errs, checkOptionalNotNegative(path.Child("activeDeadlineSeconds"), spec.ActiveDeadlineSeconds)...)
	errs = append(errs, checkOptionalNotNegative(path.Child("backoffLimit"), spec.BackoffLimit)...)
	errs = append(errs, checkOptionalNotNegative(path.Child("ttlSecondsAfterFinished"), spec.TTLSecondsAfterFinished)...)
	errs = append(errs, checkOptionalNotNegative(path.Child("backoffLimitPerIndex"), spec.BackoffLimitPerIndex)...)
	errs = append(errs, checkOptionalNotNegative(path.Child("maxFailedIndexes"), spec.MaxFailedIndexes)...)
	errs = append(errs, checkOptional(path.Child("completionMode"), spec.CompletionMode, batchv1.IndexedCompletion, batchv1.NonIndexedCompletion)...)
	errs = append(errs, checkOptional(path.Child("podReplacementPolicy"), spec.PodReplacementPolicy, batchv1.Failed, batchv1.TerminatingOrFailed)...)
	if spec.PodFailurePolicy != nil && spec.PodReplacementPolicy != nil && *spec.PodReplacementPolicy != batchv1.Failed {
		errs = append(errs, field.NotSupported(path.Child("podReplacementPolicy"), *spec.PodReplacementPolicy, []batchv1.PodReplacementPolicy{batchv1.Failed}))
	}
	if m := spec.ManagedBy; m != nil {
		errs = append(errs, utilvalidation.IsDomainPrefixedPath(path.Child("managedBy"), *m)...)
		if len(*m) > maxManagedBy {
			errs = append(errs, field.TooLong(path.Child("managedBy"), *m, maxManagedBy))
		}
	}
	errs = append(errs, checkIndexed(path, spec)...)
	errs = append(errs, checkFailurePolicy(path.Child("podFailurePolicy"), spec)...)
	errs = append(errs, checkSuccessPolicy(path.Child("successPolicy"), spec)...)
	errs = append(errs, checkPodTemplate(path.Child("template"), &spec.Template)...)
	return append(errs, checkTemplatePolicy(path.Child("template", "spec", "restartPolicy"), spec.Template.Spec.RestartPolicy,
		[]corev1.RestartPolicy{corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever})...)
}

func checkIndexed(path *field.Path, spec *batchv1.JobSpec) field.ErrorList {
	var errs field.ErrorList
	indexed := spec.CompletionMode != nil && *spec.CompletionMode == batchv1.IndexedCompletion
	if !indexed {
		for _, f := range []struct {
			name string
			set  *int32
		}{{"backoffLimitPerIndex", spec.BackoffLimitPerIndex}, {"maxFailedIndexes", spec.MaxFailedIndexes}} {
			if f.set != nil {
				errs = append(errs, field.Invalid(path.Child(f.name), *f.set, "requires indexed completion mode"))
			}
		}
		return errs
	}
	if spec.Completions == nil {
		errs = append(errs, field.Required(path.Child("completions"), "when completion mode is Indexed"))
	}
	if n := count(spec.Parallelism, 0); n > maxIndexedPods {
		errs = append(errs, field.Invalid(path.Child("parallelism"), n, fmt.Sprintf("must be less than or equal to %d when completion mode is Indexed", maxIndexedPods)))
	}
	if spec.MaxFailedIndexes != nil && spec.BackoffLimitPerIndex == nil {
		errs = append(errs, field.Required(path.Child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"))
	}
	if spec.MaxFailedIndexes != nil && spec.Completions != nil && *spec.MaxFailedIndexes > *spec.Completions {
		errs = append(errs, field.Invalid(path.Child("maxFailedIndexes"), *spec.MaxFailedIndexes, "must be less than or equal to completions"))
	}
	return errs
}

func checkFailurePolicy(path *field.Path, spec *batchv1.JobSpec) field.ErrorList {
	if spec.PodFailurePolicy == nil {
		return nil
	}
	var errs field.ErrorList
	if p := spec.Template.Spec.RestartPolicy; p != corev1.RestartPolicyNever {
		errs = append(errs, field.Invalid(field.NewPath("spec", "template", "spec", "restartPolicy"), p,
			fmt.Sprintf("only \"%s\" is supported when podFailurePolicy is specified", corev1.RestartPolicyNever)))
	}
	if n := len(spec.PodFailurePolicy.Rules); n > maxFailureRules {
		errs = append(errs, field.TooMany(path.Child("rules"), n, maxFailureRules))
	}
	for i := range spec.PodFailurePolicy.Rules {
		r, p := &spec.PodFailurePolicy.Rules[i], path.Child("rules").Index(i)
		errs = append(errs, checkSet(p.Child("action"), r.Action, batchv1.PodFailurePolicyActionCount,
			batchv1.PodFailurePolicyActionFailIndex, batchv1.PodFailurePolicyActionFailJob, batchv1.PodFailurePolicyActionIgnore)...)
		if r.Action == batchv1.PodFailurePolicyActionFailIndex && spec.BackoffLimitPerIndex == nil {
			errs = append(errs, field.Invalid(p.Child("action"), r.Action, "requires the backoffLimitPerIndex to be set"))
		}
		switch {
		case r.OnExitCodes != nil && len(r.OnPodConditions) > 0:
			errs = append(errs, field.Invalid(p, field.OmitValueType{}, "specifying both OnExitCodes and OnPodConditions is not supported"))
		case r.OnExitCodes == nil && len(r.OnPodConditions) == 0:
			errs = append(errs, field.Invalid(p, field.OmitValueType{}, "specifying one of OnExitCodes and OnPodConditions is required"))
		}
		if r.OnExitCodes != nil {
			errs = append(errs, checkExitCodes(p.Child("onExitCodes"), r.OnExitCodes, &spec.Template.Spec)...)
		}
		for k, c := range r.OnPodConditions {
			cp := p.Child("onPodConditions").Index(k)
			errs = append(errs, invalid(cp.Child("type"), string(c.Type), utilvalidation.IsQualifiedName(string(c.Type)))...)
			errs = append(errs, checkSet(cp.Child("status"), c.Status, corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionUnknown)...)
		}
	}
	return errs
}

func checkExitCodes(path *field.Path, e *batchv1.PodFailurePolicyOnExitCodesRequirement, spec *corev1.PodSpec) field.ErrorList {
	errs := checkSet(path.Child("operator"), e.Operator, batchv1.PodFailurePolicyOnExitCodesOpIn, batchv1.PodFailurePolicyOnExitCodesOpNotIn)
	if name := e.ContainerName; name != nil {
		c := &podChecker{spec: spec}
		if !c.hasContainer(*name) {
			errs = append(errs, field.Invalid(path.Child("containerName"), *name, "must be one of the container or initContainer names in the pod template"))
		}
	}
	p := path.Child("values")
	switch n := len(e.Values); {
	case n == 0:
		errs = append(errs, field.Invalid(p, e.Values, "at least one value is required"))
	case n > maxFailureValues:
		errs = append(errs, field.TooMany(p, n, maxFailureValues))
	}
	for i, v := range e.Values {
		if v == 0 && e.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn {
			errs = append(errs, field.Invalid(p.Index(i), v, "must not be 0 for the In operator"))
		}
		if slices.Index(e.Values, v) < i {
			errs = append(errs, field.Duplicate(p.Index(i), v))
		}
	}
	if !slices.IsSorted(e.Values) {
		errs = append(errs, field.Invalid(p, e.Values, "must be ordered"))
	}
	return errs
}

func checkSuccessPolicy(path *field.Path, spec *batchv1.JobSpec) field.ErrorList {
	if spec.SuccessPolicy == nil {
		return nil
	}
	if spec.CompletionMode == nil || *spec.CompletionMode != batchv1.IndexedCompletion {
		return field.ErrorList{field.Invalid(path, *spec.SuccessPolicy, "requires indexed completion mode")}
	}
	var errs field.ErrorList
	p := path.Child("rules")
	switch n := len(spec.SuccessPolicy.Rules); {
	case n == 0:
		errs = append(errs, field.Required(p, "at least one rules must be specified when the successPolicy is specified"))
	case n > maxSuccessRules:
		errs = append(errs, field.TooMany(p, n, maxSuccessRules))
	}
	for i, r := range spec.SuccessPolicy.Rules {
		if r.SucceededCount == nil && r.SucceededIndexes == nil {
			errs = append(errs, field.Required(p.Index(i), "at least one of succeededCount or succeededIndexes must be specified"))
		}
		if c := r.SucceededCount; c != nil {
			errs = append(errs, checkNotNegative(p.Index(i).Child("succeededCount"), *c)...)
			if spec.Completions != nil && *c > *spec.Completions {
				errs = append(errs, field.Invalid(p.Index(i).Child("succeededCount"), *c, fmt.Sprintf("must be less than or equal to %d (the number of specified completions)", *spec.Completions)))
			}
		}
	}
	return errs
}

// validateJobUpdate: a job runs what it was made with. Parallelism, suspension
// and limits may change; so may where its pods go, while it is suspended and
// none has started.
func validateJobUpdate(j, old *batchv1.Job) field.ErrorList {
	path, is, was := field.NewPath("spec"), &j.Spec, &old.Spec
	var errs field.ErrorList
	if !equality.Semantic.DeepEqual(is.Completions, was.Completions) {
		elastic := was.CompletionMode != nil && *was.CompletionMode == batchv1.IndexedCompletion &&
			is.Completions != nil && is.Parallelism != nil && *is.Completions == *is.Parallelism && was.Completions != nil
		if !elastic {
			errs = append(errs, checkImmutable(path.Child("completions"), is.Completions, was.Completions)...)
		}
	}
	errs = append(errs, checkImmutable(path.Child("selector"), is.Selector, was.Selector)...)
	errs = append(errs, checkImmutable(path.Child("completionMode"), is.CompletionMode, was.CompletionMode)...)
	errs = append(errs, checkImmutable(path.Child("podFailurePolicy"), is.PodFailurePolicy, was.PodFailurePolicy)...)
	errs = append(errs, checkImmutable(path.Child("backoffLimitPerIndex"), is.BackoffLimitPerIndex, was.BackoffLimitPerIndex)...)
	errs = append(errs, checkImmutable(path.Child("managedBy"), is.ManagedBy, was.ManagedBy)...)
	errs = append(errs, checkImmutable(path.Child("successPolicy"), is.SuccessPolicy, was.SuccessPolicy)...)
	template := is.Template.DeepCopy()
	if was.Suspend != nil && *was.Suspend && old.Status.StartTime == nil {
		t, o := template, &was.Template
		t.Annotations, t.Labels = o.Annotations, o.Labels
		t.Spec.NodeSelector, t.Spec.Tolerations, t.Spec.SchedulingGates = o.Spec.NodeSelector, o.Spec.Tolerations, o.Spec.SchedulingGates
		if o.Spec.Affinity == nil || t.Spec.Affinity == nil {
			t.Spec.Affinity = o.Spec.Affinity
		} else {
			t.Spec.Affinity.NodeAffinity = o.Spec.Affinity.NodeAffinity
		}
	}
	return append(errs, checkImmutable(path.Child("template"), *template, was.Template)...)
}

func validateJobStatus(j, old *batchv1.Job) field.ErrorList {
	s, path := &j.Status, field.NewPath("status")
	errs := checkNotNegative(path.Child("active"), s.Active)
	errs = append(errs, checkNotNegative(path.Child("succeeded"), s.Succeeded)...)
	errs = append(errs, checkNotNegative(path.Child("failed"), s.Failed)...)
	errs = append(errs, checkOptionalNotNegative(path.Child("ready"), s.Ready)...)
	errs = append(errs, checkOptionalNotNegative(path.Child("terminating"), s.Terminating)...)
	finished := func(j *batchv1.Job, t batchv1.JobConditionType) bool {
		return slices.ContainsFunc(j.Status.Conditions, func(c batchv1.JobCondition) bool {
			return c.Type == t && c.Status == corev1.ConditionTrue
		})
	}
	if finished(j, batchv1.JobComplete) && finished(j, batchv1.JobFailed) {
		errs = append(errs, field.Invalid(path.Child("conditions"), field.OmitValueType{}, "cannot set Complete=True and Failed=true conditions"))
	}
	for _, t := range []batchv1.JobConditionType{batchv1.JobComplete, batchv1.JobFailed} {
		if finished(old, t) && !finished(j, t) {
			errs = append(errs, field.Invalid(path.Child("conditions"), field.OmitValueType{}, fmt.Sprintf("cannot disable the terminal %s=True condition", t)))
		}
	}
	if s.CompletionTime != nil && s.StartTime != nil && s.CompletionTime.Before(s.StartTime) {
		errs = append(errs, field.Invalid(path.Child("completionTime"), s.CompletionTime, "completionTime cannot be set before startTime"))
	}
	return errs
}
