package apiserver

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"coracle/pkg/auth"
)

// StatusOf turns any error into the Status that a client gets.
func StatusOf(err error) metav1.Status {
	var api apierrors.APIStatus
	var forbidden *auth.ForbiddenError
	var tooBig *http.MaxBytesError
	switch {
	case errors.As(err, &api):
		return api.Status()
	case errors.As(err, &forbidden):
		a := forbidden.Attributes
		return apierrors.NewForbidden(schema.GroupResource{Group: a.APIGroup, Resource: a.Resource}, a.Name, err).Status()
	case errors.As(err, &tooBig):
		return apierrors.NewRequestEntityTooLargeError("limit is " + strconv.FormatInt(tooBig.Limit, 10)).Status()
	}
	return apierrors.NewInternalError(err).Status()
}

// WriteError answers with a Status.
func WriteError(w http.ResponseWriter, err error) {
	writeStatus(w, StatusOf(err))
}

func writeStatus(w http.ResponseWriter, s metav1.Status) {
	s.Kind, s.APIVersion = "Status", "v1"
	if s.Code == 0 {
		s.Code = http.StatusInternalServerError
	}
	if s.Details != nil && s.Details.RetryAfterSeconds > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(s.Details.RetryAfterSeconds)))
	}
	if rec, ok := w.(interface{ failed(*metav1.Status) }); ok {
		rec.failed(&s)
	}
	body, err := json.Marshal(s)
	if err != nil {
		http.Error(w, "the status cannot be encoded", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(s.Code))
	writeAll(w, append(body, '\n'))
}

// writeAll sends bytes to a client. A client that has gone away is not an
// error of ours, so there is nobody to tell.
func writeAll(w http.ResponseWriter, b []byte) {
	if _, err := w.Write(b); err != nil {
		return
	}
}

func notFoundPath() error {
	s := apierrors.NewGenericServerResponse(http.StatusNotFound, "", schema.GroupResource{}, "", "", 0, false)
	s.ErrStatus.Message = "the server could not find the requested resource"
	return s
}

func methodNotSupported(gr schema.GroupResource, verb string) error {
	return apierrors.NewMethodNotSupported(gr, verb)
}

// pathMethodNotSupported is the answer to a method that a path outside the
// resources does not have.
func pathMethodNotSupported() error {
	return apierrors.NewGenericServerResponse(http.StatusMethodNotAllowed, "", schema.GroupResource{}, "", "", 0, false)
}

func notAcceptable() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable,
		Message: "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf",
	}}
}

func unsupportedMediaType(got string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnsupportedMediaType, Reason: metav1.StatusReasonUnsupportedMediaType,
		Message: "the body of the request was in an unknown format (" + strconv.Quote(got) +
			") - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf",
	}}
}
