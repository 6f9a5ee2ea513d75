package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	admissionv1 "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	kjson "sigs.k8s.io/json"
)

const reviewKind = "AdmissionReview"

// maxAnswer bounds what is read of an answer: a patch that replaces an object
// of the largest size, in base64, and a little more.
const maxAnswer = 6 << 20

// reviewVersion is the first version of AdmissionReview that both sides know.
func reviewVersion(understood []string) (string, error) {
	i := slices.IndexFunc(understood, func(v string) bool { return v == "v1" || v == "v1beta1" })
	if i < 0 {
		return "", errors.New("webhook does not accept known AdmissionReview versions (v1, v1beta1)")
	}
	return understood[i], nil
}

// newReview is a question's body. The versions differ in their name alone.
func newReview(version string, request *admissionv1.AdmissionRequest) ([]byte, error) {
	return json.Marshal(&admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: admissionv1.GroupName + "/" + version, Kind: reviewKind},
		Request:  request,
	})
}

// answer is what is read of a webhook's body.
type answer struct {
	metav1.TypeMeta `json:",inline"`
	Response        *admissionv1.AdmissionResponse `json:"response"`
}

// readReview reads the answer to the question uid. It comes from a program of
// somebody else and may be anything.
func readReview(body []byte, version string, uid types.UID, mutating bool) (*admissionv1.AdmissionResponse, error) {
	var a answer
	if err := kjson.UnmarshalCaseSensitivePreserveInts(bytes.TrimSpace(body), &a); err != nil {
		return nil, fmt.Errorf("it is no %s: %w", reviewKind, err)
	}
	want := schema.GroupVersionKind{Group: admissionv1.GroupName, Version: version, Kind: reviewKind}
	r := a.Response
	switch {
	case r == nil:
		return nil, errors.New("webhook response was absent")
	case version == "v1" && r.UID != uid:
		return nil, fmt.Errorf("expected response.uid=%q, got %.100q", uid, r.UID)
	case version == "v1" && a.GroupVersionKind() != want:
		return nil, fmt.Errorf("expected webhook response of %v, got %.100q", want, a.GroupVersionKind().String())
	}
	if version != "v1" { // which says less and checked less
		if !mutating {
			r.Patch = nil
		}
		r.PatchType = nil
		if len(r.Patch) > 0 {
			r.PatchType = new(admissionv1.PatchTypeJSONPatch)
		}
		return r, nil
	}
	return r, checkPatchType(r, mutating)
}

func checkPatchType(r *admissionv1.AdmissionResponse, mutating bool) error {
	switch {
	case !mutating && len(r.Patch) > 0:
		return errors.New("validating webhook may not return response.patch")
	case !mutating && r.PatchType != nil:
		return errors.New("validating webhook may not return response.patchType")
	case len(r.Patch) > 0 && r.PatchType == nil:
		return errors.New("webhook returned response.patch but not response.patchType")
	case len(r.Patch) == 0 && r.PatchType != nil:
		return errors.New("webhook returned response.patchType but not response.patch")
	case r.PatchType != nil && *r.PatchType == "":
		return fmt.Errorf("webhook returned invalid response.patchType of %q", *r.PatchType)
	}
	return nil
}

// maxCode is the last code of HTTP that means something.
const maxCode = 599

// refusal is the error of a request that a webhook refused.
func refusal(name string, result *metav1.Status) *apierrors.StatusError {
	var s metav1.Status
	if result != nil {
		s = *result
	}
	if s.Code < http.StatusBadRequest {
		s.Code = http.StatusBadRequest
	}
	if s.Code > maxCode {
		s.Code = http.StatusInternalServerError
	}
	if s.Status == "" || s.Status == metav1.StatusSuccess {
		s.Status = metav1.StatusFailure
	}
	denied := fmt.Sprintf("admission webhook %q denied the request", name)
	switch {
	case s.Message != "":
		s.Message = denied + ": " + s.Message
	case s.Reason != "":
		s.Message = denied + ": " + string(s.Reason)
	default:
		s.Message = denied + " without explanation"
	}
	return &apierrors.StatusError{ErrStatus: s}
}
