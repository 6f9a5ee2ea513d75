package registry

import (
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Bounds of what an answer says is wrong with an object. A body of some
// kilobytes can have ten thousand faults, and the library joins their texts in
// a time that grows with the square of their number.
const (
	maxFaults     = 100
	maxFaultBytes = 64 << 10
	// maxFaultValue bounds the text that is shown as what is wrong.
	maxFaultValue = 4 << 10
)

// Invalid is the 422 of an object with faults, of which it names the first.
func Invalid(kind schema.GroupKind, name string, errs field.ErrorList) error {
	size := 0
	shown := make(field.ErrorList, 0, min(len(errs), maxFaults+1))
	for i, e := range errs {
		if left := len(errs) - i; left > 1 && (i >= maxFaults || size > maxFaultBytes) {
			shown = append(shown, &field.Error{Type: field.ErrorTypeInvalid, BadValue: field.OmitValueType{}, Detail: fmt.Sprintf("%d further errors are not shown", left)})
			break
		}
		if text, ok := e.BadValue.(string); ok && len(text) > maxFaultValue {
			short := *e
			short.BadValue = shorten(text)
			e = &short
		}
		size += len(e.Error())
		shown = append(shown, e)
	}
	return apierrors.NewInvalid(kind, shorten(name), shown)
}

func shorten(text string) string {
	if len(text) <= maxFaultValue {
		return text
	}
	return strings.ToValidUTF8(text[:maxFaultValue/4], "") + "..."
}

// Bounds of metadata far above what validation accepts, so that nothing is
// searched for faults that is only there to be searched.
const (
	maxMetaText    = 8 << 10
	maxMetaEntries = 5_000
)

// checkMetaSize refuses metadata that is too large to be looked at.
func checkMetaSize(req Request, acc metav1.Object) error {
	path := field.NewPath("metadata")
	var errs field.ErrorList
	text := func(path *field.Path, value string, limit int) {
		if len(value) > maxMetaText {
			errs = append(errs, field.TooLong(path, "", limit))
		}
	}
	entries := func(name string, n int) {
		if n > maxMetaEntries {
			errs = append(errs, field.TooMany(path.Child(name), n, maxMetaEntries))
		}
	}
	text(path.Child("name"), acc.GetName(), validation.DNS1123SubdomainMaxLength)
	text(path.Child("generateName"), acc.GetGenerateName(), validation.DNS1123SubdomainMaxLength)
	text(path.Child("namespace"), acc.GetNamespace(), validation.DNS1123LabelMaxLength)
	entries("finalizers", len(acc.GetFinalizers()))
	entries("ownerReferences", len(acc.GetOwnerReferences()))
	for key, value := range acc.GetLabels() {
		text(path.Child("labels"), key, validation.LabelValueMaxLength)
		text(path.Child("labels"), value, validation.LabelValueMaxLength)
	}
	for key := range acc.GetAnnotations() {
		text(path.Child("annotations"), key, validation.LabelValueMaxLength)
	}
	for _, finalizer := range acc.GetFinalizers() {
		text(path.Child("finalizers"), finalizer, validation.LabelValueMaxLength)
	}
	if len(errs) == 0 {
		return nil
	}
	return Invalid(req.Resource.GVK().GroupKind(), acc.GetName(), errs)
}
