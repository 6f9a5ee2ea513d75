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
	maxIndexedPods       = 100000
	maxFailureRules      = 20
	maxFailureValues     = 255
	maxFailureConditions = 20
	maxSuccessRules      = 20
	maxSuccessIndexes    = 64 * 1024
	maxManagedBy         = 63
	// A job of more than manyIndexes indexes, each with its own limit, may have
	// at most maxOfMany of them running or failed.
	manyIndexes = 100000
	maxOfMany   = 10000
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
			errs = append(errs, field.Invalid(p.Key(l.key), j.Spec.Template.Labels, fmt.Sprintf("must be '%s'", l.want)))
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
	if spec.Scheduling != nil {
		errs = append(errs, field.Forbidden(path.Child("scheduling"), "jobs are not scheduled as workloads here"))
	}
	errs = append(errs, checkPodTemplate(path.Child("template"), &spec.Template)...)
	return append(errs, checkJobRestartPolicy(path.Child("template", "spec", "restartPolicy"), spec)...)
}

// checkJobRestartPolicy: a template without a policy has got Always by
// default, so that for Always one is asked for.
func checkJobRestartPolicy(path *field.Path, spec *batchv1.JobSpec) field.ErrorList {
	var errs field.ErrorList
	allowed := []corev1.RestartPolicy{corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever}
	p := spec.Template.Spec.RestartPolicy
	switch {
	case p == "" || p == corev1.RestartPolicyAlways:
		errs = append(errs, field.Required(path, fmt.Sprintf("valid values: %q", allowed)))
	case !slices.Contains(allowed, p):
		errs = append(errs, field.NotSupported(path, p, allowed))
	}
	if spec.PodFailurePolicy != nil && p != corev1.RestartPolicyNever {
		errs = append(errs, field.Invalid(path, p, fmt.Sprintf("only %q is supported when podFailurePolicy is specified", corev1.RestartPolicyNever)))
	}
	return errs
}

func checkIndexed(path *field.Path, spec *batchv1.JobSpec) field.ErrorList {
	var errs field.ErrorList
	failed := spec.MaxFailedIndexes
	if failed != nil && spec.BackoffLimitPerIndex == nil {
		errs = append(errs, field.Required(path.Child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"))
	}
	if !isIndexed(spec) {
		for _, f := range []struct {
			name string
			set  *int32
		}{{"backoffLimitPerIndex", spec.BackoffLimitPerIndex}, {"maxFailedIndexes", failed}} {
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
	if failed != nil && spec.Completions != nil && *failed > *spec.Completions {
		errs = append(errs, field.Invalid(path.Child("maxFailedIndexes"), *failed, "must be less than or equal to completions"))
	}
	if failed != nil && *failed > maxIndexedPods {
		errs = append(errs, field.Invalid(path.Child("maxFailedIndexes"), *failed, fmt.Sprintf("must be less than or equal to %d", maxIndexedPods)))
	}
	return append(errs, checkManyIndexes(path, spec)...)
}

func isIndexed(spec *batchv1.JobSpec) bool {
	return spec.CompletionMode != nil && *spec.CompletionMode == batchv1.IndexedCompletion
}

// checkManyIndexes bounds what the status of a job with very many indexes has
// to list.
func checkManyIndexes(path *field.Path, spec *batchv1.JobSpec) field.ErrorList {
	if count(spec.Completions, 0) <= manyIndexes || spec.BackoffLimitPerIndex == nil {
		return nil
	}
	var errs field.ErrorList
	if spec.MaxFailedIndexes == nil {
		errs = append(errs, field.Required(path.Child("maxFailedIndexes"), fmt.Sprintf("must be specified when completions is above %d", manyIndexes)))
	}
	msg := fmt.Sprintf("must be less than or equal to %d when completions are above %d and used with backoff limit per index", maxOfMany, manyIndexes)
	if n := count(spec.Parallelism, 0); n > maxOfMany {
		errs = append(errs, field.Invalid(path.Child("parallelism"), n, msg))
	}
	if n := count(spec.MaxFailedIndexes, 0); n > maxOfMany {
		errs = append(errs, field.Invalid(path.Child("maxFailedIndexes"), n, msg))
	}
	return errs
}

func checkFailurePolicy(path *field.Path, spec *batchv1.JobSpec) field.ErrorList {
	if spec.PodFailurePolicy == nil {
		return nil
	}
	var errs field.ErrorList
	if n := len(spec.PodFailurePolicy.Rules); n > maxFailureRules {
		errs = append(errs, field.TooMany(path.Child("rules"), n, maxFailureRules))
	}
	for i := range spec.PodFailurePolicy.Rules {
		r, p := &spec.PodFailurePolicy.Rules[i], path.Child("rules").Index(i)
		errs = append(errs, checkNamed(p.Child("action"), r.Action, batchv1.PodFailurePolicyActionCount,
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
		if n := len(r.OnPodConditions); n > maxFailureConditions {
			errs = append(errs, field.TooMany(p.Child("onPodConditions"), n, maxFailureConditions))
		}
		for k, c := range r.OnPodConditions {
			cp := p.Child("onPodConditions").Index(k)
			errs = append(errs, invalid(cp.Child("type"), string(c.Type), utilvalidation.IsQualifiedName(string(c.Type)))...)
			errs = append(errs, checkNamed(cp.Child("status"), c.Status, corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionUnknown)...)
		}
	}
	return errs
}

func checkExitCodes(path *field.Path, e *batchv1.PodFailurePolicyOnExitCodesRequirement, spec *corev1.PodSpec) field.ErrorList {
	errs := checkNamed(path.Child("operator"), e.Operator, batchv1.PodFailurePolicyOnExitCodesOpIn, batchv1.PodFailurePolicyOnExitCodesOpNotIn)
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
	if !isIndexed(spec) {
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
	for i := range spec.SuccessPolicy.Rules {
		errs = append(errs, checkSuccessRule(p.Index(i), &spec.SuccessPolicy.Rules[i], spec.Completions)...)
	}
	return errs
}

func checkSuccessRule(path *field.Path, r *batchv1.SuccessPolicyRule, completions *int32) field.ErrorList {
	if r.SucceededCount == nil && r.SucceededIndexes == nil {
		return field.ErrorList{field.Required(path, "at least one of succeededCount or succeededIndexes must be specified")}
	}
	if completions == nil {
		return nil // which is an error of its own
	}
	var errs field.ErrorList
	var listed int32
	if text := r.SucceededIndexes; text != nil {
		p := path.Child("succeededIndexes")
		if len(*text) > maxSuccessIndexes {
			errs = append(errs, field.TooLong(p, *text, maxSuccessIndexes))
		}
		list, err := parseIndexes(*text, *completions)
		if err != nil {
			errs = append(errs, field.Invalid(p, *text, "error parsing succeededIndexes: "+err.Error()))
		}
		listed = list.size()
	}
	if c := r.SucceededCount; c != nil {
		p := path.Child("succeededCount")
		errs = append(errs, checkNotNegative(p, *c)...)
		if *c > *completions {
			errs = append(errs, field.Invalid(p, *c, fmt.Sprintf("must be less than or equal to %d (the number of specified completions)", *completions)))
		}
		if r.SucceededIndexes != nil && *c > listed {
			errs = append(errs, field.Invalid(p, *c, fmt.Sprintf("must be less than or equal to %d (the number of indexes in the specified succeededIndexes field)", listed)))
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
		switch {
		case !isIndexed(is):
			errs = append(errs, checkImmutable(path.Child("completions"), is.Completions, was.Completions)...)
		case is.Completions != nil && *is.Completions != count(is.Parallelism, 0):
			errs = append(errs, field.Invalid(path.Child("completions"), *is.Completions, "can only be modified in tandem with spec.parallelism"))
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
		t.Spec.Affinity = withNodeAffinityOf(t.Spec.Affinity, o.Spec.Affinity)
	}
	return append(errs, checkImmutable(path.Child("template"), *template, was.Template)...)
}

// withNodeAffinityOf is a with the node affinity of from; what is then empty
// is as good as nil.
func withNodeAffinityOf(a, from *corev1.Affinity) *corev1.Affinity {
	out := &corev1.Affinity{}
	if a != nil {
		out = a.DeepCopy()
	}
	out.NodeAffinity = nil
	if from != nil {
		out.NodeAffinity = from.NodeAffinity
	}
	if *out == (corev1.Affinity{}) && (from == nil || *from != *out) {
		return nil
	}
	return out
}
