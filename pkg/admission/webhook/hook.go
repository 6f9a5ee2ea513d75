package webhook

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/admission/expression"
	"coracle/pkg/admission/match"
	"coracle/pkg/callout"
)

// hook is one webhook of a configuration, ready to be asked.
type hook struct {
	configuration, name string
	criteria            match.Criteria
	// broken says what is wrong with a stored configuration that no write would
	// have accepted; requests that the webhook is about fail by it.
	broken   error
	target   callout.Target
	versions []string // of AdmissionReview that it understands
	// ignore lets requests pass that it could not be asked about.
	ignore  bool
	timeout time.Duration // 0 is the request's own
	dryRun  bool          // it may be asked about dry runs
	again   bool          // it wants to be asked again when others change more
	// conditions are compiled on first use; nil when there are none.
	conditions *expression.Lazy[expression.Conditions]
}

// id tells webhooks apart.
func (h *hook) id() string { return h.configuration + "/" + h.name }

// compiled keeps the webhooks of the configurations of one kind.
type compiled struct {
	source      Source
	expressions *expression.Compiler
	now         atomic.Pointer[state]
	mu          sync.Mutex // one goroutine compiles
}

// state is what the configurations come to as of a mark. It is immutable.
type state struct {
	mark  any
	hooks []*hook
	each  map[generation][]*hook
}

// generation is one state of one configuration.
type generation struct {
	uid        types.UID
	generation int64
}

// get returns the webhooks of the configurations that are stored now, in the
// order in which they are asked.
func (c *compiled) get(ctx context.Context) ([]*hook, error) {
	if s := c.now.Load(); s != nil && s.mark == c.source.Mark() {
		return s.hooks, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	mark := c.source.Mark() // before the list, which may be newer
	old := c.now.Load()
	if old != nil && old.mark == mark {
		return old.hooks, nil
	}
	list, err := c.source.List(ctx)
	if err != nil {
		return nil, err
	}
	s := &state{mark: mark, each: make(map[generation][]*hook, len(list))}
	for _, obj := range list {
		meta, webhooks := webhooksOf(obj)
		key := generation{meta.UID, meta.Generation}
		var hooks []*hook
		if old != nil {
			hooks = old.each[key]
		}
		if hooks == nil {
			for i := range webhooks {
				hooks = append(hooks, compile(meta.Name, &webhooks[i], c.expressions))
			}
		}
		s.each[key] = hooks
		s.hooks = append(s.hooks, hooks...)
	}
	c.now.Store(s)
	if old != nil {
		old.dropAllBut(s)
	}
	return s.hooks, nil
}

// dropAllBut forgets what was compiled for configurations that next lacks.
func (s *state) dropAllBut(next *state) {
	for key, hooks := range s.each {
		if _, kept := next.each[key]; kept {
			continue
		}
		for _, h := range hooks {
			if h.conditions != nil {
				h.conditions.Drop()
			}
		}
	}
}

// webhook is one of either kind of configuration.
type webhook struct {
	admissionregistrationv1.ValidatingWebhook
	reinvocation *admissionregistrationv1.ReinvocationPolicyType
}

func webhooksOf(obj runtime.Object) (*metav1.ObjectMeta, []webhook) {
	switch c := obj.(type) {
	case *admissionregistrationv1.MutatingWebhookConfiguration:
		out := make([]webhook, len(c.Webhooks))
		for i, w := range c.Webhooks {
			out[i] = webhook{admissionregistrationv1.ValidatingWebhook{
				Name: w.Name, ClientConfig: w.ClientConfig, Rules: w.Rules, FailurePolicy: w.FailurePolicy, MatchPolicy: w.MatchPolicy,
				NamespaceSelector: w.NamespaceSelector, ObjectSelector: w.ObjectSelector, SideEffects: w.SideEffects,
				TimeoutSeconds: w.TimeoutSeconds, AdmissionReviewVersions: w.AdmissionReviewVersions, MatchConditions: w.MatchConditions,
			}, w.ReinvocationPolicy}
		}
		return &c.ObjectMeta, out
	case *admissionregistrationv1.ValidatingWebhookConfiguration:
		out := make([]webhook, len(c.Webhooks))
		for i, w := range c.Webhooks {
			out[i].ValidatingWebhook = w
		}
		return &c.ObjectMeta, out
	}
	return &metav1.ObjectMeta{}, nil
}

func compile(configuration string, w *webhook, expressions *expression.Compiler) *hook {
	h := &hook{
		configuration: configuration, name: w.Name, versions: w.AdmissionReviewVersions,
		ignore:   isSet(w.FailurePolicy, admissionregistrationv1.Ignore),
		again:    isSet(w.reinvocation, admissionregistrationv1.IfNeededReinvocationPolicy),
		dryRun:   isSet(w.SideEffects, admissionregistrationv1.SideEffectClassNone) || isSet(w.SideEffects, admissionregistrationv1.SideEffectClassNoneOnDryRun),
		criteria: match.Criteria{Exact: isSet(w.MatchPolicy, admissionregistrationv1.Exact)},
		target:   target(&w.ClientConfig),
	}
	for _, r := range w.Rules {
		h.criteria.Rules = append(h.criteria.Rules, admissionregistrationv1.NamedRuleWithOperations{RuleWithOperations: r})
	}
	if w.TimeoutSeconds != nil {
		h.timeout = time.Duration(*w.TimeoutSeconds) * time.Second
	}
	if conditions := w.MatchConditions; len(conditions) > 0 {
		h.conditions = expression.NewLazy(expressions, func() *expression.Conditions {
			return expressions.Scope(expression.Stored).Conditions(conditions, expression.Declarations{Authorizer: true})
		})
	}
	h.criteria.Namespaces = h.selector("namespaceSelector", w.NamespaceSelector)
	h.criteria.Objects = h.selector("objectSelector", w.ObjectSelector)
	return h
}

func isSet[T comparable](p *T, value T) bool { return p != nil && *p == value }

func (h *hook) selector(field string, s *metav1.LabelSelector) labels.Selector {
	if s == nil {
		return nil
	}
	out, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		h.broken = fmt.Errorf("webhook %q of configuration %s has a %s that cannot be read: %w", h.name, h.configuration, field, err)
		return nil
	}
	return out
}

func target(c *admissionregistrationv1.WebhookClientConfig) callout.Target {
	t := callout.Target{Authority: c.CABundle}
	if c.URL != nil {
		t.URL = *c.URL
	} else if s := c.Service; s != nil {
		t.Service = &callout.Service{Namespace: s.Namespace, Name: s.Name}
		if s.Path != nil {
			t.Service.Path = *s.Path
		}
		if s.Port != nil {
			t.Service.Port = *s.Port
		}
	}
	return t
}
