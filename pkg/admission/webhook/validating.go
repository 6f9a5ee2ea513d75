package webhook

import (
	"context"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"coracle/pkg/admission"
	"coracle/pkg/admission/match"
)

// validatingKey begins the keys of audit annotations of this phase.
const validatingKey = "validating.webhook.admission.k8s.io/"

func (k *asker) mutates() bool { return k.phase == admission.Mutating }

// Validate implements admission.Validator: it asks all webhooks at once. Of
// several refusals the first in their order is the answer.
func (v *Validating) Validate(ctx context.Context, a *admission.Attributes) error {
	hooks, err := v.configured(ctx, a)
	if len(hooks) == 0 || err != nil {
		return err
	}
	r := v.cfg.Matcher.Request(a)
	all := about(r)
	type asked struct {
		hook *hook
		q    *question
	}
	var list []asked
	for _, h := range hooks {
		form, err := v.wants(ctx, h, r)
		if err != nil {
			return err
		}
		if form == nil {
			continue
		}
		q, err := all.in(form)
		if err != nil {
			return err
		}
		list = append(list, asked{h, q})
	}
	if len(list) > 0 && ctx.Err() != nil {
		return errRanOut()
	}
	errs := make([]error, len(list))
	var wg sync.WaitGroup
	for i := range list {
		wg.Go(func() {
			errs[i] = v.validate(ctx, list[i].hook, r, list[i].q, fmt.Sprintf("%sround_0_index_%d", validatingKey, i))
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// validate asks one webhook. A panic refuses the request: no handler of the
// request's would see it in this goroutine.
func (v *Validating) validate(ctx context.Context, h *hook, r *match.Request, q *question, key string) (err error) {
	defer func() {
		if p := recover(); p != nil {
			v.cfg.Log.Error("asking an admission webhook panicked", "webhook", h.name, "panic", fmt.Sprint(p))
			err = apierrors.NewInternalError(fmt.Errorf("ValidatingAdmissionWebhook/%s could not be asked, the server's log says why", h.name))
		}
	}()
	began := time.Now()
	_, err = v.ask(ctx, h, r, q)
	return v.outcome(ctx, h, r, began, err, key)
}
