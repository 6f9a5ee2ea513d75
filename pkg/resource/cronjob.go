package resource

import (
	"slices"
	"strconv"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxCronJobName leaves room for the eleven characters of a job's name.
const maxCronJobName = 52

func cronJobs() *Resource {
	return define(Resource{
		Group: "batch", Version: "v1", Kind: "CronJob", Plural: "cronjobs", ShortNames: []string{"cj"},
		Categories:          []string{"all"},
		Namespaced:          true,
		HasStatus:           true,
		HasGeneration:       true,
		UnconditionalUpdate: true,
		ValidateName:        validation.NameIsDNSSubdomain,
		New:                 func() runtime.Object { return &batchv1.CronJob{} },
		NewList:             func() runtime.Object { return &batchv1.CronJobList{} },
		Columns: columns("Name", "Schedule", "Timezone", "Suspend", "Active:integer", "Last Schedule", "Age",
			"+Containers", "+Images", "+Selector"),
	}, hooks[*batchv1.CronJob]{
		Default:        defaultCronJob,
		Validate:       validateCronJob,
		ValidateCreate: checkCronJobName,
		Warnings: func(c, old *batchv1.CronJob) []string {
			if old != nil && old.Generation == c.Generation {
				return nil
			}
			return podSpecWarnings(field.NewPath("spec", "jobTemplate", "spec", "template", "spec"), &c.Spec.JobTemplate.Spec.Template.Spec)
		},
		Row: func(c *batchv1.CronJob, now time.Time) []any {
			last, zone := "<none>", "<none>"
			if t := c.Status.LastScheduleTime; t != nil {
				last = age(*t, now)
			}
			if c.Spec.TimeZone != nil {
				zone = *c.Spec.TimeZone
			}
			spec := &c.Spec.JobTemplate.Spec
			names, images := containerCells(spec.Template.Spec.Containers)
			return []any{
				c.Name, c.Spec.Schedule, zone, boolText(c.Spec.Suspend), int64(len(c.Status.Active)), last,
				age(c.CreationTimestamp, now), names, images, metav1.FormatLabelSelector(spec.Selector),
			}
		},
	})
}

// boolText is how kubectl shows an optional truth.
func boolText(b *bool) string {
	switch {
	case b == nil:
		return "<unset>"
	case *b:
		return "True"
	}
	return "False"
}

func defaultCronJob(c *batchv1.CronJob) {
	if c.Spec.ConcurrencyPolicy == "" {
		c.Spec.ConcurrencyPolicy = batchv1.AllowConcurrent
	}
	if c.Spec.Suspend == nil {
		c.Spec.Suspend = new(false)
	}
	defaultCount(&c.Spec.SuccessfulJobsHistoryLimit, 3)
	defaultCount(&c.Spec.FailedJobsHistoryLimit, 1)
	// The job itself is defaulted when it is made.
	defaultPodTemplate(&c.Spec.JobTemplate.Spec.Template)
	defaultFailurePolicy(c.Spec.JobTemplate.Spec.PodFailurePolicy)
}

func validateCronJob(c *batchv1.CronJob) field.ErrorList {
	path, spec := field.NewPath("spec"), &c.Spec
	var errs field.ErrorList
	p := path.Child("schedule")
	switch {
	case spec.Schedule == "":
		errs = append(errs, field.Required(p, ""))
	default:
		if strings.Contains(spec.Schedule, "TZ") {
			errs = append(errs, field.Invalid(p, spec.Schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"))
		}
		if msg := badSchedule(spec.Schedule); msg != "" {
			errs = append(errs, field.Invalid(p, spec.Schedule, msg))
		}
	}
	errs = append(errs, checkTimeZone(path.Child("timeZone"), spec.TimeZone)...)
	errs = append(errs, checkOptionalNotNegative(path.Child("startingDeadlineSeconds"), spec.StartingDeadlineSeconds)...)
	errs = append(errs, checkSet(path.Child("concurrencyPolicy"), spec.ConcurrencyPolicy,
		batchv1.AllowConcurrent, batchv1.ForbidConcurrent, batchv1.ReplaceConcurrent)...)
	errs = append(errs, checkOptionalNotNegative(path.Child("successfulJobsHistoryLimit"), spec.SuccessfulJobsHistoryLimit)...)
	errs = append(errs, checkOptionalNotNegative(path.Child("failedJobsHistoryLimit"), spec.FailedJobsHistoryLimit)...)
	return append(errs, checkJobTemplate(path.Child("jobTemplate", "spec"), &spec.JobTemplate.Spec)...)
}

// checkCronJobName bounds names for those of the jobs.
func checkCronJobName(c *batchv1.CronJob) field.ErrorList {
	if len(c.Name) <= maxCronJobName {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("metadata", "name"), c.Name, utilvalidation.MaxLenError(maxCronJobName))}
}

func checkTimeZone(path *field.Path, zone *string) field.ErrorList {
	switch {
	case zone == nil:
		return nil
	case *zone == "":
		return field.ErrorList{field.Invalid(path, *zone, "timeZone must be nil or non-empty string")}
	case strings.EqualFold(*zone, "local"):
		return field.ErrorList{field.Invalid(path, *zone, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones")}
	}
	if _, err := time.LoadLocation(*zone); err != nil {
		return field.ErrorList{field.Invalid(path, *zone, "unknown time zone "+*zone)}
	}
	return nil
}

func checkJobTemplate(path *field.Path, spec *batchv1.JobSpec) field.ErrorList {
	errs := checkJobSpec(path, spec)
	if spec.ManualSelector != nil && *spec.ManualSelector {
		errs = append(errs, field.NotSupported(path.Child("manualSelector"), *spec.ManualSelector, []string{"nil", "false"}))
	}
	if spec.Selector != nil {
		errs = append(errs, field.Invalid(path.Child("selector"), spec.Selector, "`selector` will be auto-generated"))
	}
	return errs
}

var scheduleMacros = []string{"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"}

// scheduleFields are the five fields of a cron schedule.
var scheduleFields = []struct {
	name    string
	lo, hi  int
	symbols []string // names of the values from lo on
}{
	{"minute", 0, 59, nil}, {"hour", 0, 23, nil}, {"day of month", 1, 31, nil},
	{"month", 1, 12, []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}},
	{"day of week", 0, 7, []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}},
}

// maxSchedule bounds a schedule, of which the longest that names every minute,
// hour and day has some hundred characters.
const maxSchedule = 2 << 10

// badSchedule says what is wrong with a schedule, "" if nothing.
func badSchedule(schedule string) string {
	if len(schedule) > maxSchedule {
		return "longer than " + strconv.Itoa(maxSchedule) + " characters"
	}
	if every, ok := strings.CutPrefix(schedule, "@every "); ok {
		if _, err := time.ParseDuration(every); err != nil {
			return "failed to parse duration " + schedule + ": " + err.Error()
		}
		return ""
	}
	if strings.HasPrefix(schedule, "@") {
		if slices.Contains(scheduleMacros, schedule) {
			return ""
		}
		return "unrecognized descriptor: " + schedule
	}
	parts := strings.Fields(schedule)
	if len(parts) != len(scheduleFields) {
		return "expected exactly 5 fields, found " + strconv.Itoa(len(parts)) + ": [" + strings.Join(parts, " ") + "]"
	}
	for i, f := range scheduleFields {
		for _, item := range strings.Split(parts[i], ",") {
			if !goodScheduleItem(strings.ToLower(item), f.lo, f.hi, f.symbols) {
				return "the " + f.name + " must be numbers from " + strconv.Itoa(f.lo) + " to " + strconv.Itoa(f.hi) + ", ranges, steps or *, not " + item
			}
		}
	}
	return ""
}

// goodScheduleItem accepts "*", "?", "5", "mon", "1-5" and each with "/2".
func goodScheduleItem(item string, lo, hi int, symbols []string) bool {
	item, step, stepped := strings.Cut(item, "/")
	if stepped {
		if n, err := strconv.Atoi(step); err != nil || n < 1 {
			return false
		}
	}
	if item == "*" || item == "?" {
		return true
	}
	value := func(s string) (int, bool) {
		if i := slices.Index(symbols, s); i >= 0 {
			return lo + i, true
		}
		n, err := strconv.Atoi(s)
		return n, err == nil && n >= lo && n <= hi
	}
	from, to, ranged := strings.Cut(item, "-")
	a, ok := value(from)
	if !ranged || !ok {
		return ok
	}
	b, ok := value(to)
	return ok && a <= b
}
