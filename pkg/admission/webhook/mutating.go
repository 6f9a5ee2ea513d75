package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"

	"coracle/pkg/admission"
	"coracle/pkg/admission/jsonpatch"
	"coracle/pkg/admission/match"
)

// The beginnings of the keys of audit annotations of this phase.
const (
	mutationKey = "mutation.webhook.admission.k8s.io/"
	patchKey    = "patch.webhook.admission.k8s.io/"
)

// memory is what the plugin keeps of a request between the passes.
type memory struct {
	// asked are the webhooks that want to be asked again, should something
	// change after them; due are those of them for which it did.
	asked, due map[string]bool
	// left is the object as the first pass left it; kept when asked has any.
	left runtime.Object
}

// changed makes all due that were asked before.
func (m *memory) changed() {
	for id := range m.asked {
		m.due[id] = true
	}
	clear(m.asked)
}

// Admit implements admission.Mutator. In the second pass it asks those webhooks
// again that want it and after whose first answer the object changed; none is
// asked for the first time then.
func (m *Mutating) Admit(ctx context.Context, a *admission.Attributes) error {
	hooks, err := m.configured(ctx, a)
	if len(hooks) == 0 || err != nil {
		return err
	}
	mem := admission.Remembered[memory](a, m.Name())
	if mem.asked == nil {
		mem.asked, mem.due = map[string]bool{}, map[string]bool{}
	}
	if a.Pass() > 0 && len(mem.asked) > 0 && !equality.Semantic.DeepEqual(mem.left, a.Object) {
		mem.changed() // by other mutators, between the passes
	}
	r := m.cfg.Matcher.Request(a)
	all := about(r)
	for i, h := range hooks {
		if a.Pass() > 0 && !mem.due[h.id()] {
			continue
		}
		form, err := m.wants(ctx, h, r)
		if err != nil {
			return err
		}
		if form == nil {
			continue
		}
		changed, err := m.mutate(ctx, h, r, all, form, i)
		if err != nil {
			return err
		}
		if changed {
			mem.changed()
			a.MutateAgain()
		}
		if h.again {
			mem.asked[h.id()] = true
		}
	}
	if a.Pass() == 0 && len(mem.asked) > 0 && a.Object != nil {
		mem.left = a.Object.DeepCopyObject()
	}
	return nil
}

// mutate asks one webhook and patches the object as it says.
func (m *Mutating) mutate(ctx context.Context, h *hook, r *match.Request, all *questions, form *match.Form, index int) (changed bool, err error) {
	place := fmt.Sprintf("round_%d_index_%d", r.Pass(), index)
	began := time.Now()
	q, err := all.in(form)
	if err != nil {
		return false, err
	}
	response, err := m.ask(ctx, h, r, q)
	if err == nil && len(response.Patch) > 0 {
		if changed, err = m.patch(h, r, q, response, patchKey+place); changed {
			all.changed()
		}
	}
	m.annotateMutation(h, r, mutationKey+place, changed)
	return changed, m.outcome(ctx, h, r, began, err, mutationKey+place)
}

// patch applies a webhook's patch. Errors: *callError, API status errors.
func (m *Mutating) patch(h *hook, r *match.Request, q *question, response *admissionv1.AdmissionResponse, key string) (changed bool, err error) {
	if *response.PatchType != admissionv1.PatchTypeJSONPatch {
		return false, &callError{h.name, fmt.Errorf("unsupported patch type %.100q", *response.PatchType)}
	}
	patch, err := jsonpatch.Decode(response.Patch)
	if err != nil {
		return false, &callError{h.name, fmt.Errorf("received undecodable patch in webhook response: %w", err)}
	}
	if patch.Empty() {
		return false, nil
	}
	if q.shown == nil {
		return false, apierrors.NewInternalError(fmt.Errorf(
			"admission webhook %q attempted to modify the object, which is not supported for this operation", h.name))
	}
	doc, err := patch.Apply(q.object)
	if err != nil {
		return false, apierrors.NewInternalError(fmt.Errorf("admission webhook %q: its patch does not fit the object: %w", h.name, err))
	}
	next, err := r.Decode(q.form, doc)
	if err != nil {
		return false, apierrors.NewInternalError(fmt.Errorf("admission webhook %q: what its patch makes of the object cannot be decoded: %w", h.name, err))
	}
	m.annotatePatch(h, r, key, response.Patch)
	if equality.Semantic.DeepEqual(q.shown, next) {
		return false, nil
	}
	return true, r.Replace(q.form, next)
}

// annotateMutation and annotatePatch tell the audit log what a webhook did.
func (m *Mutating) annotateMutation(h *hook, r *match.Request, key string, changed bool) {
	annotate(r, key, struct {
		Configuration string `json:"configuration"`
		Webhook       string `json:"webhook"`
		Mutated       bool   `json:"mutated"`
	}{h.configuration, h.name, changed})
}

func (m *Mutating) annotatePatch(h *hook, r *match.Request, key string, patch []byte) {
	annotate(r, key, struct {
		Configuration string          `json:"configuration"`
		Webhook       string          `json:"webhook"`
		Patch         json.RawMessage `json:"patch"`
		PatchType     string          `json:"patchType"`
	}{h.configuration, h.name, patch, string(admissionv1.PatchTypeJSONPatch)})
}

func annotate(r *match.Request, key string, value any) {
	if text, err := json.Marshal(value); err == nil {
		r.Annotate(key, string(text))
	}
}

var (
	_ admission.Mutator   = (*Mutating)(nil)
	_ admission.Validator = (*Validating)(nil)
)
