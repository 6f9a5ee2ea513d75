package webhook

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"

	"coracle/pkg/admission/match"
)

// callError says that a webhook could not be asked, or that its answer was
// none. What becomes of the request is for the webhook's failurePolicy.
type callError struct {
	webhook string
	reason  error
}

// Error implements error.
func (e *callError) Error() string {
	return fmt.Sprintf("failed calling webhook %q: %v", e.webhook, e.reason)
}

// Unwrap implements errors' interface.
func (e *callError) Unwrap() error { return e.reason }

// question is one request in the form in which a webhook is asked about it.
type question struct {
	form        *match.Form
	object, old []byte // JSON; nil where there is none
	shown       runtime.Object
}

// questions are those about one request, by their form.
type questions struct {
	r    *match.Request
	each map[*match.Form]*question
}

func about(r *match.Request) *questions { return &questions{r, map[*match.Form]*question{}} }

// in returns the question in a form, of the request as it is now.
func (q *questions) in(f *match.Form) (*question, error) {
	if known := q.each[f]; known != nil {
		return known, nil
	}
	object, old, err := q.r.Prepare(f)
	if err != nil {
		return nil, err
	}
	out := &question{form: f, shown: object}
	for _, part := range []struct {
		obj  runtime.Object
		into *[]byte
	}{{object, &out.object}, {old, &out.old}} {
		if part.obj == nil {
			continue
		}
		if *part.into, err = match.Encode(part.obj); err != nil {
			return nil, apierrors.NewInternalError(err)
		}
	}
	q.each[f] = out
	return out, nil
}

// changed forgets what was said of the object before it changed.
func (q *questions) changed() { clear(q.each) }

// ask asks a webhook and returns its answer, when it allows the request.
// Errors: *callError, or an API status error when the request is refused.
func (k *asker) ask(ctx context.Context, h *hook, r *match.Request, q *question) (*admissionv1.AdmissionResponse, error) {
	if r.DryRun && !h.dryRun {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("admission webhook %q does not support dry run", h.name))
	}
	fails := func(format string, err error) error {
		return &callError{h.name, fmt.Errorf(format, err)}
	}
	version, err := reviewVersion(h.versions)
	if err != nil {
		return nil, fails("could not create admission objects: %w", err)
	}
	request := r.Describe(q.form)
	if request.UID, err = k.cfg.UID(); err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	request.Object.Raw, request.OldObject.Raw = q.object, q.old
	body, err := newReview(version, request)
	if err != nil {
		return nil, fails("could not create admission objects: %w", err)
	}
	if h.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, h.timeout)
		defer cancel()
	}
	answer, err := k.cfg.Client.Post(ctx, h.target, body, maxAnswer)
	if err != nil {
		return nil, fails("failed to call webhook: %w", err)
	}
	response, err := readReview(answer, version, request.UID, k.mutates())
	if err != nil {
		return nil, fails("received invalid webhook response: %w", err)
	}
	for key, value := range response.AuditAnnotations {
		r.Annotate(h.name+"/"+key, value)
	}
	for _, text := range response.Warnings {
		r.Warn(text)
	}
	if !response.Allowed {
		return nil, refusal(h.name, response.Result)
	}
	return response, nil
}

// outcome observes what came of asking h, and says what the request has to be
// refused with: nothing when the webhook allowed it or is passed over.
func (k *asker) outcome(ctx context.Context, h *hook, r *match.Request, began time.Time, err error, key string) error {
	o := Observation{
		Webhook: h.name, Phase: k.phase, Operation: r.Operation, Took: time.Since(began),
		Code: http.StatusOK, Error: NoError,
	}
	var call *callError
	switch {
	case err == nil:
	case errors.As(err, &call):
		o.Code, o.Error, o.Rejected = http.StatusInternalServerError, CallError, !h.ignore
		o.FailedOpen = h.ignore && !errors.Is(err, context.Canceled)
		if o.FailedOpen {
			r.Annotate("failed-open."+key, h.name)
		}
		k.cfg.Log.Warn("an admission webhook could not be asked", "webhook", h.name, "configuration", h.configuration, "passedOver", h.ignore, "error", call.reason)
		if err = apierrors.NewInternalError(err); h.ignore {
			err = nil
		}
	default:
		o.Rejected, o.Code = true, http.StatusInternalServerError
		if status := apierrors.APIStatus(nil); errors.As(err, &status) {
			o.Code = int(status.Status().Code)
		} else {
			o.Error = InternalError
		}
	}
	k.cfg.Observe(o)
	if err == nil && ctx.Err() != nil {
		return errRanOut() // it was passed over, and there is no time for others
	}
	return err
}
