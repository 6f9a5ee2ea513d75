package resource

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	maxEventNote     = 1024
	maxEventReason   = 128
	maxEventInstance = 128
	maxEventAction   = 128
)

// validateEvent: an event with an eventTime is of the new kind, whose fields
// are bounded; old ones only have to live in their object's namespace.
func validateEvent(e *corev1.Event) field.ErrorList {
	errs := checkEventNamespace(e)
	if e.EventTime.IsZero() {
		return errs
	}
	errs = append(errs, checkName(field.NewPath("reportingController"), e.ReportingController, utilvalidation.IsQualifiedName)...)
	for _, f := range []struct {
		name, value string
		most        int
	}{
		{"reportingInstance", e.ReportingInstance, maxEventInstance},
		{"action", e.Action, maxEventAction}, {"reason", e.Reason, maxEventReason},
	} {
		p := field.NewPath(f.name)
		errs = append(errs, required(p, f.value)...)
		if len(f.value) > f.most {
			errs = append(errs, field.Invalid(p, "", fmt.Sprintf("can have at most %d characters", f.most)))
		}
	}
	if len(e.Message) > maxEventNote {
		errs = append(errs, field.Invalid(field.NewPath("message"), "", fmt.Sprintf("can have at most %d characters", maxEventNote)))
	}
	return append(errs, checkSet(field.NewPath("type"), e.Type, corev1.EventTypeNormal, corev1.EventTypeWarning)...)
}

// checkEventNamespace: events about objects without a namespace live in
// "default" or "kube-system".
func checkEventNamespace(e *corev1.Event) field.ErrorList {
	ns, p := e.InvolvedObject.Namespace, field.NewPath("involvedObject", "namespace")
	switch {
	case ns == "" && e.Namespace != metav1.NamespaceDefault && e.Namespace != metav1.NamespaceSystem:
		return field.ErrorList{field.Invalid(p, ns, "does not match event.namespace")}
	case ns != "" && ns != e.Namespace:
		return field.ErrorList{field.Invalid(p, ns, "does not match event.namespace")}
	}
	return nil
}

// validateEventUpdate: only the series of a new event goes on.
func validateEventUpdate(e, old *corev1.Event) field.ErrorList {
	if old.EventTime.IsZero() {
		return nil
	}
	var errs field.ErrorList
	for _, f := range []struct {
		name    string
		is, was any
	}{
		{"involvedObject", e.InvolvedObject, old.InvolvedObject}, {"reason", e.Reason, old.Reason},
		{"message", e.Message, old.Message}, {"source", e.Source, old.Source},
		{"firstTimestamp", e.FirstTimestamp, old.FirstTimestamp}, {"lastTimestamp", e.LastTimestamp, old.LastTimestamp},
		{"count", e.Count, old.Count}, {"type", e.Type, old.Type}, {"action", e.Action, old.Action},
		{"reportingController", e.ReportingController, old.ReportingController},
		{"reportingInstance", e.ReportingInstance, old.ReportingInstance}, {"related", e.Related, old.Related},
	} {
		errs = append(errs, checkImmutable(field.NewPath(f.name), f.is, f.was)...)
	}
	// Old clients kept seconds only.
	if !e.EventTime.Truncate(time.Second).Equal(old.EventTime.Truncate(time.Second)) {
		errs = append(errs, field.Invalid(field.NewPath("eventTime"), e.EventTime, "field is immutable"))
	}
	return errs
}
