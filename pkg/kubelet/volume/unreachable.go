package volume

import (
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// unreachable marks an error that says nothing about the object asked for: the
// API server did not answer, or not for a reason that lies in the request.
type unreachable struct{ error }

func (u unreachable) Unwrap() error { return u.error }

// answered marks an error of the API server's client as unreachable unless it
// is an answer to what was asked.
func answered(err error) error {
	switch apierrors.ReasonForError(err) {
	case metav1.StatusReasonUnknown, metav1.StatusReasonServiceUnavailable, metav1.StatusReasonTimeout,
		metav1.StatusReasonServerTimeout, metav1.StatusReasonTooManyRequests, metav1.StatusReasonInternalError:
		if err != nil {
			return unreachable{err}
		}
	}
	return err
}

func isUnreachable(err error) bool {
	var u unreachable
	return errors.As(err, &u)
}
