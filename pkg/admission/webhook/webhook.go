// Package webhook asks admission webhooks: programs that users configured to
// change or refuse requests (MutatingWebhookConfiguration and
// ValidatingWebhookConfiguration).
//
// Contract: a request is decided by the configurations that were stored when
// its phase of admission began; one that was answered is in force for all
// requests that come later. Without configurations a request costs one
// comparison. Mutating webhooks are asked one after the other, in the order of
// their configurations' names and then of their lists, each about what those
// before it made; validating ones all at once. Errors are API status errors in
// upstream's words. A webhook that hangs, redirects, lies or sends without end
// harms no request but those that it is asked about; nothing that is sent to
// it or comes from it is logged.
package webhook

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/admission"
	"coracle/pkg/admission/expression"
	"coracle/pkg/admission/match"
	"coracle/pkg/auth"
	"coracle/pkg/callout"
)

// Config is what the plugins are made of. All fields are required.
type Config struct {
	// Mutating and Validating read the configurations.
	Mutating, Validating Source
	Matcher              *match.Matcher
	Client               *callout.Client
	// Expressions compiles matchConditions, which may ask Authorizer.
	Expressions *expression.Compiler
	Authorizer  auth.Authorizer
	// UID names one question.
	UID func() (types.UID, error)
	Log *slog.Logger
	// Observe is told of each webhook that was asked.
	Observe func(Observation)
}

// Source reads the configurations of one kind, as they are at the moment.
type Source struct {
	// Mark returns a value that differs (!=) from all earlier ones once a
	// configuration has changed. It is called for every request.
	Mark func() any
	// List returns the configurations in the order of their names. They are
	// shared and not changed.
	List func(ctx context.Context) ([]runtime.Object, error)
}

// Observation is one question to a webhook, as metrics count it.
type Observation struct {
	Webhook   string
	Phase     admission.Phase
	Operation admission.Operation
	Took      time.Duration
	// Code is the HTTP code of the outcome: 200 where nothing was refused.
	Code     int
	Rejected bool
	// FailedOpen says that the webhook could not be asked and was passed over.
	FailedOpen bool
	// Error is why the webhook's answer was none.
	Error ErrorType
}

// ErrorType tells refusals from failures, in upstream's words.
type ErrorType string

// The types of errors.
const (
	NoError       ErrorType = "no_error"
	CallError     ErrorType = "calling_webhook_error"
	InternalError ErrorType = "apiserver_internal_error"
)

// Mutating is the plugin that lets webhooks change objects.
type Mutating struct{ asker }

// Validating is the plugin that lets webhooks refuse requests.
type Validating struct{ asker }

// New returns the two plugins.
func New(cfg Config) (*Mutating, *Validating) {
	return &Mutating{asker{cfg: cfg, hooks: compiled{source: cfg.Mutating, expressions: cfg.Expressions}, phase: admission.Mutating}},
		&Validating{asker{cfg: cfg, hooks: compiled{source: cfg.Validating, expressions: cfg.Expressions}, phase: admission.Validating}}
}

// Name implements admission.Plugin.
func (*Mutating) Name() string { return "MutatingAdmissionWebhook" }

// Name implements admission.Plugin.
func (*Validating) Name() string { return "ValidatingAdmissionWebhook" }

// asker is what both plugins have.
type asker struct {
	cfg   Config
	hooks compiled
	phase admission.Phase
}

// configured returns the webhooks that may want to be asked about a.
func (k *asker) configured(ctx context.Context, a *admission.Attributes) ([]*hook, error) {
	if match.Exempt(a) {
		return nil, nil
	}
	hooks, err := k.hooks.get(ctx)
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("read the configurations of admission webhooks: %w", err))
	}
	return hooks, nil
}

// wants returns the form in which h wants to be asked about a request, nil if
// it does not.
func (k *asker) wants(ctx context.Context, h *hook, r *match.Request) (*match.Form, error) {
	form, err := r.Match(ctx, &h.criteria)
	if form == nil || err != nil {
		return nil, err
	}
	if h.broken != nil {
		return nil, apierrors.NewInternalError(h.broken)
	}
	if h.conditions == nil {
		return form, nil
	}
	ok, err := k.conditionsHold(ctx, h, r, form)
	if !ok || err != nil {
		return nil, err
	}
	return form, nil
}

// conditionsHold evaluates the matchConditions of h. What cannot be evaluated
// is decided by its failurePolicy.
func (k *asker) conditionsHold(ctx context.Context, h *hook, r *match.Request, form *match.Form) (bool, error) {
	object, old, err := r.Prepare(form)
	if err != nil {
		return false, err
	}
	ok, err := h.conditions.Get().Match(ctx, &expression.Input{
		Object: object, Old: old, Kind: form.Kind, Request: r.Describe(form),
		User: r.User, Authorizer: k.cfg.Authorizer,
	})
	if err != nil && h.ignore {
		return false, nil
	}
	if err != nil {
		return false, apierrors.NewForbidden(r.Asked().Resource.GroupResource(), r.Name, err)
	}
	return ok, nil
}

// errRanOut is the answer to a request whose time was spent on webhooks.
func errRanOut() error {
	return apierrors.NewTimeoutError("request did not complete within requested timeout", 0)
}
