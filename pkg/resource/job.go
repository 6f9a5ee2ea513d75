package resource

import (
	"fmt"
	"maps"
	"math"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func jobs() *Resource {
	return define(Resource{
		Group: "batch", Version: "v1", Kind: "Job", Plural: "jobs",
		Categories:          []string{"all"},
		Namespaced:          true,
		HasStatus:           true,
		HasGeneration:       true,
		UnconditionalUpdate: true,
		Orphans:             true,
		OrphansWarning: "child pods are preserved by default when jobs are deleted; " +
			"set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning",
		New:        func() runtime.Object { return &batchv1.Job{} },
		NewList:    func() runtime.Object { return &batchv1.JobList{} },
		FieldNames: []string{"status.successful"},
		FieldsRead: []string{"status.succeeded"},
		Columns:    columns("Name", "Status", "Completions", "Duration", "Age", "+Containers", "+Images", "+Selector"),
	}, hooks[*batchv1.Job]{
		Default:        defaultJob,
		Prepare:        prepareJob,
		Validate:       validateJob,
		ValidateUpdate: validateJobUpdate,
		ValidateStatus: validateJobStatus,
		Warnings: func(obj, old *batchv1.Job) []string {
			if old != nil && old.Generation == obj.Generation {
				return nil
			}
			return podSpecWarnings(field.NewPath("spec", "template", "spec"), &obj.Spec.Template.Spec)
		},
		Fields: func(j *batchv1.Job) map[string]string {
			return map[string]string{"status.successful": strconv.Itoa(int(j.Status.Succeeded))}
		},
		Row: jobRow,
	})
}

func defaultJob(j *batchv1.Job) {
	spec := &j.Spec
	defaultPodTemplate(&spec.Template)
	if spec.Completions == nil && spec.Parallelism == nil {
		spec.Completions = new(int32(1))
	}
	defaultCount(&spec.Parallelism, 1)
	if spec.BackoffLimitPerIndex != nil {
		defaultCount(&spec.BackoffLimit, math.MaxInt32)
	}
	defaultCount(&spec.BackoffLimit, 6)
	if len(j.Labels) == 0 {
		j.Labels = maps.Clone(spec.Template.Labels)
	}
	if spec.CompletionMode == nil {
		spec.CompletionMode = new(batchv1.NonIndexedCompletion)
	}
	if spec.Suspend == nil {
		spec.Suspend = new(false)
	}
	defaultFailurePolicy(spec.PodFailurePolicy)
	if spec.PodReplacementPolicy == nil {
		spec.PodReplacementPolicy = new(batchv1.TerminatingOrFailed)
		if spec.PodFailurePolicy != nil {
			spec.PodReplacementPolicy = new(batchv1.Failed)
		}
	}
	if spec.ManualSelector == nil {
		spec.ManualSelector = new(false)
	}
}

func defaultFailurePolicy(p *batchv1.PodFailurePolicy) {
	if p == nil {
		return
	}
	for i := range p.Rules {
		for j := range p.Rules[i].OnPodConditions {
			if c := &p.Rules[i].OnPodConditions[j]; c.Status == "" {
				c.Status = corev1.ConditionTrue
			}
		}
	}
}

// prepareJob gives a new job the selector that only its own pods match, by
// its UID; the caller has set that already.
func prepareJob(j, old *batchv1.Job) {
	if old != nil || (j.Spec.ManualSelector != nil && *j.Spec.ManualSelector) {
		return
	}
	uid := string(j.UID)
	t := &j.Spec.Template
	t.Labels = maps.Clone(t.Labels)
	if t.Labels == nil {
		t.Labels = map[string]string{}
	}
	for key, value := range map[string]string{
		"job-name": j.Name, batchv1.JobNameLabel: j.Name, "controller-uid": uid, batchv1.ControllerUidLabel: uid,
	} {
		// A label that says otherwise stays, so that validation names it.
		if _, set := t.Labels[key]; !set {
			t.Labels[key] = value
		}
	}
	if len(j.Labels) == 0 {
		j.Labels = maps.Clone(t.Labels)
	}
	if j.Spec.Selector == nil {
		j.Spec.Selector = &metav1.LabelSelector{}
	}
	if j.Spec.Selector.MatchLabels == nil {
		j.Spec.Selector.MatchLabels = map[string]string{}
	}
	if _, set := j.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel]; !set {
		j.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel] = uid
	}
}

func jobRow(j *batchv1.Job, now time.Time) []any {
	completions := ""
	switch parallel := count(j.Spec.Parallelism, 0); {
	case j.Spec.Completions != nil:
		completions = fmt.Sprintf("%d/%d", j.Status.Succeeded, *j.Spec.Completions)
	case parallel > 1:
		completions = fmt.Sprintf("%d/1 of %d", j.Status.Succeeded, parallel)
	default:
		completions = fmt.Sprintf("%d/1", j.Status.Succeeded)
	}
	took := ""
	if start := j.Status.StartTime; start != nil {
		end := now
		if j.Status.CompletionTime != nil {
			end = j.Status.CompletionTime.Time
		}
		took = duration.HumanDuration(end.Sub(start.Time))
	}
	names, images := containerCells(j.Spec.Template.Spec.Containers)
	return []any{
		j.Name, jobStatusText(j), completions, took, age(j.CreationTimestamp, now),
		names, images, metav1.FormatLabelSelector(j.Spec.Selector),
	}
}

func jobStatusText(j *batchv1.Job) string {
	has := func(t batchv1.JobConditionType) bool {
		for _, c := range j.Status.Conditions {
			if c.Type == t {
				return c.Status == corev1.ConditionTrue
			}
		}
		return false
	}
	switch {
	case has(batchv1.JobComplete):
		return "Complete"
	case has(batchv1.JobFailed):
		return "Failed"
	case j.DeletionTimestamp != nil:
		return "Terminating"
	case has(batchv1.JobSuspended):
		return "Suspended"
	case has(batchv1.JobFailureTarget):
		return "FailureTarget"
	case has(batchv1.JobSuccessCriteriaMet):
		return "SuccessCriteriaMet"
	}
	return "Running"
}
