package fairness

import (
	"fmt"
	"strconv"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Mandatory says that the schema or level of that name is kept as it is
// defined, whatever its annotation says.
func Mandatory(name string) bool {
	return name == flowcontrolv1.FlowSchemaNameExempt || name == flowcontrolv1.FlowSchemaNameCatchAll
}

// ReviseSchema brings a stored default schema up to its definition, in place,
// and says whether that changed it. An operator who sets the annotation
// apf.kubernetes.io/autoupdate-spec to false, or who changed the object before
// it had one, keeps the specification of a schema that is not mandatory.
func ReviseSchema(stored, wanted *flowcontrolv1.FlowSchema) (changed bool) {
	update, changed := annotate(&stored.ObjectMeta)
	if update && !equality.Semantic.DeepEqual(stored.Spec, wanted.Spec) {
		stored.Spec, changed = *wanted.Spec.DeepCopy(), true
	}
	return changed
}

// ReviseLevel is ReviseSchema for a level. Of the level named exempt, only what
// is mandatory about it is insisted on: its shares are an operator's to choose.
func ReviseLevel(stored, wanted *flowcontrolv1.PriorityLevelConfiguration) (changed bool) {
	update, changed := annotate(&stored.ObjectMeta)
	spec := wanted.Spec.DeepCopy()
	if wanted.Name == flowcontrolv1.PriorityLevelConfigurationNameExempt && stored.Spec.Exempt != nil {
		spec.Exempt = stored.Spec.Exempt
	}
	if update && !equality.Semantic.DeepEqual(stored.Spec, *spec) {
		stored.Spec, changed = *spec, true
	}
	return changed
}

// annotate says whether the specification is to be updated, and notes that on
// the object.
func annotate(m *metav1.ObjectMeta) (update, changed bool) {
	noted, err := strconv.ParseBool(m.Annotations[flowcontrolv1.AutoUpdateAnnotationKey])
	switch {
	case Mandatory(m.Name):
		update = true
	case err == nil:
		update = noted
	default:
		update = m.Generation == 1 // nobody has changed it
	}
	if err == nil && noted == update {
		return update, false
	}
	if m.Annotations == nil {
		m.Annotations = map[string]string{}
	}
	m.Annotations[flowcontrolv1.AutoUpdateAnnotationKey] = strconv.FormatBool(update)
	return update, true
}

// Obsolete says that an object was a default once and is none any more: it
// updates itself, and defined says that its name is still a default's.
func Obsolete(m *metav1.ObjectMeta, defined bool) bool {
	update, err := strconv.ParseBool(m.Annotations[flowcontrolv1.AutoUpdateAnnotationKey])
	return !defined && err == nil && update
}

// Dangling sets the condition of that name in a schema's status, and says
// whether that changed it. found says that the schema's level is there.
func Dangling(s *flowcontrolv1.FlowSchema, found bool, now time.Time) (changed bool) {
	level := s.Spec.PriorityLevelConfiguration.Name
	want := flowcontrolv1.FlowSchemaCondition{
		Type: flowcontrolv1.FlowSchemaConditionDangling, Status: flowcontrolv1.ConditionFalse, Reason: "Found", LastTransitionTime: metav1.NewTime(now),
		Message: fmt.Sprintf("This FlowSchema references the PriorityLevelConfiguration object named %q and it exists", level),
	}
	if !found {
		want.Status, want.Reason = flowcontrolv1.ConditionTrue, "NotFound"
		want.Message = fmt.Sprintf("This FlowSchema references the PriorityLevelConfiguration object named %q but there is no such object", level)
	}
	for i := range s.Status.Conditions {
		c := &s.Status.Conditions[i]
		if c.Type != want.Type {
			continue
		}
		if c.Status == want.Status && c.Reason == want.Reason && c.Message == want.Message {
			return false
		}
		if c.Status == want.Status {
			want.LastTransitionTime = c.LastTransitionTime
		}
		*c = want
		return true
	}
	s.Status.Conditions = append(s.Status.Conditions, want)
	return true
}
