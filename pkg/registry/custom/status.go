package custom

import (
	"fmt"
	"reflect"
	"slices"
	"time"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Taken are the names that other definitions of a group have been given.
type Taken struct {
	Resources, Kinds map[string]bool
}

// Add takes names.
func (t *Taken) Add(names *apiextensionsv1.CustomResourceDefinitionNames) {
	if t.Resources == nil {
		t.Resources, t.Kinds = map[string]bool{}, map[string]bool{}
	}
	for _, name := range append([]string{names.Plural, names.Singular}, names.ShortNames...) {
		t.Resources[name] = true
	}
	t.Kinds[names.Kind], t.Kinds[names.ListKind] = true, true
}

// Settle decides on the status of a definition: which of its names it gets,
// and its conditions. It changes crd alone and says whether it did. taken are
// the names of all other definitions of the group.
func Settle(crd *apiextensionsv1.CustomResourceDefinition, taken *Taken, now time.Time) bool {
	before := crd.Status.DeepCopy()
	accept(crd, taken, now)
	establish(crd, now)
	approval(crd, now)
	structure(crd, now)
	return !reflect.DeepEqual(before, &crd.Status)
}

// accept gives the definition those of its names that are free. It keeps those
// that it has until it gets new ones.
func accept(crd *apiextensionsv1.CustomResourceDefinition, taken *Taken, now time.Time) {
	wanted, got := crd.Spec.Names, &crd.Status.AcceptedNames
	c := apiextensionsv1.CustomResourceDefinitionCondition{
		Type: apiextensionsv1.NamesAccepted, Status: apiextensionsv1.ConditionTrue, Reason: "NoConflicts", Message: "no conflicts found",
	}
	conflict := func(reason string, err error) {
		c.Status, c.Reason, c.Message = apiextensionsv1.ConditionFalse, reason, err.Error()
	}
	one := func(want string, have *string, names map[string]bool, reason string) {
		if want != *have && names[want] {
			conflict(reason, inUse(want))
			return
		}
		*have = want
	}
	one(wanted.Plural, &got.Plural, taken.Resources, "PluralConflict")
	one(wanted.Singular, &got.Singular, taken.Resources, "SingularConflict")
	var errs []error
	for _, name := range wanted.ShortNames {
		if !slices.Contains(got.ShortNames, name) && taken.Resources[name] {
			errs = append(errs, inUse(name))
		}
	}
	if err := utilerrors.NewAggregate(errs); err != nil {
		conflict("ShortNamesConflict", err)
	} else {
		got.ShortNames = slices.Clone(wanted.ShortNames)
	}
	one(wanted.Kind, &got.Kind, taken.Kinds, "KindConflict")
	one(wanted.ListKind, &got.ListKind, taken.Kinds, "ListKindConflict")
	got.Categories = slices.Clone(wanted.Categories)
	setCondition(crd, c, now)
}

func inUse(name string) error { return fmt.Errorf("%q is already in use", name) }

// establish says that the definition is served: once it was, it stays so.
func establish(crd *apiextensionsv1.CustomResourceDefinition, now time.Time) {
	c := apiextensionsv1.CustomResourceDefinitionCondition{Type: apiextensionsv1.Established}
	switch {
	case isTrue(crd, apiextensionsv1.Established):
		return
	case isTrue(crd, apiextensionsv1.NamesAccepted):
		c.Status, c.Reason, c.Message = apiextensionsv1.ConditionTrue, "InitialNamesAccepted", "the initial names have been accepted"
	default:
		c.Status, c.Reason, c.Message = apiextensionsv1.ConditionFalse, "NotAccepted", "not all names are accepted"
	}
	setCondition(crd, c, now)
}

// approval says whether a definition in a group of the Kubernetes community
// was approved by it.
func approval(crd *apiextensionsv1.CustomResourceDefinition, now time.Time) {
	if !apihelpers.IsProtectedCommunityGroup(crd.Spec.Group) {
		return
	}
	state, message := apihelpers.GetAPIApprovalState(crd.Annotations)
	c := apiextensionsv1.CustomResourceDefinitionCondition{
		Type: apiextensionsv1.KubernetesAPIApprovalPolicyConformant, Status: apiextensionsv1.ConditionFalse, Message: message,
	}
	switch state {
	case apihelpers.APIApprovalInvalid:
		c.Reason = "InvalidAnnotation"
	case apihelpers.APIApprovalMissing:
		c.Reason = "MissingAnnotation"
	case apihelpers.APIApproved:
		c.Status, c.Reason = apiextensionsv1.ConditionTrue, "ApprovedAnnotation"
	case apihelpers.APIApprovalBypassed:
		c.Reason = "UnapprovedAnnotation"
	default:
		c.Status, c.Reason = apiextensionsv1.ConditionUnknown, "UnknownAnnotation"
	}
	setCondition(crd, c, now)
}

// structure says what is not structural about the schemas. New definitions are
// refused for it; old ones may have come with a backup.
func structure(crd *apiextensionsv1.CustomResourceDefinition, now time.Time) {
	problem := structureProblem(crd)
	if problem == nil {
		crd.Status.Conditions = slices.DeleteFunc(crd.Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
			return c.Type == apiextensionsv1.NonStructuralSchema
		})
		if len(crd.Status.Conditions) == 0 {
			crd.Status.Conditions = nil
		}
		return
	}
	setCondition(crd, *problem, now)
}

func structureProblem(crd *apiextensionsv1.CustomResourceDefinition) *apiextensionsv1.CustomResourceDefinitionCondition {
	c := &apiextensionsv1.CustomResourceDefinitionCondition{Type: apiextensionsv1.NonStructuralSchema}
	var errs field.ErrorList
	if crd.Spec.PreserveUnknownFields {
		errs = append(errs, field.Invalid(field.NewPath("spec", "preserveUnknownFields"), true, "must be false"))
	}
	for i := range crd.Spec.Versions {
		v := &crd.Spec.Versions[i]
		props, err := propsOf(v)
		if props == nil && err == nil {
			continue
		}
		var s *structuralschema.Structural
		if err == nil {
			s, err = structuralschema.NewStructural(props)
		}
		if err != nil {
			c.Status, c.Reason = apiextensionsv1.ConditionUnknown, "StructuralError"
			c.Message = fmt.Sprintf("failed to check validation schema for version %s: %v", v.Name, err)
			return c
		}
		errs = append(errs, structuralschema.ValidateStructural(field.NewPath("spec", "versions").Index(i).Child("schema", "openAPIV3Schema"), s)...)
	}
	if len(errs) == 0 {
		return nil
	}
	c.Status, c.Reason, c.Message = apiextensionsv1.ConditionTrue, "Violations", errs.ToAggregate().Error()
	return c
}

// setCondition sets a condition. Its time is when its status changed last.
func setCondition(crd *apiextensionsv1.CustomResourceDefinition, c apiextensionsv1.CustomResourceDefinitionCondition, now time.Time) {
	c.LastTransitionTime = metav1.Time{Time: now.Truncate(time.Second)}
	old := condition(crd, c.Type)
	if old == nil {
		crd.Status.Conditions = append(crd.Status.Conditions, c)
		return
	}
	c.ObservedGeneration = old.ObservedGeneration
	if old.Status == c.Status {
		c.LastTransitionTime = old.LastTransitionTime
	}
	*old = c
}

// Ending says how far the deletion of the objects of a definition has come.
type Ending int

// The steps.
const (
	EndingInProgress Ending = iota
	EndingDone
	EndingFailed // with an error
	EndingStuck  // objects are held, for example by finalizers
	EndingNever  // there never were any
)

// SetEnding tells of a step.
func SetEnding(crd *apiextensionsv1.CustomResourceDefinition, step Ending, err error, now time.Time) {
	c := apiextensionsv1.CustomResourceDefinitionCondition{Type: apiextensionsv1.Terminating, Status: apiextensionsv1.ConditionTrue}
	switch step {
	case EndingInProgress:
		c.Reason, c.Message = "InstanceDeletionInProgress", "CustomResource deletion is in progress"
	case EndingDone:
		c.Status, c.Reason, c.Message = apiextensionsv1.ConditionFalse, "InstanceDeletionCompleted", "removed all instances"
	case EndingFailed:
		c.Reason, c.Message = "InstanceDeletionFailed", fmt.Sprintf("could not issue all deletes: %v", err)
	case EndingStuck:
		c.Reason, c.Message = "InstanceDeletionCheck", "could not confirm zero CustomResources remaining: timed out waiting for the condition"
	case EndingNever:
		c.Status, c.Reason, c.Message = apiextensionsv1.ConditionFalse, "NeverEstablished", "resource was never established"
	}
	setCondition(crd, c, now)
}
